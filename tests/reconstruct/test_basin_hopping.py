"""Basin hopping: its gradient, its acceptance, and that it finds crystals."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from hpcgen.config import BasinHoppingConfig, EadConfig
from hpcgen.crystal import Crystal, to_structure
from hpcgen.reconstruct.basin_hopping import CONVERGED, BasinHopping, _Objective
from hpcgen.represent.ead import EmbeddedAtomDensity

EAD = EmbeddedAtomDensity(EadConfig(cutoff=6.0, eta=[1.0, 20.0], centres=60))
SETTINGS = BasinHoppingConfig(trials=6, hops=4, iterations=80)
PEROVSKITE = Crystal(
    np.eye(3) * 3.9,
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    [38, 22, 8, 8, 8],
)


def random_crystal(seed: int, n: int = 4) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = np.diag([3.9, 4.3, 4.8]) + rng.normal(size=(3, 3)) * 0.4
    return Crystal(lattice, rng.random((n, 3)), rng.choice([8, 22, 38], n))


@pytest.mark.parametrize("l_max", [0, 1, 3])
def test_gradient_equals_finite_differences(l_max: int) -> None:
    descriptor = EmbeddedAtomDensity(EadConfig(cutoff=5.0, l_max=l_max, eta=[1.0, 9.0], centres=20))
    c, goal = random_crystal(0), random_crystal(1)
    objective = _Objective(descriptor, descriptor.encode(goal), np.array(c.lattice), c.numbers.astype(np.float64))
    loss, residual, gradient = objective(c.frac[None])
    expected = np.zeros((len(c), 3))
    inverse, h = np.linalg.inv(c.lattice), 1e-6
    for i, a in np.ndindex(expected.shape):
        step = np.zeros((len(c), 3))
        step[i, a] = h
        up, down = ((c.frac + s @ inverse)[None] for s in (step, -step))
        expected[i, a] = (objective(up)[0][0] - objective(down)[0][0]) / (2 * h)
    np.testing.assert_allclose(gradient[0], expected, atol=1e-6 * np.abs(expected).max())
    assert np.abs(gradient[0].sum(0)).max() < 1e-9 * np.abs(gradient).max()  # a translation changes nothing
    found, target = descriptor.encode(c), descriptor.encode(goal)
    assert loss[0] == pytest.approx(np.abs(found - target).sum() / np.abs(target).sum())
    assert residual[0] == pytest.approx(np.linalg.norm(found - target) / np.linalg.norm(target))


def test_trials_of_a_batch_do_not_influence_each_other() -> None:
    c = random_crystal(2)
    objective = _Objective(EAD, EAD.encode(c), np.array(c.lattice), c.numbers.astype(np.float64))
    batch = np.random.default_rng(0).random((3, len(c), 3))
    together = objective(batch)
    for t in range(3):
        for all_, one in zip(together, objective(batch[t : t + 1]), strict=True):
            assert (all_[t] == one[0]).all()


def test_finds_a_perovskite_and_reports_its_own_residual() -> None:
    target = EAD.encode(PEROVSKITE)
    solution = BasinHopping(EAD, SETTINGS).solve(target, PEROVSKITE.lattice, PEROVSKITE.numbers, seed=3)
    found = Crystal(PEROVSKITE.lattice, solution.frac, PEROVSKITE.numbers)
    assert StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10).fit(to_structure(found), to_structure(PEROVSKITE))
    assert solution.stop_reason == "converged"
    assert solution.residual <= CONVERGED
    assert 0 < solution.iterations <= 6 * 4 * 80
    assert 0 < solution.confidence <= 1
    achieved = np.linalg.norm(EAD.encode(found) - target) / np.linalg.norm(target)
    assert achieved == pytest.approx(solution.residual, rel=1e-6)


def test_the_best_positions_are_kept_with_their_loss_when_the_budget_ends() -> None:
    c = random_crystal(4, 5)
    target = EAD.encode(c)
    residuals = []
    for hops in (1, 3):
        settings = SETTINGS.model_copy(update={"hops": hops, "iterations": 15})
        solution = BasinHopping(EAD, settings).solve(target, c.lattice, c.numbers, seed=1)
        achieved = EAD.encode(Crystal(c.lattice, solution.frac, c.numbers))
        assert np.linalg.norm(achieved - target) / np.linalg.norm(target) == pytest.approx(solution.residual, rel=1e-6)
        assert solution.stop_reason == "budget"
        assert solution.iterations == 6 * hops * 15
        assert (solution.frac >= 0).all()
        assert (solution.frac < 1).all()
        residuals.append(np.abs(achieved - target).sum())
    assert residuals[1] <= residuals[0]  # the same first hop, then at least as good


def test_the_same_seed_gives_the_same_crystal_and_another_seed_another_search() -> None:
    c = random_crystal(5)
    settings = SETTINGS.model_copy(update={"hops": 2, "iterations": 10})
    a, b, other = (
        BasinHopping(EAD, settings).solve(EAD.encode(c), c.lattice, c.numbers, seed=seed) for seed in (1, 1, 2)
    )
    assert (a.frac == b.frac).all()
    assert a.residual == b.residual
    assert (a.frac != other.frac).any()


def test_stops_at_the_noise_floor() -> None:
    noisy = EAD.encode(PEROVSKITE) * (1 + 0.05 * np.random.default_rng(0).standard_normal(EAD.length()))
    solver = BasinHopping(EAD, SETTINGS)
    solution = solver.solve(noisy, PEROVSKITE.lattice, PEROVSKITE.numbers, seed=3, noise_floor=0.1)
    assert solution.stop_reason == "noise-floor"
    assert solution.residual <= 0.1
    assert solution.iterations < solver.solve(noisy, PEROVSKITE.lattice, PEROVSKITE.numbers, seed=3).iterations


def test_one_atom_has_nowhere_to_go() -> None:
    c = Crystal(np.eye(3) * 3.0, [[0.3, 0.1, 0.7]], [84])
    solution = BasinHopping(EAD, SETTINGS).solve(EAD.encode(c), c.lattice, c.numbers, seed=0)
    assert (solution.iterations, solution.frac.tolist()) == (0, [[0, 0, 0]])
    assert solution.residual == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("target", "message"), [(np.ones(7), "shape"), (np.full(241, np.nan), "not finite")])
def test_targets_that_cannot_be_met_are_errors(target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasinHopping(EAD, SETTINGS).solve(target, PEROVSKITE.lattice, PEROVSKITE.numbers, seed=0)
