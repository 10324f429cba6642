"""The optimiser on potentials with known minima, against ASE, and on potentials that misbehave."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT
from relax_crystals import FCC, strained

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.relax.minimise import GPA, Evaluation, UnphysicalError, minimise

COPPER = Crystal(3.9 * FCC, np.zeros((1, 3)), np.array([29]))
CUBIC = Crystal(
    3.7 * np.eye(3), np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), np.array([29, 79, 29, 29])
)
TIGHT = RelaxConfig(max_force=1e-3, max_stress=1e-2)


def emt(crystal: Crystal) -> Evaluation:
    atoms = to_atoms(crystal)
    atoms.calc = EMT()
    return Evaluation(atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))


@pytest.mark.parametrize("start", [COPPER, strained(CUBIC, 0.04, 0.2)], ids=("one-atom", "Cu3Au"))
def test_finds_the_minimum_that_ase_finds(start: Crystal) -> None:
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    mine = minimise(emt, start, TIGHT)
    assert mine.converged
    assert np.linalg.norm(mine.forces, axis=1).max() <= 1e-3
    assert np.abs(mine.stress).max() <= 1e-2
    atoms = to_atoms(start)
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=500)
    n = len(start)
    assert mine.energy / n == pytest.approx(atoms.get_potential_energy() / n, abs=1e-5)
    assert mine.crystal.volume == pytest.approx(atoms.get_volume(), rel=1e-3)


def test_result_is_one_point() -> None:
    """Energy, forces and stress are those of the crystal that is returned, converged or not."""
    for steps in (1, 3, 100):
        result = minimise(emt, strained(CUBIC, 0.05, 0.3), RelaxConfig(max_steps=steps))
        again = emt(result.crystal)
        assert result.energy == pytest.approx(again.energy, abs=1e-9)
        np.testing.assert_allclose(result.forces, again.forces, atol=1e-9)
        np.testing.assert_allclose(result.stress, again.stress * GPA, atol=1e-7)
        assert result.converged == (steps == 100)
        assert result.energy <= result.energy_initial


def test_at_the_minimum_it_takes_no_step() -> None:
    there = minimise(emt, COPPER, TIGHT).crystal
    again = minimise(emt, there, RelaxConfig())
    assert (again.steps, again.converged) == (0, True)
    np.testing.assert_array_equal(again.crystal.lattice, there.lattice)


def pushing(pressure: float):
    """No forces, a constant stress (eV/angstrom^3): the volume runs away."""
    return lambda crystal: Evaluation(pressure * crystal.volume, np.zeros((len(crystal), 3)), pressure * np.eye(3))


@pytest.mark.parametrize(("pressure", "kind"), [(-1.0, "exploded"), (1.0, "collapsed")])
def test_runaway_volume(pressure: float, kind: str) -> None:
    with pytest.raises(UnphysicalError) as error:
        minimise(pushing(pressure), COPPER, RelaxConfig(max_volume_change=2.0))
    assert error.value.kind == kind


def test_fused_atoms_are_a_collapse() -> None:
    """A potential that pulls two atoms together without a floor."""
    start = Crystal(np.eye(3) * 5, np.array([[0, 0, 0], [0.3, 0, 0]]), np.array([1, 1]))

    def pull(crystal: Crystal) -> Evaluation:
        delta = crystal.frac[1] - crystal.frac[0]
        d = (delta - np.rint(delta)) @ crystal.lattice
        return Evaluation(float(d @ d), np.array([2 * d, -2 * d]), np.zeros((3, 3)))

    with pytest.raises(UnphysicalError, match="within") as error:
        minimise(pull, start, RelaxConfig())
    assert error.value.kind == "collapsed"


@pytest.mark.parametrize("field", ["energy", "forces", "stress"])
def test_what_is_not_finite(field: str) -> None:
    calls = 0

    def sick(crystal: Crystal) -> Evaluation:
        nonlocal calls
        calls += 1
        parts = dict(vars(emt(crystal)))
        if calls == 3:
            parts[field] = parts[field] * np.nan
        return Evaluation(**parts)

    with pytest.raises(UnphysicalError) as error:
        minimise(sick, COPPER, TIGHT)
    assert error.value.kind == "not-finite"
    assert calls == 3
