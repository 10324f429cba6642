"""Symmetry of crystals that are only almost symmetric: found, imposed, and refused where the target says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import spglib

from hpcgen.config import PairSpectrumConfig, ReconstructConfig
from hpcgen.crystal import Crystal, lattice_from_parameters, lattice_parameters
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.refine_fit import SHEARS, deformation
from hpcgen.reconstruct.solution import Solution
from hpcgen.reconstruct.symmetry import find_group, free_directions, symmetric_positions, symmetric_strain
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig())
U = 0.305
CRYSTALS = {
    "perovskite": Crystal(
        3.9 * np.eye(3),
        np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
        np.array([38, 22, 8, 8, 8], dtype=np.uint8),
    ),
    "rutile": Crystal(
        np.diag([4.59, 4.59, 2.96]),
        np.array(
            [[0, 0, 0], [0.5, 0.5, 0.5], [U, U, 0], [-U, -U, 0], [0.5 + U, 0.5 - U, 0.5], [0.5 - U, 0.5 + U, 0.5]]
        ),
        np.array([22, 22, 8, 8, 8, 8], dtype=np.uint8),
    ),
    "wurtzite": Crystal(
        lattice_from_parameters([3.25, 3.25, 5.2, 90, 90, 120]),
        np.array([[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.382], [2 / 3, 1 / 3, 0.882]]),
        np.array([30, 30, 8, 8], dtype=np.uint8),
    ),
}
NUMBERS = {"perovskite": 221, "rutile": 136, "wurtzite": 186}
FREE = {"perovskite": (0, 0), "rutile": (1, 1), "wurtzite": (2, 1)}
"""Free directions of positions and traceless strains: u and c/a; u and the polar axis' origin, and c/a."""


def shaken(crystal: Crystal, seed: int = 0) -> Crystal:
    """Displaced by about 0.03 angstrom, in a cell strained by about 1 %."""
    rng = np.random.default_rng(seed)
    h = np.append(0.007 * rng.standard_normal(SHEARS), 0.0)
    lattice = crystal.lattice @ deformation(h)
    cart = 0.02 * rng.standard_normal(crystal.frac.shape)
    return Crystal(lattice, crystal.frac + cart @ np.linalg.inv(lattice), crystal.numbers)


def number(lattice, frac, numbers, tolerance: float) -> int:
    return spglib.get_symmetry_dataset((lattice, frac, numbers), symprec=tolerance).number


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_nearest_symmetric_crystal_is_symmetric(name: str) -> None:
    crystal = shaken(CRYSTALS[name])
    group = find_group(crystal.lattice, crystal.frac, crystal.numbers, 0.4)
    assert group is not None
    assert group.number == NUMBERS[name]
    lattice = crystal.lattice @ deformation(symmetric_strain(crystal.lattice, group))
    assert np.linalg.det(lattice) == pytest.approx(np.linalg.det(crystal.lattice), rel=1e-9)
    frac = symmetric_positions(crystal.frac, group)
    assert number(lattice, frac, crystal.numbers, 1e-5) == NUMBERS[name]
    assert number(crystal.lattice, crystal.frac, crystal.numbers, 1e-3) == 1


@pytest.mark.parametrize("name", CRYSTALS)
def test_free_directions_are_the_wyckoff_parameters_and_keep_the_symmetry(name: str) -> None:
    crystal = CRYSTALS[name]
    group = find_group(crystal.lattice, crystal.frac, crystal.numbers, 1e-4)
    assert group is not None
    moves, strains = free_directions(crystal.lattice, group, np.eye(6)[:, :SHEARS])
    assert (moves.shape[1], strains.shape[1]) == FREE[name]
    rng = np.random.default_rng(1)
    h = 0.02 * (strains @ rng.standard_normal(strains.shape[1]))
    cart = 0.05 * (moves @ rng.standard_normal(moves.shape[1])).reshape(-1, 3)
    lattice = crystal.lattice @ deformation(h)
    frac = crystal.frac + cart @ np.linalg.inv(lattice)
    assert number(lattice, frac, crystal.numbers, 1e-5) == NUMBERS[name]


def test_a_crystal_without_symmetry_has_no_group() -> None:
    rng = np.random.default_rng(0)
    lattice = np.diag([4.0, 5.0, 6.1]) + 0.7 * rng.random((3, 3))
    assert find_group(lattice, rng.random((4, 3)), [3, 5, 7, 8], 0.05) is None


def test_what_spglib_cannot_judge_has_no_group() -> None:
    assert find_group(4 * np.eye(3), np.zeros((2, 3)), [8, 8], 0.1) is None  # two atoms in one place


@pytest.mark.parametrize("name", CRYSTALS)
def test_symmetry_hidden_by_noise_is_restored(name: str) -> None:
    crystal = CRYSTALS[name]
    species, elements = species_channels(crystal.numbers)
    target = DESCRIPTOR.encode(crystal, species, len(elements))
    target = target * (1 + 0.05 * np.random.default_rng(2).standard_normal(len(target)))
    start = shaken(crystal)
    results = {}
    for tolerance in (None, 0.5):
        refiner = Refiner(DESCRIPTOR, ReconstructConfig(symmetry_tolerance=tolerance))
        refined = refiner.refine(target, start.lattice, crystal.numbers, Solution(start.frac, 0.1, 1, "budget", 1.0))
        results[tolerance] = np.abs(lattice_parameters(refined.lattice)[3:] - crystal.parameters[3:]).max()
        symbol = f"({NUMBERS[name]})"
        assert (symbol in refined.symmetry) == (tolerance is not None)
        if tolerance:
            assert number(refined.lattice, refined.frac, crystal.numbers, 1e-4) == NUMBERS[name]
            assert refined.residual < 0.055
    assert results[0.5] < 1e-6 < results[None]


def test_a_distortion_that_the_target_shows_is_kept() -> None:
    cubic = CRYSTALS["perovskite"]
    frac = cubic.frac.copy()
    frac[1, 2] += 0.05  # titanium 0.2 angstrom off its centre: P4mm
    lattice = np.diag([3.85, 3.85, 4.0])
    species, elements = species_channels(cubic.numbers)
    target = DESCRIPTOR.encode(Crystal(lattice, frac, cubic.numbers), species, len(elements))
    target = target * (1 + 0.01 * np.random.default_rng(0).standard_normal(len(target)))
    refiner = Refiner(DESCRIPTOR, ReconstructConfig(symmetry_tolerance=0.5))
    refined = refiner.refine(target, lattice, cubic.numbers, Solution(frac, 0.1, 1, "budget", 1.0))
    assert "(221)" not in refined.symmetry
    assert refined.residual < 0.011
    # the same tolerance without the target's word would have made it cubic
    assert number(lattice, frac, cubic.numbers, 0.5) == 221
