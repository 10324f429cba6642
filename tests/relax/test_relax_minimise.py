"""The optimiser on potentials with known minima, against ASE, and on potentials that misbehave."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT
from relax_crystals import FCC, strained

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.errors import Failure
from hpcgen.relax.minimise import GPA, Evaluation, UnphysicalError, check_bonds, minimise
from hpcgen.relax.together import relax_together

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


def test_every_step_is_kept() -> None:
    start = strained(CUBIC, 0.05, 0.3)
    for config in (RelaxConfig(max_steps=3), TIGHT):
        seen = []

        def potential(crystal: Crystal, seen: list = seen) -> Evaluation:
            seen.append(emt(crystal))
            return seen[-1]

        result = minimise(potential, start, config)
        assert len(result.step_energy) == len(result.step_max_force) == result.steps + 1
        np.testing.assert_allclose(result.step_energy, [e.energy / len(start) for e in seen], rtol=1e-6)
        np.testing.assert_allclose(
            result.step_max_force, [np.linalg.norm(e.forces, axis=1).max() for e in seen], rtol=1e-6
        )
        lowest = result.step_energy[-1] if result.converged else result.step_energy.min()
        assert result.energy / len(start) == pytest.approx(float(lowest), abs=1e-6)


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


def test_an_atom_that_left_is_a_dissociation() -> None:
    fcc = Crystal(3.6 * FCC, np.zeros((1, 3)), np.array([29]))
    check_bonds(fcc)
    for apart in (5.5, 9.0):
        with pytest.raises(UnphysicalError, match="no neighbour left") as error:
            check_bonds(Crystal(apart * np.eye(3), np.zeros((1, 3)), np.array([29])))
        assert error.value.kind == "dissociated"


@pytest.mark.parametrize(
    ("z", "distance", "cell"), [((7, 7), 1.10, 4.0), ((6, 8), 1.13, 4.0), ((1, 1), 0.74, 3.5), ((54, 54), 4.36, 8.72)]
)
def test_short_and_long_bonds_of_nature_pass(z: tuple[int, int], distance: float, cell: float) -> None:
    lattice = np.diag([cell, cell, cell]) if z[0] != 54 else np.diag([4.36, 4.36, 8.72])
    check_bonds(Crystal(lattice, np.array([[0, 0, 0], [0, 0, distance / lattice[2, 2]]]), np.array(z)))


def test_side_by_side_is_as_alone() -> None:
    """More crystals than fit, of which one fails in the middle: the same results in the same order."""
    starts = [strained(CUBIC, 0.03, 0.1, seed) for seed in range(5)]
    starts.insert(2, Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.02, 0, 0]]), np.array([29, 29])))
    loads = []

    def evaluate_all(crystals):
        loads.append(sum(len(c) for c in crystals))
        return [emt(c) for c in crystals]

    ids = [str(i) for i in range(6)]
    results = relax_together(evaluate_all, ids, starts, RelaxConfig(), atoms=9)
    assert max(loads) == 8
    assert results[2] == Failure("2", "relax", "atoms-too-close", results[2].message)
    for i in (0, 1, 3, 4, 5):
        alone = minimise(emt, starts[i], RelaxConfig())
        assert (results[i].energy, results[i].steps) == (alone.energy, alone.steps)
        assert results[i].seconds > 0


def test_isolated_on_the_way_is_a_dissociation() -> None:
    calls = 0

    def evaluate_all(crystals):
        nonlocal calls
        calls += 1
        return [UnphysicalError("isolated-atom", "alone") if calls > 2 else emt(c) for c in crystals]

    (result,) = relax_together(evaluate_all, ["a"], [strained(CUBIC, 0.05, 0.3)], TIGHT, atoms=1)
    assert (result.id, result.kind) == ("a", "dissociated")
    (result,) = relax_together(lambda _: [UnphysicalError("isolated-atom", "alone")], ["a"], [COPPER], TIGHT, atoms=1)
    assert result.kind == "isolated-atom"
