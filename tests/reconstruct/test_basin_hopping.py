"""Basin hopping: its gradient, its acceptance, and that it finds crystals."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from pymatgen.analysis.structure_matcher import StructureMatcher

from hpcgen.config import BasinHoppingConfig, EadConfig
from hpcgen.crystal import Crystal, to_structure
from hpcgen.reconstruct.basin_hopping import CONVERGED, BasinHopping, accepted, importance, minimise
from hpcgen.reconstruct.hopping_kernels import Problem, keep_apart, objectives
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


def objective(frac: np.ndarray, problem: Problem) -> tuple[float, float, np.ndarray]:
    """Loss, squared distance and gradient at one crystal's positions."""
    gradient = np.empty((1, *frac.shape))
    (loss,), (square,) = objectives(frac[None], problem, gradient)
    return loss, square, gradient[0]


@pytest.mark.parametrize("l_max", [0, 1, 3])
def test_gradient_equals_finite_differences(l_max: int) -> None:
    descriptor = EmbeddedAtomDensity(EadConfig(cutoff=5.0, l_max=l_max, eta=[1.0, 9.0], centres=20))
    c, goal = random_crystal(0), random_crystal(1)
    target = descriptor.encode(goal)
    problem = BasinHopping(descriptor, SETTINGS).problem(target, c.lattice, c.numbers)
    loss, square, gradient = objective(c.frac, problem)
    expected = np.zeros((len(c), 3))
    inverse, h = np.linalg.inv(c.lattice), 1e-6
    for i, a in np.ndindex(expected.shape):
        step = np.zeros((len(c), 3))
        step[i, a] = h
        up, down = (objective(c.frac + s @ inverse, problem)[0] for s in (step, -step))
        expected[i, a] = (up - down) / (2 * h)
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())
    assert np.abs(gradient.sum(0)).max() < 1e-9 * np.abs(gradient).max()  # a translation changes nothing
    off = descriptor.encode(c) - target
    i, j, r = neighbor_list(
        "ijd", Atoms(numbers=c.numbers, cell=c.lattice, scaled_positions=c.frac, pbc=True), target[-1]
    )
    lacking = ((target[-1] - r[i < j]) ** 2).sum()  # of every pair that is closer than the target's closest
    assert lacking > 0
    assert loss == pytest.approx(problem.importance @ np.append(np.abs(off[:-1]), lacking))
    assert square == pytest.approx(off @ off)


def test_the_loss_is_relative_to_the_target() -> None:
    target = EAD.encode(random_crystal(2))
    weight = importance(target)
    np.testing.assert_allclose(weight[:-1], 1 / np.abs(target[:-1]).sum())
    np.testing.assert_allclose(importance(1e6 * target)[:-1], weight[:-1] / 1e6)
    assert np.isfinite(importance(np.zeros(EAD.length()))).all()


def test_adam_moves_by_its_rate_at_first_and_by_half_a_cosine_less_later() -> None:
    c = random_crystal(2)
    problem = BasinHopping(EAD, SETTINGS).problem(EAD.encode(c), c.lattice, c.numbers)
    start = np.random.default_rng(0).random((1, len(c), 3))
    *_, gradient = objective(start[0], problem)
    frac, loss, _, work = minimise(start, problem, 2, 1e-3, 0.0)  # two points: the start, and one step on
    assert work == 2
    assert loss[0] < objective(start[0], problem)[0]
    np.testing.assert_allclose((frac - start)[0] @ c.lattice, -1e-3 * np.sign(gradient), rtol=1e-6)
    longer = minimise(start, problem, 3, 1e-3, 0.0)[0]  # the third point is a step of 3/4 the rate further on
    assert np.abs((longer - start)[0] @ c.lattice).max() == pytest.approx(1.75e-3, rel=0.05)


def test_two_atoms_on_one_spot_are_driven_apart() -> None:
    target = EAD.encode(PEROVSKITE)
    problem = BasinHopping(EAD, SETTINGS).problem(target, PEROVSKITE.lattice, PEROVSKITE.numbers)
    frac, nearer = PEROVSKITE.frac.copy(), PEROVSKITE.frac.copy()
    frac[3], nearer[3] = frac[2] + [0.01, 0, 0], frac[2] + [0.05, 0, 0]
    gradient = np.zeros((5, 3))
    close, apart = (
        keep_apart(x, problem.cell, target[-1], problem.importance[-1], g)
        for x, g in ((frac, gradient), (nearer, np.zeros((5, 3))))
    )
    assert close > apart > keep_apart(PEROVSKITE.frac, problem.cell, target[-1] - 1e-9, 1.0, np.zeros((5, 3))) == 0
    assert gradient[3, 0] < 0 < gradient[2, 0]  # downhill they part


def test_a_trial_does_not_depend_on_the_trials_beside_it() -> None:
    c = random_crystal(2)
    problem = BasinHopping(EAD, SETTINGS).problem(EAD.encode(c), c.lattice, c.numbers)
    starts = np.random.default_rng(0).random((3, len(c), 3))
    *together, work = minimise(starts, problem, 20, 0.1, 0.0)
    assert work == 3 * 20
    for t in range(3):
        for all_, one in zip(together, minimise(starts[t : t + 1], problem, 20, 0.1, 0.0)[:3], strict=True):
            assert (all_[t] == one[0]).all()


