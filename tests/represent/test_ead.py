"""EAD against its definition written out with ASE's neighbour list, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from hpcgen.config import EadConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.represent.ead import EmbeddedAtomDensity, monomials, neighbours

CONFIG = EadConfig(cutoff=6.0, l_max=3, eta=[1.0, 9.0], centres=24)
SHEAR = np.array([[1, 2, -1], [0, 1, 1], [0, 0, 1]])


def crystal(seed: int = 0, n: int = 5) -> Crystal:
    """A triclinic crystal without symmetry."""
    rng = np.random.default_rng(seed)
    lattice = np.diag([3.9, 4.3, 4.8]) + rng.normal(size=(3, 3)) * 0.4
    return Crystal(lattice, rng.random((n, 3)), rng.choice([8, 22, 38], n))


def supercell(c: Crystal, repeats: tuple[int, int, int]) -> Crystal:
    """Copies of every atom stand together: atom i becomes atoms i k to i k + k - 1."""
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 3)
    frac = (c.frac[:, None] + shifts).reshape(-1, 3) / repeats
    return Crystal(np.diag(repeats) @ c.lattice, frac, np.repeat(c.numbers, len(shifts)))


def test_equals_its_definition() -> None:
    c, d = crystal(), EmbeddedAtomDensity(CONFIG)
    i, j, vectors = neighbor_list("ijD", to_atoms(c), CONFIG.cutoff)
    r = np.linalg.norm(vectors, axis=1)
    fc = 0.5 * (1 + np.cos(np.pi * r / CONFIG.cutoff))
    expected = np.zeros((len(c), 4, 2, 24))
    for exponents, weight in zip(*monomials(3), strict=True):
        sums = np.zeros((len(c), 2, 24))
        for e, eta in enumerate(CONFIG.eta):
            term = c.numbers[j] * np.prod(vectors**exponents, axis=1) * fc
            np.add.at(sums[:, e], i, term[:, None] * np.exp(-eta * (r[:, None] - d.centres) ** 2))
        expected[:, exponents.sum()] += weight * sums**2
    np.testing.assert_allclose(d.per_atom(c), expected, atol=1e-9 * expected.max())
    flat = expected.reshape(len(c), -1)
    pooled = np.concatenate([flat.max(0), flat.min(0), [r.min()]])
    np.testing.assert_allclose(d.encode(c), pooled, atol=1e-9 * pooled.max())


@pytest.mark.parametrize("shear", [np.eye(3), SHEAR, SHEAR.T @ SHEAR])
def test_finds_all_images_within_the_cutoff(shear: np.ndarray) -> None:
    c = Crystal(shear @ crystal(n=2).lattice, crystal(n=2).frac, [8, 22])
    pairs, vectors = neighbours(c.frac, c.lattice, 9.0)
    i, j, distance = neighbor_list("ijd", to_atoms(c), 9.0)
    found = np.linalg.norm(vectors, axis=1)
    for a, b in ((0, 0), (0, 1), (1, 1)):
        mine = np.sort(found[(pairs == (a, b)).all(1)])
        theirs = np.sort(distance[(i == a) & (j == b)])
        np.testing.assert_allclose(np.repeat(mine, 2 if a == b else 1), theirs, atol=1e-10)


def test_pooled_features_do_not_depend_on_frame_order_or_basis() -> None:
    c, d = crystal(1), EmbeddedAtomDensity(CONFIG)
    reference = d.encode(c)
    rotation = Rotation.random(random_state=0).as_matrix()
    order = np.random.default_rng(0).permutation(len(c))
    others = {
        "rotation": Crystal(c.lattice @ rotation.T, c.frac, c.numbers),
        "translation": Crystal(c.lattice, c.frac + np.array([0.31, -0.77, 1.9]), c.numbers),
        "permutation": Crystal(c.lattice, c.frac[order], c.numbers[order]),
        "sheared basis": Crystal(SHEAR @ c.lattice, c.frac @ np.linalg.inv(SHEAR), c.numbers),
        "supercell": supercell(c, (1, 2, 1)),
    }
    for name, other in others.items():
        np.testing.assert_allclose(d.encode(other), reference, atol=1e-9 * reference.max(), err_msg=name)
    moved = Crystal(c.lattice, c.frac + np.eye(len(c), 3) * 0.05, c.numbers)
    assert np.abs(d.encode(moved) - reference).max() > 1e-2 * reference.max()


def test_features_of_an_atom_do_not_depend_on_the_supercell() -> None:
    c, d = crystal(2, 3), EmbeddedAtomDensity(CONFIG)
    one = d.per_atom(c)
    for repeats in ((2, 1, 1), (1, 3, 2)):
        many = d.per_atom(supercell(c, repeats))
        np.testing.assert_allclose(many, np.repeat(one, np.prod(repeats), axis=0), atol=1e-9 * one.max())


def test_smallest_distance_counts_own_images() -> None:
    for c in (crystal(3), Crystal(np.diag([2.0, 5.0, 5.0]), [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 3])):
        assert EmbeddedAtomDensity(CONFIG).encode(c)[-1] == pytest.approx(c.smallest_distance())


def test_one_atom_and_no_neighbour() -> None:
    d = EmbeddedAtomDensity(CONFIG)
    fcc = Crystal(1.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), [[0, 0, 0]], [29])
    assert d.encode(fcc)[-1] == pytest.approx(1.8 * np.sqrt(2))
    lone = d.encode(Crystal(np.eye(3) * 9, [[0.2, 0, 0]], [29]))
    assert (lone[:-1] == 0).all()
    assert lone[-1] == CONFIG.cutoff


def test_the_papers_preset_has_1200_numbers_and_a_distance() -> None:
    d = EmbeddedAtomDensity(EadConfig())
    c = crystal()
    assert d.length() == len(d.names()) == len(d.encode(c)) == 1201
    assert d.centres[-1] == pytest.approx(19.9)
    assert d.names()[231] == "max:L0:eta20:R3.10"
