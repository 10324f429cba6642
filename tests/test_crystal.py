"""Crystals: validation, wrapping, distances against ASE, conversions there and back."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgen.crystal import (
    Crystal,
    CrystalBatch,
    from_atoms,
    from_structure,
    lattice_from_parameters,
    lattice_parameters,
    space_group,
    to_atoms,
    to_structure,
)

ROCKSALT = Crystal(
    2.82 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17])
)


def random_crystal(seed: int, atoms: int) -> Crystal:
    rng = np.random.default_rng(seed)
    while True:
        lattice = rng.normal(size=(3, 3)) * 4
        if abs(np.linalg.det(lattice)) > 8 * atoms:
            return Crystal(lattice, rng.random((atoms, 3)), rng.integers(1, 100, atoms))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": np.zeros((3, 3))}, "no volume"),
        ({"lattice": np.eye(2)}, "shape"),
        ({"frac": np.array([[np.nan, 0, 0], [0, 0, 0]])}, "finite"),
        ({"numbers": np.array([0, 17])}, "1-118"),
        ({"numbers": np.array([11])}, "numbers"),
        ({"frac": np.zeros((0, 3)), "numbers": np.zeros(0, int)}, "at least one atom"),
    ],
)
def test_impossible_crystals_are_refused(change: dict, message: str) -> None:
    parts = {"lattice": ROCKSALT.lattice, "frac": ROCKSALT.frac, "numbers": ROCKSALT.numbers} | change
    with pytest.raises(ValueError, match=message):
        Crystal(**parts)


def test_coordinates_are_wrapped_into_the_half_open_cell() -> None:
    crystal = Crystal(np.eye(3) * 4, np.array([[-1e-17, 1.0, 2.25]]), np.array([6]))
    np.testing.assert_array_equal(crystal.frac, [[0.0, 0.0, 0.25]])


def test_arrays_are_copies_that_cannot_be_written() -> None:
    frac = np.array([[0.1, 0.2, 0.3]])
    crystal = Crystal(np.eye(3) * 3, frac, np.array([6]))
    frac[0, 0] = 0.9
    assert crystal.frac[0, 0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        crystal.frac[0, 0] = 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_smallest_distance_agrees_with_ase(seed: int, atoms: int) -> None:
    crystal = random_crystal(seed, atoms)
    found = crystal.smallest_distance()
    distances = neighbor_list("d", to_atoms(crystal), found * 1.01 + 0.01)
    assert found == pytest.approx(distances.min(), abs=1e-9)


def test_smallest_distance_sees_own_images() -> None:
    assert Crystal(np.diag([0.4, 5, 5]), np.zeros((1, 3)), np.array([6])).smallest_distance() == pytest.approx(0.4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_lattice_parameters_round_trip(seed: int) -> None:
    parameters = lattice_parameters(random_crystal(seed, 1).lattice)
    np.testing.assert_allclose(lattice_parameters(lattice_from_parameters(parameters)), parameters, atol=1e-7)


@pytest.mark.parametrize("angles", [(10, 10, 170), (0, 90, 90), (120, 120, 120.1)])
def test_angles_that_do_not_close_are_refused(angles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"cell|impossible"):
        lattice_from_parameters([4, 4, 4, *angles])


@pytest.mark.parametrize("atoms", [1, 5])
def test_conversions_keep_order_and_values(atoms: int) -> None:
    crystal = random_crystal(3, atoms)
    for back in (from_structure(to_structure(crystal)), from_atoms(to_atoms(crystal))):
        np.testing.assert_allclose(back.lattice, crystal.lattice, atol=1e-12)
        np.testing.assert_allclose(back.frac, crystal.frac, atol=1e-12)
        np.testing.assert_array_equal(back.numbers, crystal.numbers)


def test_niggli_keeps_the_crystal() -> None:
    shear = np.array([[1, 0, 0], [2, 1, 0], [0, -3, 1]])
    sheared = Crystal(shear @ ROCKSALT.lattice, ROCKSALT.frac @ np.linalg.inv(shear), ROCKSALT.numbers)
    reduced = sheared.niggli()
    assert reduced.volume == pytest.approx(ROCKSALT.volume)
    assert reduced.smallest_distance() == pytest.approx(2.82)
    np.testing.assert_allclose(reduced.parameters, ROCKSALT.niggli().parameters, atol=1e-6)


def test_formula_density_elements() -> None:
    assert ROCKSALT.formula == "NaCl"
    assert ROCKSALT.elements == ("Cl", "Na")
    assert ROCKSALT.density == pytest.approx(2.16, abs=0.01)


def test_batch_is_ragged_and_ordered() -> None:
    crystals = [random_crystal(i, i + 1) for i in range(4)]
    batch = CrystalBatch.of(crystals)
    assert len(batch) == 4
    assert batch.offset.tolist() == [0, 1, 3, 6, 10]
    for one, other in zip(crystals, batch, strict=True):
        np.testing.assert_array_equal(one.frac, other.frac)
    with pytest.raises(IndexError):
        batch[4]
    assert len(CrystalBatch.of([])) == 0


def test_space_groups():
    assert space_group(from_atoms(bulk("NaCl", "rocksalt", a=5.6))) == 225
    assert space_group(from_atoms(bulk("Si", "diamond", a=5.4))) == 227
    assert space_group(Crystal(np.eye(3) * 3, np.zeros((1, 3)), np.array([6]))) == 221
    rng = np.random.default_rng(0)
    assert space_group(Crystal(np.eye(3) * 6 + rng.random((3, 3)), rng.random((5, 3)), np.arange(5) + 20)) == 1


def test_tolerance_of_a_space_group():
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.51]])
    crystal = Crystal(np.eye(3) * 4, frac, np.array([55, 17]))  # 0.04 angstrom off CsCl
    assert space_group(crystal) == 221
    assert space_group(crystal, tolerance=0.01) == 99


def test_no_space_group_is_zero():
    coincident = Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.001, 0, 0]]), np.array([11, 11]))
    assert space_group(coincident) == 0


def test_part_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    crystals = [Crystal(np.eye(3) * (3 + n), rng.random((n, 3)), np.full(n, n)) for n in (1, 4, 2, 3)]
    part = CrystalBatch.of(crystals).take([2, 0, 2])
    assert len(part) == 3
    for found, expected in zip(part, (crystals[2], crystals[0], crystals[2]), strict=True):
        np.testing.assert_array_equal(found.frac, expected.frac)
        np.testing.assert_array_equal(found.numbers, expected.numbers)
        np.testing.assert_array_equal(found.lattice, expected.lattice)
    assert len(CrystalBatch.of(crystals).take([])) == 0
