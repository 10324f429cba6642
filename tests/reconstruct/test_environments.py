"""Crystals with the same distances: the one whose atoms are most alike and whose bonds are farthest apart is taken."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import AnnealConfig, RepresentationConfig
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.anneal import AnnealSolver
from hpcgen.reconstruct.environments import Environment, environment, likeliest, several_kinds
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
# of like atoms with the distances of sodalite, in its cell; an atom has bonds at 60 and 180 degrees
PARTNER = np.array([[0, 0, 0], [0.25, 0, 0.75], [0.75, 0, 0.25], [0, 0.25, 0.75], [0, 0.75, 0.25], [0.5, 0, 0.5]])
IMAGES = np.array(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 3)).reshape(3, -1).T
CUBE = 3 * np.eye(3)


def bonds(lattice: np.ndarray, frac: np.ndarray, reach: float) -> list[np.ndarray]:
    """Unit vectors from each atom to the atoms within `reach`, images included."""
    out = []
    for centre in frac:
        away = ((frac[:, None] + IMAGES - centre) @ lattice).reshape(-1, 3)
        length = np.linalg.norm(away, axis=1)
        near = (length > 1e-6) & (length < reach)
        out.append(away[near] / length[near, None])
    return out


def is_sodalite(lattice: np.ndarray, frac: np.ndarray) -> bool:
    """Four neighbours each, four angles of 120 and two of 90 degrees between them."""
    for unit in bonds(lattice, frac, 1.7):
        if len(unit) != 4:
            return False
        cosines = np.sort((unit @ unit.T)[np.triu_indices(4, 1)])
        if np.abs(cosines - [-0.5, -0.5, -0.5, -0.5, 0, 0]).max() > 0.1:
            return False
    return True


def test_sodalite_is_sodalite_and_its_partner_is_not() -> None:
    assert is_sodalite(SODALITE.lattice, SODALITE.frac)
    assert not is_sodalite(SODALITE.lattice, PARTNER)
    real = environment(SODALITE.lattice, SODALITE.cart)
    other = environment(SODALITE.lattice, PARTNER @ SODALITE.lattice)
    assert real.unlikeness == pytest.approx(0, abs=1e-20)
    assert other.unlikeness == pytest.approx(0, abs=1e-20)
    assert real.repulsion == pytest.approx((4 / np.sqrt(3) + 2 / np.sqrt(2)) / 6, rel=1e-3)
    assert other.repulsion > 1.1 * real.repulsion


def test_the_partner_has_the_distances_of_sodalite() -> None:
    descriptor = make_descriptor(RepresentationConfig())
    species = np.zeros(6, dtype=np.int64)
    partner = Crystal(SODALITE.lattice, PARTNER, SODALITE.numbers)
    both = [descriptor.encode(crystal, species, 1) for crystal in (SODALITE, partner)]
    assert np.linalg.norm(both[1] - both[0]) < 1e-9 * np.linalg.norm(both[0])


@pytest.mark.parametrize(
    ("lattice", "frac", "expected"),
    [
        pytest.param(CUBE * [1, 4, 4], [[0, 0, 0]], 1 / 2, id="chain"),
        pytest.param(
            [[2.13, 1.23, 0], [2.13, -1.23, 0], [0, 0, 7]],
            [[0, 0, 0], [1 / 3, 1 / 3, 0]],
            1 / np.sqrt(3),
            id="graphene",
        ),
        pytest.param(
            1.5 * (1 - np.eye(3)), [[0, 0, 0], [0.25, 0.25, 0.25]], np.sqrt(3 / 8), id="diamond, farthest for four"
        ),
        pytest.param(CUBE, [[0, 0, 0]], (12 / np.sqrt(2) + 3 / 2) / 15, id="simple cubic"),
    ],
)
def test_repulsion_of_known_bonds(lattice: list[list[float]], frac: list[list[float]], expected: float) -> None:
    rows = np.array(lattice, dtype=np.float64)
    assert environment(rows, np.array(frac) @ rows).repulsion == pytest.approx(expected, rel=2e-3)


def test_of_molecules_far_apart_the_nearest_pair_of_directions_counts() -> None:
    pair = environment(9 * np.eye(3), np.array([[0, 0, 0], [1.0, 0, 0]]))
    # along the bond, then to the images of the other atom behind: 8 angstrom away, opposite
    assert pair.repulsion == pytest.approx(1 / 2)


def test_environments_do_not_depend_on_the_description_of_the_crystal() -> None:
    rng = np.random.default_rng(0)
    lattice, frac = 4 * np.eye(3) + 0.3 * rng.standard_normal((3, 3)), rng.random((5, 3))
    whole = environment(lattice, frac @ lattice)
    assert whole.unlikeness > 1e-3
    moved = (frac + rng.integers(-3, 4, (5, 3)) + 0.1)[::-1]
    turned = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    assert environment(2 * lattice @ turned, moved @ lattice @ turned * 2) == pytest.approx(whole)
    doubled = np.vstack([frac, frac + np.eye(3)[0]]) @ lattice
    assert environment(lattice * [[2], [1], [1]], doubled) == pytest.approx(whole)


def test_like_atoms_count_before_bonds_that_keep_apart() -> None:
    unlike, crowded, right = Environment(0.007, 0.6), Environment(0, 0.73), Environment(1e-5, 0.62)
    assert likeliest([unlike, crowded, right]) == 2
    assert likeliest([unlike, crowded]) == 1
    assert likeliest([right, right]) == 0
    assert several_kinds([crowded, right])
    assert several_kinds([unlike, right])
    assert not several_kinds([right, Environment(0, 0.625)])
    assert not several_kinds([right])


@pytest.mark.parametrize("noise", [0.01, 0.02])
def test_of_crystals_with_the_same_distances_the_likeliest_is_found(noise: float) -> None:
    descriptor = make_descriptor(RepresentationConfig())
    assert isinstance(descriptor, PairSpectrum)
    solver = AnnealSolver(descriptor, AnnealConfig(starts=1))
    target = descriptor.encode(SODALITE, np.zeros(6, dtype=np.int64), 1)
    target = target * (1 + noise * np.random.default_rng(1).standard_normal(len(target)))
    found = [solver.solve(target, SODALITE.lattice, SODALITE.numbers, seed, 0.001) for seed in range(8)]
    assert all(s.residual < 1.2 * noise for s in found)
    right = [is_sodalite(SODALITE.lattice, s.frac) for s in found]
    assert sum(right) >= 7, right  # by the residual alone one in fifty
