"""Decoding by the order of the points."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.crystal import Crystal
from hpcgen.pointcloud.cloud import CloudCodec, CloudScales
from hpcgen.pointcloud.decode import Decoded, decode
from hpcgen.pointcloud.ordered import decode_ordered
from hpcgen.represent.composition import order_elements

SCALES = CloudScales(points=128, elements=3, max_sites=16)
CODEC = CloudCodec(SCALES)


def crystal(n: int, seed: int) -> Crystal:
    """Up to three elements, atoms at least 1.2 angstrom apart."""
    rng = np.random.default_rng(seed)
    lattice = np.diag(rng.uniform(0.9, 1.1, 3) * (15.0 * n) ** (1 / 3)) + rng.uniform(-0.3, 0.3, (3, 3))
    lattice *= np.sign(np.linalg.det(lattice))
    frac: list[np.ndarray] = []
    while len(frac) < n:
        new = rng.random(3)
        delta = np.array([new - f for f in frac]).reshape(-1, 3)
        if not len(frac) or np.linalg.norm((delta - np.rint(delta)) @ lattice, axis=1).min() > 1.2:
            frac.append(new)
    numbers = np.resize([38, 22, 8, 8], n)
    order = np.argsort([order_elements(numbers.tolist()).index(z) for z in numbers], kind="stable")
    return Crystal(lattice, np.array(frac)[order], numbers[order])


def error(ours: Crystal, real: Crystal) -> float:
    """Largest distance between atoms of the same place in the order, angstrom."""
    delta = ours.frac - real.frac
    return float(np.linalg.norm((delta - np.rint(delta)) @ real.lattice, axis=1).max())


@pytest.mark.parametrize("n", range(1, 17))
def test_an_exact_cloud_comes_back_across_faces_too(n: int) -> None:
    real = crystal(n, n)
    real = Crystal(real.lattice, real.frac - real.frac[0] + [0.9999, 0, 0.5], real.numbers)
    slots = order_elements(real.numbers.tolist())
    found = decode_ordered(CODEC.encode(real, slots), slots, SCALES)
    assert isinstance(found, Decoded)
    assert found.crystal.numbers.tolist() == real.numbers.tolist()
    assert error(found.crystal, real) < 1e-9
    assert found.multiplicity.sum() == 128
    assert (found.noise_points, found.spread_A) == (0, pytest.approx(0, abs=1e-9))
    assert found.confidence > 0.9


def test_where_atoms_are_smeared_the_order_still_tells_them_apart() -> None:
    """What a network leaves where it is not sure: errors that the points of a token share."""
    right = {"order": 0, "clusters": 0}
    for seed in range(20):
        n = 2 + seed % 8
        real = crystal(n, 100 + seed)
        slots = order_elements(real.numbers.tolist())
        cloud = CODEC.encode(real, slots)
        rng = np.random.default_rng(seed)
        alike = np.repeat(rng.normal(0, 0.3, (16, 3)), 8, axis=0)  # angstrom, the same for the points of a token
        smeared = cloud._replace(position=(cloud.position + alike @ np.linalg.inv(real.lattice)) % 1)
        for name, how in (("order", decode_ordered), ("clusters", decode)):
            found = how(smeared, slots, SCALES)
            right[name] += isinstance(found, Decoded) and len(found.crystal) == n
    assert right["order"] >= 18
    assert right["clusters"] <= 5


@pytest.mark.parametrize("seed", range(4))
def test_atoms_whose_tokens_lie_apart_are_not_cut_into_many(seed: int) -> None:
    """Sixteen atoms explain such points best; but no two atoms lie so near to each other."""
    real = Crystal(np.diag([4.0, 4.1, 4.2]), [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]], [55, 17])
    slots = order_elements(real.numbers.tolist())
    rng = np.random.default_rng(seed)
    cloud = CODEC.encode(real, slots)
    away = np.repeat(0.46 * rng.standard_normal((16, 3)), 8, axis=0) + 0.01 * rng.standard_normal((128, 3))
    found = decode_ordered(cloud._replace(position=(cloud.position + away / 4.1) % 1), slots, SCALES)
    assert isinstance(found, Decoded)
    assert sorted(found.crystal.numbers.tolist()) == [17, 55]


def test_strays_are_counted_and_do_no_harm() -> None:
    real = crystal(6, 5)
    slots = order_elements(real.numbers.tolist())
    cloud = CODEC.encode(real, slots)
    position = cloud.position.copy()
    position[[3, 40, 100]] += 0.5
    element = cloud.element.copy()
    element[60] = np.roll(element[60], 1)
    found = decode_ordered(cloud._replace(position=position % 1, element=element), slots, SCALES)
    assert isinstance(found, Decoded)
    assert found.noise_points == 4
    assert error(found.crystal, real) < 1e-6
    assert found.confidence == pytest.approx(1 - 4 / 128, abs=0.02)


def test_noise_moves_atoms_by_what_averaging_leaves() -> None:
    rng = np.random.default_rng(0)
    real = crystal(8, 9)
    slots = order_elements(real.numbers.tolist())
    cloud = CODEC.encode(real, slots)
    noisy = cloud._replace(position=(cloud.position + rng.normal(0, 0.02, (128, 3))) % 1)
    found = decode_ordered(noisy, slots, SCALES)
    assert isinstance(found, Decoded)
    assert len(found.crystal) == 8
    assert error(found.crystal, real) < 5 * 0.02 / np.sqrt(16) * 5
    np.testing.assert_allclose(found.spread_A, 0.02 * np.sqrt((real.lattice**2).sum()), rtol=0.15)


def test_impossible_cells_are_reasons() -> None:
    real = crystal(3, 1)
    slots = order_elements(real.numbers.tolist())
    cloud = CODEC.encode(real, slots)
    for lattice in (-cloud.lattice, np.full_like(cloud.lattice, 0.99), np.full_like(cloud.lattice, np.inf)):
        assert isinstance(decode_ordered(cloud._replace(lattice=lattice), slots, SCALES), str)
