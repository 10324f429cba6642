"""The local solver: normal equations and Cholesky against numpy, when it stops, and that it never gets worse."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import PairSpectrumConfig
from hpcgen.reconstruct.polish import MAX_STEP, _normal_equations, _solve_cholesky, polish
from hpcgen.represent.pair_kernels import PairTables, pair_spectrum
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig())
BINS = np.array([len(DESCRIPTOR.centres), len(DESCRIPTOR.wave_numbers)])
SPECIES = np.array([0, 1, 1, 2, 2])
RNG = np.random.default_rng(4)
CELL = 3.4 * np.eye(3) + RNG.normal(scale=0.3, size=(3, 3))


@pytest.fixture(scope="module")
def tables() -> PairTables:
    return DESCRIPTOR.prepare(CELL, len(SPECIES))[0]


def value(tables: PairTables, x: np.ndarray) -> np.ndarray:
    q = np.empty(DESCRIPTOR.length(3))
    pair_spectrum(np.ascontiguousarray(x), SPECIES, 3, tables, q, np.empty((0, len(q))), False)
    return q


def positions(tables: PairTables, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((5, 3)) @ tables.cell


@pytest.mark.parametrize("species", [SPECIES, np.array([0, 0, 0, 0, 0]), np.array([2, 0, 2, 0, 1])], ids=str)
def test_normal_equations_equal_those_of_the_whole_jacobian(tables: PairTables, species: np.ndarray) -> None:
    """What is skipped, the components of other channels, is zero: for one, two and three atoms of a channel."""
    channels = int(species.max()) + 1
    size = DESCRIPTOR.length(channels)
    q, jt = np.empty(size), np.empty((15, size))
    pair_spectrum(positions(tables, 0), species, channels, tables, q, jt, True)
    r = q - np.random.default_rng(1).random(size)
    hessian, gradient = np.empty((15, 15)), np.empty(15)
    split = channels * (channels + 1) // 2 * BINS[0]
    _normal_equations(jt, r, species, channels, split, BINS, hessian, gradient)
    expected = jt @ jt.T
    np.testing.assert_allclose(np.tril(hessian), np.tril(expected), atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(gradient, jt @ r, atol=1e-12 * np.abs(jt @ r).max())


@pytest.mark.parametrize("n", [1, 3, 30])
def test_cholesky_solves_or_says_that_it_cannot(n: int) -> None:
    root = np.random.default_rng(n).normal(size=(n, n))
    a, b = root @ root.T + 0.1 * np.eye(n), np.random.default_rng(7).normal(size=n)
    lower, x = np.tril(a), b.copy()
    assert _solve_cholesky(lower, x)
    np.testing.assert_allclose(a @ x, b, atol=1e-9)
    np.testing.assert_allclose(np.tril(lower) @ np.tril(lower).T, a, atol=1e-12 * np.abs(a).max())
    for bad in (a - 2 * np.linalg.eigvalsh(a)[-1] * np.eye(n), np.full((n, n), np.nan)):
        assert not _solve_cholesky(bad.copy(), b.copy())


def test_what_is_met_already_stops_at_once(tables: PairTables) -> None:
    x = positions(tables, 2)
    found, cost, done = polish(x, SPECIES, 3, tables, value(tables, x), 40, 1e-12)
    assert done == 0
    assert cost <= 1e-20
    np.testing.assert_array_equal(found, x)
    near = x + 1e-9
    assert polish(near, SPECIES, 3, tables, value(tables, x), 40, 1e-12)[2] == 0


def test_cost_is_that_of_the_positions_and_falls_with_the_iterations(tables: PairTables) -> None:
    """From random starts, which mostly end in other minima: a longer run never ends above a shorter one."""
    target = value(tables, positions(tables, 3))
    ended = []
    for seed in range(10, 16):
        x = positions(tables, seed)
        costs = []
        for iterations in (0, 1, 3, 10, 40):
            found, cost, done = polish(x, SPECIES, 3, tables, target, iterations, 1e-14)
            assert done <= iterations
            assert cost == pytest.approx(((value(tables, found) - target) ** 2).sum(), rel=1e-9, abs=1e-16)
            costs.append(cost)
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < 0.5 * costs[0]
        ended.append(done)
    assert min(ended) < 40  # what stalls gives up


def test_no_atom_goes_further_than_the_longest_step(tables: PairTables) -> None:
    target = value(tables, positions(tables, 3))
    steps = []
    for seed in range(30):
        x = positions(tables, seed)
        found, _, _ = polish(x, SPECIES, 3, tables, target, 1, 0.0)
        steps.append(np.linalg.norm(found - x, axis=1).max())
    assert max(steps) == pytest.approx(MAX_STEP)
    assert min(steps) < 0.9 * MAX_STEP


def test_no_move_is_better_than_where_it_ends(tables: PairTables) -> None:
    """At the minimum that it ends in, small displacements raise the cost."""
    target = value(tables, positions(tables, 3))
    x = positions(tables, 3) + 0.15 * np.random.default_rng(0).standard_normal((5, 3))
    shifted = 1.05 * target  # no crystal has it, so the residual stays above zero
    found, cost, _ = polish(x, SPECIES, 3, tables, shifted, 100, 0.0)
    assert cost > 1e-3
    for seed in range(20):
        away = found + 3e-3 * np.random.default_rng(seed).standard_normal((5, 3))
        assert ((value(tables, away) - shifted) ** 2).sum() > cost
