"""Random groups of a grid: the lattice's own operations, closure, orbits, and the atoms dealt out to them."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from pymatgen.core import Lattice

from hpcgen.reconstruct.groups import (
    INVERSION,
    LARGEST_GROUP,
    SCREW,
    WITH_INVERSION,
    WITHOUT_INVERSION,
    lattice_operations,
    orbits,
    random_group,
    split_into_orbits,
)

IDENTITY = np.eye(3, dtype=np.int64)
CUBE, SLAB = (6, 6, 6), (6, 6, 8)
LATTICES = {  # cells and the number of operations of their lattice
    "cubic": (Lattice.cubic(3), 48),
    "fcc": (Lattice([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), 48),
    "bcc": (Lattice([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]), 48),
    "hexagonal": (Lattice.hexagonal(3, 5), 24),
    "tetragonal": (Lattice.tetragonal(3, 5), 16),
    "body-centred tetragonal": (Lattice([[-3, 3, 4], [3, -3, 4], [3, 3, -4]]), 16),
    "rhombohedral": (Lattice.rhombohedral(3, 70), 12),
    "orthorhombic": (Lattice.orthorhombic(3, 4, 5), 8),
    "face-centred orthorhombic": (Lattice([[0, 4, 5], [3, 0, 5], [3, 4, 0]]), 8),
    "monoclinic": (Lattice.monoclinic(3, 4, 5, 100), 4),
    "triclinic": (Lattice.from_parameters(3, 4, 5, 80, 95, 105), 2),
}


def reduced(name: str) -> tuple[np.ndarray, int]:
    """The Niggli cell, as crystals have it, turned so that no axis is special."""
    lattice, order = LATTICES[name]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    return lattice.get_niggli_reduced_lattice().matrix @ turn, order


def as_set(matrices: np.ndarray) -> set[bytes]:
    return {np.asarray(w, np.int64).tobytes() for w in matrices}


@pytest.mark.parametrize("name", LATTICES)
def test_operations_are_the_point_group_of_the_lattice(name: str) -> None:
    cell, order = reduced(name)
    found, orders = lattice_operations(cell, CUBE, 1e-3)
    expected = spglib.get_symmetry((cell, [[0, 0, 0]], [1]), symprec=1e-4)["rotations"]
    assert len(found) == order - 1
    assert as_set(found) | {IDENTITY.tobytes()} == as_set(expected)
    for w, m in zip(found, orders, strict=True):
        powers = [np.linalg.matrix_power(w, k) for k in range(1, m + 1)]
        assert [bool((p == IDENTITY).all()) for p in powers] == [False] * (m - 1) + [True]


def test_operations_map_the_grid_onto_itself() -> None:
    """Axes of different divisions cannot be exchanged, so of a cube the operations of 4/mmm are left."""
    found, _ = lattice_operations(3 * np.eye(3), SLAB, 1e-3)
    assert len(found) == 15
    assert (found[:, :2, 2] == 0).all()
    assert (found[:, 2, :2] == 0).all()


def test_a_strained_lattice_keeps_its_operations_within_the_tolerance() -> None:
    cell = np.diag([1.0, 1.0, 1.01])  # lengths differ by 1 %, the metric by 2
    assert len(lattice_operations(cell, CUBE, 0.05)[0]) == 47
    assert len(lattice_operations(cell, CUBE, 0.01)[0]) == 15


def groups(name: str, shape: tuple[int, int, int], draws: int = 300) -> list[tuple[np.ndarray, np.ndarray]]:
    matrices, orders = lattice_operations(reduced(name)[0], shape, 1e-3)
    state = np.array([5], np.uint64)
    return [random_group(matrices, orders, np.array(shape), state) for _ in range(draws)]


@pytest.mark.parametrize(("name", "shape"), [("cubic", CUBE), ("hexagonal", SLAB), ("fcc", CUBE), ("triclinic", SLAB)])
def test_a_random_group_is_a_group_of_the_lattice(name: str, shape: tuple[int, int, int]) -> None:
    allowed = as_set(lattice_operations(reduced(name)[0], shape, 1e-3)[0]) | {IDENTITY.tobytes()}
    drawn = groups(name, shape)
    for rotations, translations in drawn:
        assert 1 <= len(rotations) == len(translations) <= LARGEST_GROUP
        assert (rotations[0] == IDENTITY).all()
        assert (translations[0] == 0).all()
        elements = {(w.tobytes(), t.tobytes()) for w, t in zip(rotations, translations, strict=True)}
        assert len(as_set(rotations)) == len(elements) == len(rotations)  # every rotation with one translation
        assert as_set(rotations) <= allowed
        for w, t in zip(rotations, translations, strict=True):
            for v, s in zip(rotations, translations, strict=True):
                assert ((w @ v).tobytes(), ((w @ s + t) % shape).tobytes()) in elements
    sizes = np.array([len(rotations) for rotations, _ in drawn])
    assert (sizes > 1).mean() > 0.4
    assert (sizes > 2).any() or name == "triclinic"
    assert any(t.any() for _, t in drawn), "no glide, screw or shifted centre in 300 draws"


def test_generators_are_drawn_with_their_probabilities() -> None:
    """A triclinic lattice has the inversion alone, so a draw fails where two generators have other translations."""
    none, one = WITH_INVERSION[0], WITH_INVERSION[1] - WITH_INVERSION[0]
    zero = 1 - SCREW / 2  # of a component of a translation: half of those that are drawn are zero
    unmoved, same = zero**3, (zero**2 + (1 - zero) ** 2) ** 3
    with_inversion = none + one * unmoved + (1 - none - one) * unmoved**2
    without = WITHOUT_INVERSION + (1 - WITHOUT_INVERSION) * same
    expected = INVERSION * with_inversion + (1 - INVERSION) * without
    sizes = np.array([len(rotations) for rotations, _ in groups("triclinic", CUBE, 6000)])
    assert sizes.max() == 2
    assert (sizes == 2).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 6000))


@pytest.mark.parametrize(("name", "shape"), [("cubic", CUBE), ("hexagonal", SLAB), ("triclinic", (4, 6, 8))])
def test_orbits_partition_the_grid_and_are_invariant(name: str, shape: tuple[int, int, int]) -> None:
    largest = 0
    for rotations, translations in groups(name, shape, 60):
        members, sizes = orbits(rotations, translations, np.array(shape))
        assert members.shape == (len(sizes), len(rotations))
        assert (np.diff(sizes) >= 0).all()
        assert (len(rotations) % sizes == 0).all()  # orbit and stabiliser
        inside = np.arange(len(rotations)) < sizes[:, None]
        np.testing.assert_array_equal(np.sort(members[inside]), np.arange(np.prod(shape)))
        orbit_of = np.empty(np.prod(shape), np.int64)
        orbit_of[members[inside]] = np.repeat(np.arange(len(sizes)), sizes)
        points = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=-1)
        for w, t in zip(rotations, translations, strict=True):
            image = np.ravel_multi_index(tuple(((points @ w.T + t) % shape).T), shape)
            np.testing.assert_array_equal(orbit_of[image], orbit_of)
        largest = max(largest, int(sizes[-1]))
    assert largest == 2 if name == "triclinic" else largest > 4


def test_the_identity_alone_has_an_orbit_for_every_point() -> None:
    members, sizes = orbits(IDENTITY[None], np.zeros((1, 3), np.int64), np.array([4, 4, 6]))
    assert sizes.tolist() == [1] * 96
    assert members.tolist() == [[g] for g in range(96)]


def split(counts: list[int], sizes: list[int], draws: int = 200) -> list[tuple[list[int], list[int]]]:
    state = np.array([9], np.uint64)
    drawn = [split_into_orbits(np.array(counts), np.array(sizes), state) for _ in range(draws)]
    return [(channel.tolist(), size.tolist()) for channel, size in drawn]


def test_atoms_are_dealt_out_to_orbits_exactly_or_not_at_all() -> None:
    rng = np.random.default_rng(0)
    came_out = 0
    for _ in range(60):
        counts, sizes = rng.integers(1, 9, rng.integers(1, 4)), np.sort(rng.choice([1, 2, 3, 4, 6, 8], 9))
        for channel, size in split(counts.tolist(), sizes.tolist(), 20):
            if size:
                came_out += 1
                assert np.bincount(channel, size, len(counts)).tolist() == counts.tolist()
                used, there = (np.bincount(s, minlength=9) for s in (size, sizes))
                assert (used <= there).all()
    assert 300 < came_out < 1200


def test_a_splitting_that_must_come_out_does_and_one_that_cannot_does_not() -> None:
    assert all(sorted(size) == [1, 2] for _, size in split([3], [1, 2, 2]))
    assert all((channel, size) == ([0, 1], [2, 2]) for channel, size in map(sorted_pair, split([2, 2], [2, 2, 2])))
    for impossible in (split([3], [2, 2, 2]), split([1, 1], [1, 8]), split([40], [1, 2, 4])):
        assert all(pair == ([], []) for pair in impossible)
    either = {tuple(sorted(size)) for _, size in split([5], [2, 2, 3])}
    assert either == {(), (2, 3)}  # 2 + 2 leaves one atom without an orbit


def sorted_pair(pair: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
    return sorted(pair[0]), sorted(pair[1])


def test_large_orbits_are_likelier() -> None:
    """The first of 4 atoms' orbits is of size 4 with probability 4^1.5 / (1 + 2^1.5 + 4^1.5)."""
    first = [size[0] for _, size in split([4], [1] * 9 + [2] * 9 + [4] * 9, 4000)]
    expected = 8 / (1 + 2**1.5 + 8)
    assert np.mean(np.array(first) == 4) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000))
