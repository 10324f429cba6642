"""Detailed balance on tiny cases: what a sweep leaves is the Boltzmann distribution, worked out by enumeration.

A move draws a place with probability proportional to exp(-loss / T), whatever the place before, so that every pair of
moves is balanced; T is the temperature times the smallest loss that the atom can reach.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from hpcgen.config import PairSpectrumConfig
from hpcgen.reconstruct.grid import Grid, build_grid
from hpcgen.reconstruct.groups import orbits
from hpcgen.reconstruct.kernels import anneal
from hpcgen.reconstruct.orbits import anneal_orbits
from hpcgen.reconstruct.streams import NEGLIGIBLE
from hpcgen.represent.pair_spectrum import PairSpectrum

DRAWS = 15000


@pytest.fixture(scope="module")
def grid() -> Grid:
    """A triclinic cell for three atoms with 64 grid points."""
    cell = 3.6 * np.eye(3) + np.random.default_rng(8).normal(scale=0.3, size=(3, 3))
    tables, _ = PairSpectrum(PairSpectrumConfig()).prepare(cell, 3)
    grid = build_grid(tables, 1.2)
    assert grid.shape == (4, 4, 4)
    return grid


def displaced(grid: Grid) -> np.ndarray:
    """(64, 64, K) Phi of the displacement from one grid point to another."""
    points = np.stack(np.unravel_index(np.arange(64), grid.shape), axis=-1)
    difference = (points[:, None] - points[None]) % 4
    return grid.phi[tuple(np.moveaxis(difference, -1, 0))].astype(np.float64)


def boltzmann(loss: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities along the last axis, as the heat bath has them."""
    smallest = loss.min(axis=-1, keepdims=True)
    energy = (loss - smallest) / (temperature * smallest)
    p = np.where(energy < NEGLIGIBLE, np.exp(-energy), 0.0)
    return p / p.sum(axis=-1, keepdims=True)


def significance(counts: np.ndarray, p: np.ndarray) -> float:
    """Of chi squared: the probability of so large a deviation by chance. Rare places count as one."""
    expected = p * counts.sum()
    rare = expected < 8
    counts, expected = (np.append(v[~rare], v[rare].sum()) for v in (counts, expected))
    assert len(counts) > 10, "too few places are populated to tell anything"
    square = (counts - expected) ** 2 / np.maximum(expected, 1.0)
    return float(chi2.sf(square.sum(), len(counts) - 1))


@pytest.mark.parametrize("start", [-1, -30])
def test_a_sweep_of_atoms_leaves_the_distribution_of_two_heat_baths(grid: Grid, start: int) -> None:
    """Atom 0 stays, 1 and 2 move once each in random order: the distribution of both together."""
    phi, temperature = displaced(grid), 0.5
    factor = math.sqrt(2) / 3
    target = (factor * (phi[0, 21] + phi[0, 37] + phi[21, 37]) + 0.4).astype(np.float32)
    loss = ((factor * (phi[0][:, None] + phi[0][None] + phi) - target) ** 2).sum(axis=-1)  # of the places of 1 and 2
    a, b = np.unravel_index(np.argsort(loss, axis=None)[start], (64, 64))
    first, second = boltzmann(loss.T, temperature), boltzmann(loss, temperature)
    joint = 0.5 * first[b][:, None] * second + 0.5 * second[a][None] * first.T
    assert joint.sum() == pytest.approx(1)
    assert joint[loss >= loss[a, b]].sum() < 1e-4  # a sweep's best is its last, since the start is about the worst
    before = np.array([np.unravel_index(g, grid.shape) for g in (0, a, b)])
    state, found = np.array([17], np.uint64), np.zeros((64, 64))
    for _ in range(DRAWS):
        x = before.copy()
        anneal(grid.phi, np.zeros(3, np.int64), target[None, None], x, 0, 1, temperature, temperature, 0, state)
        i, j = np.ravel_multi_index(tuple(x[1:].T), grid.shape)
        found[i, j] += 1
    for counts, p in ((found, joint), (found.sum(axis=0), joint.sum(axis=0)), (found.sum(axis=1), joint.sum(axis=1))):
        assert significance(counts.ravel(), p.ravel()) > 1e-4


def test_a_sweep_of_orbits_leaves_the_distribution_of_one_heat_bath(grid: Grid) -> None:
    """One pair of atoms related by the inversion: the loss of every place from its two atoms."""
    inversion = np.stack([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
    members, sizes = orbits(inversion, np.zeros((2, 3), np.int64), np.array(grid.shape))
    twos = np.flatnonzero(sizes == 2)
    between = displaced(grid)[members[twos, 0], members[twos, 1]]
    factor, temperature = math.sqrt(2) / 2, 3.0
    target = (factor * between[0] + 2.0).astype(np.float32)
    p = boltzmann(((factor * between - target) ** 2).sum(axis=-1), temperature)
    slot = (np.array([0]), np.array([2]))
    state, found = np.array([23], np.uint64), np.zeros(len(sizes))
    for _ in range(DRAWS):
        budget = (1, temperature, temperature, 0, state)
        at, _, _ = anneal_orbits(grid.phi, members, sizes, *slot, target[None, None], *budget)
        found[at[0]] += 1
    assert found[sizes == 1].sum() == 0
    assert significance(found[twos], p) > 1e-4
