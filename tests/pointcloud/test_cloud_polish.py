"""Polish: the residual of a decoded crystal, and the symmetry that its cloud allows."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.crystal import Crystal
from hpcgen.pointcloud.cloud import Cloud, CloudCodec, CloudScales, wrapped
from hpcgen.pointcloud.decode import Decoded, decode
from hpcgen.pointcloud.polish import polish, residual

SLOTS = (38, 22, 8)
FRAC = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
CODEC = CloudCodec(CloudScales())


def cloud_of(crystal: Crystal, sigma: float, seed: int = 0) -> tuple[Cloud, Decoded]:
    rng = np.random.default_rng(seed)
    position, element, lattice = (v + sigma * rng.standard_normal(v.shape) for v in CODEC.encode(crystal, SLOTS, rng))
    cloud = Cloud(wrapped(position), element, lattice)
    decoded = decode(cloud, SLOTS, CODEC.scales)
    assert isinstance(decoded, Decoded)
    return cloud, decoded


def test_residual_is_the_width_of_the_noise() -> None:
    crystal = Crystal(np.eye(3) * 3.9, FRAC, [38, 22, 8, 8, 8])
    assert residual(CODEC.encode(crystal, SLOTS), crystal, SLOTS) == 0
    cloud, decoded = cloud_of(crystal, 0.01)
    assert residual(cloud, decoded.crystal, SLOTS) == pytest.approx(3.9 * 0.01 * np.sqrt(3), rel=0.15)
    cloud.position[:5] = (cloud.position[:5] + 0.25) % 1  # stray points hardly count
    assert residual(cloud, decoded.crystal, SLOTS) < 1.5 * 3.9 * 0.01 * np.sqrt(3)
    other = Crystal(np.eye(3) * 3.9, FRAC[:1], [11])
    assert residual(cloud, other, SLOTS) == np.inf


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_taken_off_a_symmetric_crystal(seed: int) -> None:
    crystal = Crystal(np.eye(3) * 3.9, FRAC, [38, 22, 8, 8, 8])
    cloud, decoded = cloud_of(crystal, 0.01, seed)
    polished = polish(decoded, cloud, SLOTS)
    assert polished.symmetry == "Pm-3m (221)"
    between = np.subtract.outer(*(c.frac[:, 0] for c in (polished.crystal, polished.crystal)))
    np.testing.assert_allclose(np.abs(between - np.rint(2 * between) / 2), 0, atol=1e-9)
    np.testing.assert_allclose(polished.crystal.parameters[3:], 90, atol=1e-8)
    assert polished.crystal.volume == pytest.approx(decoded.crystal.volume)
    assert polished.polished_residual_A < 1.1 * polished.residual_A


def test_a_distortion_that_the_cloud_shows_stays() -> None:
    """An atom moved by seven standard errors of its position: the widest tolerance would undo it."""
    frac = FRAC.copy()
    frac[1] += [0.025, 0, 0]
    cloud, decoded = cloud_of(Crystal(np.eye(3) * 3.9, frac, [38, 22, 8, 8, 8]), 0.01)
    polished = polish(decoded, cloud, SLOTS)
    assert polished.symmetry != "Pm-3m (221)"
    moved = polished.crystal.frac[polished.crystal.numbers == 22][0]
    origin = polished.crystal.frac[polished.crystal.numbers == 38][0]
    assert (moved - origin)[0] % 1 == pytest.approx(0.525, abs=0.008)


def test_without_symmetry_nothing_moves() -> None:
    rng = np.random.default_rng(0)
    cell = [[4.1, 0, 0], [0.7, 5.2, 0], [-0.9, 1.3, 6.3]]
    cloud, decoded = cloud_of(Crystal(cell, [[0, 0, 0], *rng.random((4, 3))], [38, 22, 8, 8, 8]), 0.003)
    polished = polish(decoded, cloud, SLOTS)
    assert polished.symmetry == ""
    assert (polished.crystal.frac == decoded.crystal.frac).all()
