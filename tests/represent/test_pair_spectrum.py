"""The pair spectrum: the definition of both blocks; its invariances and its Jacobian are in `test_descriptor`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from hpcgen.config import PairSpectrumConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.represent.images import lattice_images, reciprocal_half_space
from hpcgen.represent.pair_kernels import pair_spectrum
from hpcgen.represent.pair_spectrum import SPACING, PairSpectrum

SPECIES = np.array([0, 1, 1, 2, 2, 2])
CONFIGS = [PairSpectrumConfig(), PairSpectrumConfig().resolved(2, exact=True)]


@pytest.fixture
def crystal() -> Crystal:
    """Six atoms at random in a triclinic cell."""
    rng = np.random.default_rng(3)
    lattice = 4.6 * np.eye(3) + rng.normal(scale=0.5, size=(3, 3))
    return Crystal(lattice, rng.random((6, 3)), np.array([38, 22, 22, 8, 8, 8]))


@pytest.fixture(params=CONFIGS, ids=["wide", "narrow"])
def descriptor(request) -> PairSpectrum:
    return PairSpectrum(request.param)


def difference(descriptor: PairSpectrum, a: Crystal, b: Crystal, species_b=SPECIES) -> float:
    qa, qb = descriptor.encode(a, SPECIES, 3), descriptor.encode(b, species_b, 3)
    assert np.abs(qa).max() > 0.1
    return float(np.abs(qa - qb).max())


def test_other_species_order_is_another_vector(descriptor, crystal):
    assert difference(descriptor, crystal, crystal, np.array([1, 0, 1, 2, 2, 2])) > 1e-2


def test_rdf_block_against_ase(crystal):
    """The formula written out over ASE's neighbour list, up to the cut tails of the Gaussians."""
    config = PairSpectrumConfig()
    descriptor = PairSpectrum(config)
    atoms = to_atoms(crystal)
    scale = SPACING / (crystal.volume / 6) ** (1 / 3)
    i, j, distance = neighbor_list("ijd", atoms, config.cutoff / scale)
    assert ((i == j).sum()) > 20  # an atom's own images, which ASE lists too
    r = distance[:, None] * scale
    phi = np.exp(-0.5 * ((r - descriptor.centres) / config.rdf_width) ** 2)
    phi *= 0.5 * (1 + np.cos(np.pi * r / config.cutoff)) * 3 / np.maximum(r, 0.6)
    expected = []
    for c in range(3):
        for d in range(c, 3):
            ordered = (SPECIES[i] == c) & (SPECIES[j] == d)
            expected.append((math.sqrt(0.5) if c == d else 1.0) * phi[ordered].sum(axis=0) / 6)
    q = descriptor.encode(crystal, SPECIES, 3)
    np.testing.assert_allclose(q[: 6 * config.rdf_bins], np.concatenate(expected), atol=1e-4)


def test_s_block_against_structure_factors(crystal):
    """The formula written out with structure factors in plain numpy, over both halves of reciprocal space."""
    config = PairSpectrumConfig()
    descriptor = PairSpectrum(config)
    scale = SPACING / (crystal.volume / 6) ** (1 / 3)
    h = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    h = h[h.any(axis=1)]
    k = np.linalg.norm(2 * np.pi * h @ np.linalg.inv(crystal.lattice * scale).T, axis=1)
    h, k = h[k < 6], k[k < 6]
    waves = np.exp(2j * np.pi * h @ crystal.frac.T)
    factors = [waves[:, c == SPECIES].sum(axis=1) for c in range(3)]
    a = 2 * config.structure_factor().amplitude / 6 / k * np.exp(-((k / 6) ** 2))
    a = a[:, None] * np.exp(-0.5 * ((k[:, None] - descriptor.wave_numbers) / config.structure_factor().width) ** 2)
    expected = []
    for c in range(3):
        for d in range(c, 3):
            x = (factors[c] * factors[d].conj()).real * (math.sqrt(0.5) if c == d else 1.0)
            expected.append((a * x[:, None]).sum(axis=0) / 6 / 2)
    q = descriptor.encode(crystal, SPECIES, 3)
    np.testing.assert_allclose(q[6 * config.rdf_bins :], np.concatenate(expected), atol=1e-3)


def test_amplitude_and_width_have_an_effect(crystal):
    plain = PairSpectrum(PairSpectrumConfig()).encode(crystal, SPECIES, 3)
    double = PairSpectrum(PairSpectrumConfig(s_amplitude=16.0)).encode(crystal, SPECIES, 3)
    np.testing.assert_allclose(double[144:], 2 * plain[144:], atol=1e-12)
    np.testing.assert_array_equal(double[:144], plain[:144])
    wider = PairSpectrum(PairSpectrumConfig(s_width=0.3)).encode(crystal, SPECIES, 3)
    assert np.abs(wider - plain).max() > 0.01


