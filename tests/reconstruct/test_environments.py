"""Crystals with the same distances: the one with fewer kinds of atoms is taken."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import AnnealConfig, RepresentationConfig
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.anneal import AnnealSolver
from hpcgen.reconstruct.environments import unlikeness
from hpcgen.represent.descriptor import make_descriptor
from hpcgen.represent.pair_spectrum import PairSpectrum

EDGE = 4.3  # of the cube, angstrom
SODALITE = Crystal(  # six atoms in the primitive cell of a body-centred cube, each with four neighbours
    EDGE / 2 * (1 - 2 * np.eye(3)),
    np.array(
        [
            [0.5, 0.25, 0.75],
            [0.5, 0.75, 0.25],
            [0.25, 0.5, 0.75],
            [0.75, 0.5, 0.25],
            [0.25, 0.75, 0.5],
            [0.75, 0.25, 0.5],
        ]
    ),
    np.full(6, 6, dtype=np.uint8),
)
ALONE = np.zeros(6, dtype=np.int64)


def neighbours(lattice: np.ndarray, frac: np.ndarray, reach: float) -> list[int]:
    """How many atoms, images included, each atom has within `reach`."""
    images = np.array(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 3)).reshape(3, -1).T
    apart = (frac[:, None, None] - frac[None, :, None] - images) @ lattice
    return ((np.linalg.norm(apart, axis=-1) < reach).sum(axis=(1, 2)) - 1).tolist()


def test_sodalite_is_sodalite() -> None:
    assert neighbours(SODALITE.lattice, SODALITE.frac, 1.7) == [4] * 6
    assert unlikeness(SODALITE.lattice, SODALITE.cart, ALONE) == pytest.approx(0, abs=1e-20)


def test_unlikeness_knows_cells_species_and_units() -> None:
    rng = np.random.default_rng(0)
    lattice, frac = 4 * np.eye(3) + 0.3 * rng.standard_normal((3, 3)), rng.random((5, 3))
    whole = unlikeness(lattice, frac @ lattice, ALONE[:5])
    assert whole > 1e-3
    moved = frac + rng.integers(-3, 4, (5, 3)) + 0.1
    assert unlikeness(2 * lattice, moved @ lattice * 2, ALONE[:5]) == pytest.approx(whole)
    assert unlikeness(lattice, frac @ lattice, np.arange(5)) == 0  # each is of its own species


def test_of_crystals_with_the_same_distances_the_one_of_like_atoms_is_found() -> None:
    descriptor = make_descriptor(RepresentationConfig())
    assert isinstance(descriptor, PairSpectrum)
    solver = AnnealSolver(descriptor, AnnealConfig(starts=6))
    target = descriptor.encode(SODALITE, ALONE, 1)
    target = target * (1 + 0.01 * np.random.default_rng(1).standard_normal(len(target)))
    found = [solver.solve(target, SODALITE.lattice, SODALITE.numbers, seed, 0.001) for seed in range(12)]
    assert all(s.residual < 0.012 for s in found)
    right = [neighbours(SODALITE.lattice, s.frac, 1.7) == [4] * 6 for s in found]
    assert sum(right) >= 10, right  # half of them by the residual alone
