from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as spacegroup_crystal

from hpcgen.crystal import Crystal, from_atoms, to_atoms
from hpcgen.dynamics import bottleneck, ionic_radii


def made(symbols, basis, group, cell) -> Crystal:
    return from_atoms(spacegroup_crystal(symbols, basis, spacegroup=group, cellpar=cell))


LI3N = made(["N", "Li", "Li"], [(0, 0, 0), (0, 0, 0.5), (1 / 3, 2 / 3, 0)], 191, [3.65, 3.65, 3.87, 90, 90, 120])
LICOO2 = made(["Li", "Co", "O"], [(0, 0, 0.5), (0, 0, 0), (0, 0, 0.26)], 166, [2.82, 2.82, 14.05, 90, 90, 120])
OXYGENS = [(0.097, 0.25, 0.743), (0.457, 0.25, 0.206), (0.166, 0.047, 0.285)]
LIFEPO4 = made(
    ["Li", "Fe", "P", "O", "O", "O"],
    [(0, 0, 0), (0.282, 0.25, 0.975), (0.095, 0.25, 0.418), *OXYGENS],
    62,
    [10.33, 6.01, 4.69, 90, 90, 90],
)
AGI = made(["I", "Ag"], [(0, 0, 0), (0.25, 0, 0.5)], 229, [5.06, 5.06, 5.06, 90, 90, 90])
LIF = from_atoms(bulk("LiF", "rocksalt", a=4.03))


@pytest.mark.parametrize(
    ("crystal", "ion", "dimensions"), [(LIFEPO4, 3, 1), (LICOO2, 3, 2), (LI3N, 3, 2), (AGI, 47, 3), (LIF, 3, 3)]
)
def test_ways_have_the_dimensions_that_the_materials_are_known_for(crystal, ion, dimensions):
    assert bottleneck(crystal, ion)[1] == dimensions


def test_conductors_are_wide_and_rocksalt_is_narrow():
    def ratio(crystal, ion):
        return bottleneck(crystal, ion)[0] / ionic_radii(crystal)[crystal.numbers == ion][0]

    assert min(ratio(LI3N, 3), ratio(AGI, 47)) > 1
    assert ratio(LIF, 3) < ratio(LICOO2, 3) < ratio(LIFEPO4, 3) < 0.8


def test_the_geometry_of_rocksalt():
    """The way from an octahedron to a tetrahedron leads through a triangle of anions a / sqrt(2) apart."""
    centre = 4.03 / 2**0.5 / 3**0.5
    radius = ionic_radii(LIF)[LIF.numbers == 9][0]
    assert centre - radius - 0.1 < bottleneck(LIF, 3)[0] <= centre - radius + 1e-9


def test_the_choice_of_cell_does_not_matter():
    cubic = from_atoms(bulk("LiF", "rocksalt", a=4.03, cubic=True))
    double = from_atoms(to_atoms(LI3N).repeat((2, 1, 1)))
    shear = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    sheared = Crystal(shear @ LI3N.lattice, LI3N.frac @ np.linalg.inv(shear), LI3N.numbers)
    for a, b in ((LIF, cubic), (LI3N, double), (LI3N, sheared)):
        (x, m), (y, n) = bottleneck(a, 3), bottleneck(b, 3)
        assert x == pytest.approx(y, abs=0.1)  # the grids differ
        assert m == n


def test_a_cage_has_no_way():
    """An ion between two planes of touching atoms, with walls between."""
    n = 6
    grid = np.array([(i, j, k) for i in range(n) for j in range(n) for k in range(n)]) / n
    inside = (abs(grid - 0.5) < 0.2).all(axis=1)
    frac = np.concatenate([grid[~inside], [[0.5, 0.5, 0.5]]])
    cage = Crystal(np.eye(3) * 9.0, frac, np.array([8] * int((~inside).sum()) + [3]))
    clearance, _ = bottleneck(cage, 3)
    assert clearance < 0


def test_nothing_to_move_or_nothing_to_move_through():
    with pytest.raises(ValueError, match="framework"):
        bottleneck(from_atoms(bulk("Li")), 3)
    with pytest.raises(ValueError, match="framework"):
        bottleneck(LIF, 11)