def test_length_and_names(descriptor, crystal):
    for n_channels in (1, 3, 5):
        names = descriptor.names(n_channels)
        assert len(names) == len(set(names)) == descriptor.length(n_channels) == 56 * n_channels * (n_channels + 1) // 2
    more = descriptor.encode(crystal, SPECIES, 5)
    names, small = (
        descriptor.names(5),
        dict(zip(descriptor.names(3), descriptor.encode(crystal, SPECIES, 3), strict=True)),
    )
    for name, value in zip(names, more, strict=True):
        assert value == pytest.approx(small.get(name, 0.0), abs=1e-14)


def test_self_terms_are_what_the_kernels_leave_out(descriptor, crystal):
    tables, scale = descriptor.prepare(crystal.lattice, 6)
    q = np.empty(descriptor.length(3))
    pair_spectrum(crystal.cart * scale, SPECIES, 3, tables, q, np.empty((0, len(q))), False)
    own = descriptor.self_terms(tables, np.bincount(SPECIES), 3)
    np.testing.assert_allclose(q + own, descriptor.encode(crystal, SPECIES, 3), atol=1e-13)
    for block, bins in (("rdf", 24), ("s", 32)):
        by_pair = own[descriptor.blocks(3)[block]].reshape(6, bins)
        assert (by_pair[[1, 2, 4]] == 0).all()  # unlike species
        np.testing.assert_allclose(by_pair[[3, 5]], by_pair[0] * [[2], [3]], atol=1e-12)
        assert by_pair[0].max() > 0.01


def test_one_atom_is_described_by_its_images_alone(descriptor):
    """fcc copper: the kernels give zeros, the shells of neighbours are 12 at a/sqrt(2), 6 at a, ..."""
    copper = Crystal(1.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.0]]), [[0.1, 0.2, 0.3]], np.array([29]))
    tables, scale = descriptor.prepare(copper.lattice, 1)
    q = np.empty(56)
    pair_spectrum(copper.cart * scale, np.array([0]), 1, tables, q, np.empty((0, 56)), False)
    np.testing.assert_allclose(q, 0, atol=1e-12)
    nearest = SPACING * 4 ** (1 / 3) / math.sqrt(2)
    shells = nearest * np.sqrt(np.arange(1, 9))[:, None]
    count = np.array([12, 6, 24, 12, 24, 8, 48, 6])[:, None]  # the ninth shell is beyond the cutoff
    phi = (
        np.exp(-0.5 * ((shells - descriptor.centres) / 0.4) ** 2) * 0.5 * (1 + np.cos(np.pi * shells / 8)) * 3 / shells
    )
    expected = math.sqrt(0.5) * (count * phi).sum(axis=0)
    np.testing.assert_allclose(descriptor.encode(copper, [0], 1)[:24], expected, atol=1e-3)


def test_overlapping_atoms_do_not_crash(descriptor):
    for gap in (0.0, 1e-9, 0.02):
        q, jacobian = descriptor.evaluate(4 * np.eye(3), [[0, 0, 0], [gap, 0, 0]], [0, 1], 2)
        assert np.isfinite(q).all()
        assert np.isfinite(jacobian).all()


def test_wrong_channels_are_named(descriptor, crystal):
    with pytest.raises(ValueError, match="channels must lie in 0-1"):
        descriptor.encode(crystal, SPECIES, 2)
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        descriptor.encode(crystal, SPECIES[:5], 3)
    with pytest.raises(ValueError, match="no volume"):
        descriptor.evaluate(np.ones((3, 3)), crystal.cart, SPECIES, 3)


def test_images_are_complete_for_a_sheared_basis():
    """As many lattice vectors within the cutoff as in the cubic basis, and each of +-G exactly once."""
    cubic = 2.5 * np.eye(3)
    sheared = np.array([[1, 4, 0], [0, 1, -3], [0, 0, 1]]) @ cubic
    for cutoff in (2.5, 8.0):
        wanted, found = (
            sum(np.linalg.norm(lattice_images(cell, cutoff), axis=1) <= cutoff + 1e-9) for cell in (cubic, sheared)
        )
        assert wanted == found
    h = np.arange(-9, 10) * 2 * np.pi / 2.5
    expected = (np.add.outer(np.add.outer(h**2, h**2), h**2) < 4.0**2).sum() // 2
    miller = reciprocal_half_space(sheared, 4.0)
    assert len(miller) == expected > 0
    assert len({tuple(sign * row) for row in miller for sign in (1, -1)}) == 2 * len(miller)


def test_data_of_one_element_get_more_and_narrower_bins_and_what_is_set_stays() -> None:
    one, several = (PairSpectrumConfig().structure_factor(n) for n in (1, 2))
    assert one.bins == 2 * several.bins
    assert one.width < several.width
    assert PairSpectrumConfig(s_bins=32).structure_factor(1) == one._replace(bins=32)
    resolved = PairSpectrumConfig(s_width=0.1).resolved(1)
    assert (resolved.s_bins, resolved.s_last, resolved.s_width) == (one.bins, one.last, 0.1)
