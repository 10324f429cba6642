"""EAD against its definition written out with ASE's neighbour list, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from hpcgen.config import EadConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.represent.ead import EmbeddedAtomDensity, monomials
from hpcgen.represent.ead_tables import radial_tables

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


def by_definition(c: Crystal, config: EadConfig) -> tuple[np.ndarray, float]:
    """(n, l_max+1, E, K) rho summed over ASE's neighbour list, and the smallest distance."""
    centres = np.arange(config.centres) * config.cutoff / config.centres
    i, j, vectors = neighbor_list("ijD", to_atoms(c), config.cutoff)
    r = np.linalg.norm(vectors, axis=1)
    fc = 0.5 * (1 + np.cos(np.pi * r / config.cutoff))
    rho = np.zeros((len(c), config.l_max + 1, len(config.eta), config.centres))
    for exponents, weight in zip(*monomials(config.l_max), strict=True):
        sums = np.zeros((len(c), len(config.eta), config.centres))
        for e, eta in enumerate(config.eta):
            term = c.numbers[j] * np.prod(vectors**exponents, axis=1) * fc
            np.add.at(sums[:, e], i, term[:, None] * np.exp(-eta * (r[:, None] - centres) ** 2))
        rho[:, exponents.sum()] += weight * sums**2
    return rho, float(r.min())


@pytest.mark.parametrize("config", [CONFIG, EadConfig(cutoff=9.0, eta=[0.01, 1.0, 20.0, 90.0], centres=31)])
@pytest.mark.parametrize("shear", [np.eye(3), SHEAR, SHEAR.T @ SHEAR])
def test_equals_its_definition_over_all_images(config: EadConfig, shear: np.ndarray) -> None:
    c, d = crystal(n=3), EmbeddedAtomDensity(config)
    c = Crystal(shear @ c.lattice, c.frac @ np.linalg.inv(shear), c.numbers)
    expected, closest = by_definition(c, config)
    scale = expected.max(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(d.per_atom(c) / scale, expected / scale, atol=1e-6)
    flat = expected.reshape(len(c), -1)
    pooled = np.concatenate([flat.max(0), flat.min(0), [closest]])
    found = d.encode(c)
    assert np.linalg.norm(found - pooled) < 1e-6 * np.linalg.norm(pooled)
    assert found[-1] == pytest.approx(closest, abs=1e-9)


def test_polynomials_are_the_gaussians_times_the_cutoff() -> None:
    etas, centres = np.array([0.3, 5.0, 90.0]), np.array([0.0, 1.27, 6.9])
    tables = radial_tables(7.0, etas, centres)
    assert len(tables.starts) > 3  # wide Gaussians have wider bins
    for e, eta in enumerate(etas):
        level = next(k for k in range(len(tables.starts) - 1) if tables.first[e, 0] < tables.starts[k + 1] * 8)
        width = tables.width * 2**level
        assert width <= 1.3 / np.sqrt(2 * eta)
        for k, centre in enumerate(centres):
            row = np.zeros(tables.starts[-1] * 8)
            first, length = tables.first[e, k], tables.length[e]
            row[first : first + length] = tables.bands[e, k, :length]
            coefficients = row.reshape(-1, 8)[tables.starts[level] : tables.starts[level + 1]]
            r = np.random.default_rng(0).random(500) * 7.0
            bins = (r / width).astype(int)
            x = 2 * (r / width - bins) - 1
            found = (coefficients[bins] * x[:, None] ** np.arange(8)).sum(1)
            expected = np.exp(-eta * (r - centre) ** 2) * 0.5 * (1 + np.cos(np.pi * r / 7.0))
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("l_max", [0, 2])
def test_jacobian_equals_finite_differences(l_max: int) -> None:
    c, d = crystal(4, 3), EmbeddedAtomDensity(EadConfig(cutoff=5.0, l_max=l_max, eta=[1.0, 9.0], centres=8))
    x, h = c.cart, 1e-6
    q, jacobian = d.evaluate(c.lattice, x, c.numbers)
    assert d.evaluate(c.lattice, x, c.numbers, jacobian=False)[1].shape == (len(q), 0)
    numeric = np.empty_like(jacobian)
    for a in range(x.size):
        step = np.zeros(x.size)
        step[a] = h
        up, down = (d.evaluate(c.lattice, x + s * step.reshape(x.shape), c.numbers, jacobian=False)[0] for s in (1, -1))
        numeric[:, a] = (up - down) / (2 * h)
    for part in d.blocks().values():
        scale = np.abs(numeric[part]).max()
        np.testing.assert_allclose(jacobian[part] / scale, numeric[part] / scale, atol=1e-6)
    translation = jacobian.reshape(len(q), -1, 3).sum(axis=1)
    assert np.abs(translation).max() < 1e-9 * np.abs(jacobian).max()


def test_an_evaluation_that_makes_no_sense_is_an_error() -> None:
    c, d = crystal(0, 3), EmbeddedAtomDensity(CONFIG)
    flat = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    for lattice, cart, numbers, message in (
        (flat, c.cart, c.numbers, "no volume"),
        (np.full((3, 3), np.nan), c.cart, c.numbers, "finite"),
        (c.lattice, c.cart[:2], c.numbers, "shape"),
        (c.lattice, c.cart, [0, 1, 1], "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            d.evaluate(lattice, cart, numbers)


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