def test_minimising_lowers_the_loss_and_keeps_the_best_point_with_its_own_loss() -> None:
    c = random_crystal(2)
    problem = BasinHopping(EAD, SETTINGS).problem(EAD.encode(c), c.lattice, c.numbers)
    starts = np.random.default_rng(1).random((2, len(c), 3))
    before = [objective(x, problem)[0] for x in starts]
    frac, loss, residual, _ = minimise(starts, problem, 60, 0.1, 0.0)
    assert (loss < np.array(before)).all()
    for t in range(2):
        again, square, _ = objective(frac[t], problem)
        assert again == loss[t]
        assert np.sqrt(square) / np.linalg.norm(problem.target) == pytest.approx(residual[t], rel=1e-12)


def test_acceptance_is_the_metropolis_rule() -> None:
    luck = np.random.default_rng(0).random(100_000)
    before = np.full(len(luck), 2.0)
    assert accepted(before - 1e-9, before, 0.1, np.full(len(luck), 1 - 1e-16)).all()  # lower: always
    for rise, temperature in ((0.2, 0.1), (0.1, 0.1), (1.0, 0.5)):
        share = accepted(before + rise, before, temperature, luck).mean()
        assert share == pytest.approx(np.exp(-rise / (temperature * 2.0)), abs=0.01)
    assert not accepted(before + 1e6, before, 0.1, luck + 1e-9).any()
    assert not accepted(np.ones(1), np.zeros(1), 0.1, np.full(1, 0.5)).any()  # nothing is worse than a perfect point


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
    assert list(solution.blocks) == ["max", "min", "distance"]
    assert np.linalg.norm(list(solution.blocks.values())) == pytest.approx(solution.residual)
    assert solution.trace[-1].tolist() == [solution.iterations, pytest.approx(solution.residual, rel=1e-6)]


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
        assert solution.trace[:, 0].tolist() == [6 * 15 * (k + 1) for k in range(hops)]
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


def test_without_a_tolerance_the_whole_budget_is_spent() -> None:
    settings = SETTINGS.model_copy(update={"hops": 2})
    task = (EAD.encode(PEROVSKITE), PEROVSKITE.lattice, PEROVSKITE.numbers)
    stopped = BasinHopping(EAD, settings).solve(*task, seed=3)
    whole = BasinHopping(EAD, settings, tolerance=0.0).solve(*task, seed=3)
    assert stopped.iterations < whole.iterations == 6 * 2 * 80
    assert whole.stop_reason == "budget"
    assert whole.residual < stopped.residual  # what a converged search goes on to gain


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


def test_a_batch_has_the_bits_of_its_members_for_any_number_of_threads() -> None:
    settings = SETTINGS.model_copy(update={"hops": 2, "iterations": 8})
    solver = BasinHopping(EAD, settings)
    crystals = [random_crystal(k, 2 + k % 3) for k in range(5)]
    task = [[EAD.encode(c) for c in crystals], [c.lattice for c in crystals], [c.numbers for c in crystals], range(5)]
    alone = [solver.solve(*arguments) for arguments in zip(*task, strict=True)]
    for threads in (1, 3):
        for one, other in zip(alone, solver.solve_batch(*task, threads=threads), strict=True):
            assert (one.frac == other.frac).all()
            assert (one.trace == other.trace).all()
            assert (one.residual, one.iterations, one.blocks) == (other.residual, other.iterations, other.blocks)
    with pytest.raises(ValueError, match="at least one thread"):
        solver.solve_batch(*task, threads=0)
    with pytest.raises(ValueError, match="shape"):
        solver.solve_batch([*task[0][:4], np.ones(3)], *task[1:])


def test_costs_grow_with_atoms_and_with_density() -> None:
    solver = BasinHopping(EAD, SETTINGS)
    n, volume = np.array([2.0, 4.0, 4.0, 20.0]), np.array([40.0, 80.0, 40.0, 400.0])
    cost = solver.costs(n, np.ones(4), volume)
    assert (np.diff(cost) > 0).all()
    doubled = BasinHopping(EAD, SETTINGS.model_copy(update={"hops": 2 * SETTINGS.hops}))
    np.testing.assert_allclose(doubled.costs(n, np.ones(4), volume), 2 * cost)


FLAT = [[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.ones(7)}, "shape"),
        ({"target": np.full(241, np.nan)}, "not finite"),
        ({"lattice": FLAT}, "no volume"),
        ({"lattice": np.zeros((3, 3))}, "no volume"),
        ({"lattice": np.full((3, 3), np.inf)}, "finite"),
        ({"numbers": []}, "atomic numbers"),
        ({"numbers": [0, 8]}, "atomic numbers"),
    ],
)
def test_targets_that_cannot_be_met_are_errors(change: dict[str, object], message: str) -> None:
    task = {"target": np.ones(241), "lattice": PEROVSKITE.lattice, "numbers": PEROVSKITE.numbers} | change
    with pytest.raises(ValueError, match=message):
        BasinHopping(EAD, SETTINGS).solve(**task, seed=0)
