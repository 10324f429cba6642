"""Symmetric starts: what the annealing of orbits says of its loss, whom it places, and that it finds a perovskite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pymatgen.core import Lattice

from hpcgen.config import AnnealConfig, PairSpectrumConfig
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.anneal import AnnealSolver
from hpcgen.reconstruct.grid import Grid, build_grid, pair_targets
from hpcgen.reconstruct.groups import lattice_operations, orbits, random_group, split_into_orbits
from hpcgen.reconstruct.orbits import MOST_ORBITS, anneal_orbits, symmetric_start
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig())
BINS = (len(DESCRIPTOR.centres), len(DESCRIPTOR.wave_numbers))
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
SPECIES = np.array([0, 1, 2, 2, 2])
CELLS = {
    "cubic": 3.9 * np.eye(3),
    "hexagonal": Lattice.hexagonal(4.2, 5.5).matrix,
    "triclinic": Lattice.from_parameters(3.9, 4.2, 4.6, 82, 95, 103).matrix,
}


def problem(cell: np.ndarray, frac: np.ndarray, species: np.ndarray) -> tuple[Grid, np.ndarray]:
    """The grid of a cell, and the target that atoms at `frac` are."""
    channels = int(species.max()) + 1
    q = DESCRIPTOR.encode(Crystal(cell, frac, species + 1), species, channels)
    tables, _ = DESCRIPTOR.prepare(cell, len(species))
    q -= DESCRIPTOR.self_terms(tables, np.bincount(species), channels)
    grid = build_grid(tables, 0.6)
    return grid, pair_targets(q, channels, BINS, grid.basis)


def loss_of(x: np.ndarray, species: np.ndarray, phi: np.ndarray, target: np.ndarray) -> float:
    """Squared distance of descriptors from scratch: every pair of atoms, in double precision."""
    shape = np.array(phi.shape[:3])
    q = -target.astype(np.float64)
    for i in range(len(x)):
        for j in range(i):
            c, d = sorted((species[i], species[j]))
            factor = math.sqrt(2) if c == d else 1.0
            q[c, d] += factor / len(x) * phi[tuple((x[i] - x[j]) % shape)]
    c, d = np.triu_indices(len(target))
    return float((q[c, d] ** 2).sum())


@pytest.mark.parametrize("name", CELLS)
def test_loss_of_the_annealing_is_that_of_its_atoms(name: str) -> None:
    """Orbits of several sizes, two channels and one that has a single orbit, through random, hot and greedy sweeps."""
    cell, species = CELLS[name], np.repeat([0, 1, 2], [6, 5, 2])
    rng = np.random.default_rng(1)
    grid, target = problem(cell, rng.random((len(species), 3)), species)
    shape = np.array(grid.shape)
    operations = lattice_operations(cell, grid.shape, 1e-3)
    state = np.array([3], np.uint64)
    checked = 0
    while checked < 8:
        group = random_group(*operations, shape, state)
        members, sizes = orbits(*group, shape)
        channel, size = split_into_orbits(np.bincount(species), sizes, state)
        if len(group[0]) == 1 or len(size) == 0:
            continue
        checked += 1
        at, loss, done = anneal_orbits(
            grid.phi, members, sizes, channel, size, target, checked, 0.2, 0.05, checked % 3, state
        )
        assert checked <= done <= checked + checked % 3
        assert (sizes[at] == size).all()
        points = np.concatenate([members[r, : sizes[r]] for r in at])
        x = np.stack(np.unravel_index(points, grid.shape), axis=-1)
        assert loss == pytest.approx(loss_of(x, np.repeat(channel, size), grid.phi, target), rel=1e-3)


def test_longer_annealing_of_orbits_ends_lower() -> None:
    species = np.repeat([0, 1], [4, 8])
    grid, target = problem(CELLS["cubic"], np.random.default_rng(2).random((12, 3)), species)
    shape = np.array(grid.shape)
    inversion = np.stack([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
    members, sizes = orbits(inversion, np.zeros((2, 3), np.int64), shape)
    slots = (np.repeat([0, 1], [2, 4]), np.full(6, 2))
    mean = [
        np.mean(
            [
                anneal_orbits(
                    grid.phi, members, sizes, *slots, target, sweeps, 0.1, 0.02, 0, np.array([seed], np.uint64)
                )[1]
                for seed in range(20)
            ]
        )
        for sweeps in (1, 20)
    ]
    assert mean[1] < 0.8 * mean[0]


def starts(cell: np.ndarray, frac: np.ndarray, species: np.ndarray, n: int) -> tuple[Grid, np.ndarray, list]:
    grid, target = problem(cell, frac, species)
    matrices, orders = lattice_operations(cell, grid.shape, 0.05)
    state = np.array([1], np.uint64)
    budget = (12, 0.1, 0.02, 3)
    drawn = [symmetric_start(grid.phi, matrices, orders, species, target, *budget, state) for _ in range(n)]
    return grid, target, drawn


def test_symmetric_starts_find_a_perovskite_on_the_grid() -> None:
    grid, target, drawn = starts(3.9 * np.eye(3), np.array(PEROVSKITE), SPECIES, 30)
    zero = 1e-6 * float((target.astype(float) ** 2).sum())
    found = 0
    for x, loss, done in drawn:
        if not np.isfinite(loss):
            continue
        assert done <= 15
        assert loss == pytest.approx(loss_of(x, SPECIES, grid.phi, target), rel=1e-3, abs=zero)
        if loss > zero:
            continue
        found += 1
        frac = (x - x[1]) % grid.shape / grid.shape  # Ti at the origin: Sr in the centre, O on the edges
        assert frac[0].tolist() == [0.5, 0.5, 0.5]
        assert sorted(frac[2:].tolist()) == [[0, 0, 0.5], [0, 0.5, 0], [0.5, 0, 0]]
    assert found >= 5


def test_atoms_of_a_start_keep_order_and_symmetry() -> None:
    """Channels interleaved: every atom gets a place of its channel, and the start has the symmetry of some group."""
    species = np.array([1, 0, 1, 1, 0, 1])
    cell = CELLS["hexagonal"]
    grid, target, drawn = starts(cell, np.random.default_rng(3).random((6, 3)), species, 20)
    assert not is_symmetric(np.random.default_rng(0).integers(0, grid.shape, (6, 3)), grid.shape)
    finite = [(x, loss) for x, loss, _ in drawn if np.isfinite(loss)]
    assert len(finite) > 10
    for x, loss in finite:
        assert loss == pytest.approx(loss_of(x, species, grid.phi, target), rel=1e-3)
        assert is_symmetric(x, grid.shape)


def is_symmetric(x: np.ndarray, shape: tuple[int, int, int]) -> bool:
    """Whether some rotation of the lattice with some translation maps the points onto themselves."""
    points = {tuple(p) for p in x % shape}
    for w in lattice_operations(CELLS["hexagonal"], shape, 1e-3)[0]:
        turned = x @ w.T
        if any({tuple(p) for p in (turned - turned[0] + there) % shape} == points for there in points):
            return True
    return False


def test_no_group_no_start() -> None:
    """As many channels as atoms: every atom is an orbit of its own, which is no symmetry worth the name."""
    species = np.arange(9)
    assert len(species) > MOST_ORBITS * len(species) + 1
    _, _, drawn = starts(CELLS["triclinic"], np.random.default_rng(4).random((9, 3)), species, 3)
    for x, loss, done in drawn:
        assert (loss, done) == (np.inf, 0)
        assert x.shape == (9, 3)


def test_a_solver_of_symmetric_starts_alone_finds_the_perovskite() -> None:
    crystal = Crystal(3.9 * np.eye(3), PEROVSKITE, np.array([38, 22, 8, 8, 8]))
    target = DESCRIPTOR.encode(crystal, SPECIES, 3)
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig(symmetric=1.0))
    for seed in range(5):
        solution = solver.solve(target, crystal.lattice, crystal.numbers, seed)
        assert solution.stop_reason == "converged"
        assert solution.residual < 1e-4
