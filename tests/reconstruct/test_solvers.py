"""What every solver owes, for every descriptor: to stop where the target is met, and to refuse the impossible."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import ReconstructConfig, RepresentationConfig
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.basin_hopping import CONVERGED
from hpcgen.reconstruct.solution import Solver
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import Descriptor, make_descriptor

NAMES = ("pair-spectrum", "pair-spectrum+3body", "ead")
CAESIUM_CHLORIDE = Crystal(4.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([55, 17]))
PEROVSKITE = Crystal(
    3.9 * np.eye(3),
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    np.array([38, 22, 8, 8, 8]),
)
FLAT = np.array([[4.0, 0, 0], [0, 4, 0], [4, 4, 0]])


def tools(name: str, **settings: dict[str, float]) -> tuple[Descriptor, Solver]:
    ead = {"cutoff": 6.0, "eta": [1.0, 20.0], "centres": 30}
    descriptor = make_descriptor(RepresentationConfig.model_validate({"descriptor": name, "ead": ead}))
    return descriptor, make_solver(descriptor, ReconstructConfig.model_validate(settings))


def target_of(descriptor: Descriptor, crystal: Crystal) -> np.ndarray:
    species, elements = species_channels(crystal.numbers)
    return descriptor.encode(crystal, species, len(elements))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_is_met_ends_the_search(name: str) -> None:
    """Two atoms of a symmetric crystal: the first start (or hop) finds it, and none of the many others is spent."""
    budget = {"anneal": {"starts": 1000}, "basin_hopping": {"hops": 1000}}
    descriptor, solver = tools(name, **budget)
    crystal = CAESIUM_CHLORIDE
    solution = solver.solve(target_of(descriptor, crystal), crystal.lattice, crystal.numbers, 0)
    assert solution.stop_reason == "converged"
    assert solution.residual <= CONVERGED
    assert len(solution.trace) == 1
    np.testing.assert_allclose((solution.frac[1] - solution.frac[0]) % 1, 0.5, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_one_atom_meets_its_target_without_a_search(name: str) -> None:
    descriptor, solver = tools(name)
    crystal = Crystal(2.9 * np.eye(3), [[0.3, 0.1, 0.7]], np.array([26]))
    solution = solver.solve(target_of(descriptor, crystal), crystal.lattice, crystal.numbers, 0)
    assert (solution.stop_reason, solution.iterations) == ("converged", 0)
    assert solution.residual == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change",
    [
        lambda q: {"target": q[:-1]},
        lambda q: {"target": q[None]},
        lambda q: {"target": np.append(q[:-1], np.nan)},
        lambda q: {"target": np.append(q[:-1], -np.inf)},
        lambda q: {"lattice": FLAT},
        lambda q: {"lattice": np.zeros((3, 3))},
        lambda q: {"lattice": np.full((3, 3), np.nan)},
        lambda q: {"lattice": np.diag([4.0, 4.0, np.inf])},
        lambda q: {"lattice": np.eye(2)},
        lambda q: {"numbers": []},
        lambda q: {"numbers": [0, 22, 8, 8, 8]},
    ],
    ids=[
        "short",
        "two axes",
        "nan",
        "infinity",
        "flat",
        "zero",
        "nan cell",
        "endless cell",
        "2 x 2",
        "no atoms",
        "Z 0",
    ],
)
def test_what_cannot_be_solved_is_a_value_error(name: str, change) -> None:
    descriptor, solver = tools(name)
    good = target_of(descriptor, PEROVSKITE)
    task = {"target": good, "lattice": PEROVSKITE.lattice, "numbers": PEROVSKITE.numbers} | change(good)
    with pytest.raises(ValueError, match=r"target|cell|lattice|atomic number"):
        solver.solve(**task, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_no_crystal_has_gives_the_best_there_is(name: str) -> None:
    """Negative throughout, or zero: a crystal with a residual that tells, never an exception or a NaN."""
    descriptor, solver = tools(name, anneal={"starts": 1, "sweeps": 4}, basin_hopping={"hops": 1, "iterations": 20})
    good = target_of(descriptor, PEROVSKITE)
    for target in (-good, 0 * good):
        solution = solver.solve(target, PEROVSKITE.lattice, PEROVSKITE.numbers, 0)
        assert solution.stop_reason == "budget"
        assert solution.residual > 1
        assert np.isfinite(solution.residual)
        assert ((solution.frac >= 0) & (solution.frac < 1)).all()
        assert np.sqrt(sum(v**2 for v in solution.blocks.values())) == pytest.approx(solution.residual)
