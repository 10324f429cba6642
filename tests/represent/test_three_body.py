"""The three-body block against its definition: the double sum over neighbours, with ASE's neighbour list."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from hpcgen.config import PairSpectrumConfig, ThreeBodyConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.represent.pair_spectrum import SPACING
from hpcgen.represent.three_body import PairSpectrumThreeBody
from hpcgen.represent.three_body_kernels import neighbours

SPECIES = np.array([0, 1, 1, 2, 2])


def crystal(shape: tuple[float, float, float] = (3.4, 3.9, 4.4)) -> Crystal:
    """Five atoms at random in a triclinic cell."""
    rng = np.random.default_rng(5)
    return Crystal(
        np.diag(shape) + rng.normal(scale=0.4, size=(3, 3)), rng.random((5, 3)), np.array([38, 22, 22, 8, 8])
    )


def definition(c: Crystal, descriptor: PairSpectrumThreeBody) -> np.ndarray:
    """(3, l_max + 1, 2 S - 1) written out: every pair of neighbours of every atom, and the angle between them."""
    config = descriptor.config
    scale = SPACING / (c.volume / len(c)) ** (1 / 3)
    centre, vector = neighbor_list("iD", to_atoms(c), config.cutoff / scale)
    vector = vector * scale
    last = config.shells
    shells = [(n, n) for n in range(last)] + [(n, n + 1) for n in range(last - 1)]
    out = np.zeros((3, config.l_max + 1, len(shells)))
    for i in range(len(c)):
        v = vector[centre == i]
        r = np.linalg.norm(v, axis=1)
        cosine = (v @ v.T) / np.outer(r, r)
        h = np.exp(-0.5 * ((r[:, None] - descriptor.centres) / config.width) ** 2)
        h *= 0.5 * (1 + np.cos(np.pi * r / config.cutoff))[:, None]
        for order in range(config.l_max + 1):
            for p, (n, m) in enumerate(shells):
                out[SPECIES[i], order, p] += h[:, n] @ cosine**order @ h[:, m]
    return config.weight * out / len(c)


@pytest.mark.parametrize(
    "config",
    [
        ThreeBodyConfig(),
        ThreeBodyConfig(l_max=3, shells=3, weight=0.3),
        ThreeBodyConfig(l_max=0, shells=1, cutoff=3.0),
    ],
    ids=["default", "L3", "one-number"],
)
def test_block_equals_its_definition(config: ThreeBodyConfig) -> None:
    descriptor, c = PairSpectrumThreeBody(PairSpectrumConfig(), config), crystal()
    expected = definition(c, descriptor)
    assert expected.max() > 0.01
    found = descriptor.encode(c, SPECIES, 3)[descriptor.blocks(3)["three_body"]]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-10, atol=1e-12)


def test_pair_blocks_are_those_of_the_pair_spectrum() -> None:
    descriptor, c = PairSpectrumThreeBody(PairSpectrumConfig(), ThreeBodyConfig()), crystal()
    q, jacobian = descriptor.evaluate(c.lattice, c.cart, SPECIES, 3)
    pair, pair_jacobian = descriptor.pair.evaluate(c.lattice, c.cart, SPECIES, 3)
    np.testing.assert_array_equal(q[: len(pair)], pair)
    np.testing.assert_array_equal(jacobian[: len(pair)], pair_jacobian)
    assert list(descriptor.blocks(3)) == ["rdf", "s", "three_body"]


def test_angles_are_seen_where_pairs_see_nothing() -> None:
    """A neighbour moved around its centre at fixed distance, in a cell so large that it has only one other."""
    descriptor = PairSpectrumThreeBody(PairSpectrumConfig(), ThreeBodyConfig(cutoff=3.5))
    part = descriptor.blocks(1)["three_body"]
    vectors = []
    for angle in (np.pi / 2, np.pi / 3):
        cart = 10 + np.array([[0, 0, 0], [1.0, 0, 0], [np.cos(angle), np.sin(angle), 0]])
        cell = 20 * np.eye(3)
        scale = SPACING / (20**3 / 3) ** (1 / 3)
        vectors.append(descriptor.evaluate(cell, 10 + (cart - 10) / scale * 1.5, [0, 0, 0], 1, jacobian=False)[0][part])
    by_order = [v.reshape(3, -1) for v in vectors]
    assert np.abs(by_order[0][1] - by_order[1][1]).max() > 0.01


def test_neighbours_of_a_thin_cell_are_all_found() -> None:
    """A cell thinner than the cutoff: every atom has many images of itself, each of T and -T listed once."""
    c = crystal((1.6, 4.0, 9.0))
    descriptor = PairSpectrumThreeBody(PairSpectrumConfig(), ThreeBodyConfig(cutoff=9.0))
    tables, scale = descriptor.pair.prepare(c.lattice, len(c))
    atoms, vectors = neighbours(c.cart * scale, descriptor.prepare(tables))
    i, j, distance = neighbor_list("ijd", to_atoms(c), 9.0 / scale)
    assert len(atoms) > 64 * len(c)  # more than the list holds at first
    for a in range(len(c)):
        for b in range(a, len(c)):
            found = vectors[(atoms == (a, b)).all(axis=1), 3]
            expected = np.sort(distance[(i == a) & (j == b)]) * scale
            np.testing.assert_allclose(np.sort(np.repeat(found, 2) if a == b else found), expected, atol=1e-9)


def test_overlapping_atoms_do_not_crash() -> None:
    descriptor = PairSpectrumThreeBody(PairSpectrumConfig(), ThreeBodyConfig())
    for gap in (0.0, 1e-9, 0.02):
        q, jacobian = descriptor.evaluate(4 * np.eye(3), [[0, 0, 0], [gap, 0, 0]], [0, 1], 2)
        assert np.isfinite(q).all()
        assert np.isfinite(jacobian).all()
