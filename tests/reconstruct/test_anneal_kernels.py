"""The grid and its kernels: the table of the pair function, the heat bath, the bookkeeping of the annealing."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import PairSpectrumConfig
from hpcgen.reconstruct.grid import BASIS_ERROR, build_grid, divisions, pair_targets
from hpcgen.reconstruct.kernels import anneal
from hpcgen.reconstruct.polish import polish
from hpcgen.reconstruct.streams import heat_bath, uniform
from hpcgen.represent.pair_kernels import pair_spectrum
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig())
SPECIES = np.array([0, 0, 1, 1, 2, 2, 2])


def pairs_alone(tables, cart, species=SPECIES, n_channels=3):
    """What the search works on: the pair spectrum in a scaled cell without the self terms."""
    q = np.empty(DESCRIPTOR.length(n_channels))
    pair_spectrum(np.ascontiguousarray(cart), species, n_channels, tables, q, np.empty((0, len(q))), False)
    return q


@pytest.fixture
def cell():
    """Lattice scaled already (V/N = 2.5^3) with its tables and grid."""
    rng = np.random.default_rng(1)
    lattice = np.eye(3) + rng.normal(scale=0.1, size=(3, 3))
    lattice *= 2.5 * (len(SPECIES) / abs(np.linalg.det(lattice))) ** (1 / 3)
    tables, scale = DESCRIPTOR.prepare(lattice, len(SPECIES))
    assert scale == pytest.approx(1)
    return lattice, tables, build_grid(tables, 0.6)


def test_uniform_is_splitmix64():
    """First outputs of the reference implementation for the seed 1234567, and equidistribution."""
    state = np.array([1234567], np.uint64)
    reference = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [uniform(state) for _ in range(3)] == [(z >> 11) / 2**53 for z in reference]
    draws = np.array([uniform(state) for _ in range(20000)])
    assert abs(draws.mean() - 0.5) < 0.01
    assert draws.min() >= 0
    assert draws.max() < 1


def test_heat_bath_draws_from_the_boltzmann_distribution():
    """Detailed balance: with p_i ~ exp(-L_i/T) whatever the position before, every pair of moves is balanced."""
    loss = np.array([0.3, 0.0, 0.1, 5.0, 0.1], np.float32)
    state = np.array([7], np.uint64)
    draws = 40000
    counts = np.bincount([heat_bath(loss, 10.0, state) for _ in range(draws)], minlength=len(loss))
    p = np.exp(-10.0 * loss.astype(float))
    p /= p.sum()
    assert counts[3] == 0
    assert (np.abs(counts - draws * p) < 4 * np.sqrt(draws * p) + 1).all()


def test_divisions_hold_the_step_and_halves():
    assert divisions(np.diag([2.4, 4.0, 7.3]), 0.6) == (4, 8, 16)
    assert divisions(np.diag([100.0, 5.0, 5.0]), 0.5) == (72, 12, 12)


def test_grid_table_is_the_pair_function_of_the_descriptor(cell):
    """Two atoms: the descriptor is (1/N) Phi(displacement), which the table holds in its basis."""
    _, _, grid = cell
    rng = np.random.default_rng(0)
    two = np.array([0, 1])
    lattice = np.diag([2.5, 2.5, 5.0])
    tables, _ = DESCRIPTOR.prepare(lattice, 2)
    grid = build_grid(tables, 0.6)
    np.testing.assert_allclose((grid.basis.T @ grid.basis).diagonal().round(12) % 1, 0)
    for point in rng.integers(0, grid.shape, (20, 3)):
        cart = np.array([[0, 0, 0], point / grid.shape]) @ lattice
        q = pairs_alone(tables, cart, two, 2)
        pair = q.reshape(-1)[np.r_[24:48, 72 + 32 : 72 + 64]]  # the pair (0, 1) of both blocks
        table = grid.basis @ grid.phi[tuple(point)] / 2
        assert np.linalg.norm(table - pair) < BASIS_ERROR * np.linalg.norm(pair) + 0.02


def test_loss_of_the_annealing_is_the_distance_of_descriptors(cell):
    """Through moves and swaps the kernel's books must still say what the descriptor says at the end."""
    lattice, tables, grid = cell
    rng = np.random.default_rng(2)
    target = pairs_alone(tables, rng.random((7, 3)) @ lattice)
    projected = pair_targets(target, 3, (24, 32), grid.basis)
    x = rng.integers(0, grid.shape, (7, 3))
    first = x[0].copy()
    state = np.array([11], np.uint64)
    loss, done = anneal(grid.phi, SPECIES, projected, x, 0, 12, 0.1, 0.02, 3, state)
    assert 12 < done <= 15
    np.testing.assert_array_equal(x[0], first)
    q = pairs_alone(tables, (x / grid.shape) @ lattice)
    error = pair_targets(q, 3, (24, 32), grid.basis).astype(float) - projected
    pairs = sum((error[c, d] ** 2).sum() for c in range(3) for d in range(c, 3))
    assert loss == pytest.approx(pairs, rel=2e-2)
    assert loss < 0.5 * (target**2).sum()


def test_greedy_annealing_never_gets_worse(cell):
    lattice, tables, grid = cell
    rng = np.random.default_rng(4)
    target = pairs_alone(tables, rng.random((7, 3)) @ lattice)
    projected = pair_targets(target, 3, (24, 32), grid.basis)
    x = rng.integers(0, grid.shape, (7, 3))
    losses = [
        anneal(grid.phi, SPECIES, projected, x, -1, 0, 0.1, 0.02, 1, np.array([5], np.uint64))[0] for _ in range(6)
    ]
    assert (np.diff(losses) <= 1e-5 * losses[-1]).all()  # fields are summed in single precision
    assert losses[-1] < losses[0]


def test_polish_converges_quadratically_from_nearby(cell):
    lattice, tables, _ = cell
    rng = np.random.default_rng(6)
    exact = rng.random((7, 3)) @ lattice
    target = pairs_alone(tables, exact)
    start = exact + 0.1 * rng.standard_normal((7, 3))
    before = start.copy()
    found, cost, done = polish(start, SPECIES, 3, tables, target, 40, 1e-16)
    assert cost < 1e-14
    assert done < 20
    np.testing.assert_array_equal(start, before)
    shift = found - exact
    np.testing.assert_allclose(shift - shift.mean(axis=0), 0, atol=1e-5)  # up to a translation of all
