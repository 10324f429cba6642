"""Lattice parameters as network numbers and back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hpcgen.crystal import Crystal, lattice_from_parameters, lattice_parameters
from hpcgen.represent.lattice import build_lattice, decode_lattice, encode_lattice

CELLS = {
    "cubic": (3.9, 3.9, 3.9, 90, 90, 90),
    "primitive fcc": (2.9, 2.9, 2.9, 60, 60, 60),
    "primitive bcc": (2.5, 2.5, 2.5, 109.4712206, 109.4712206, 109.4712206),
    "hexagonal": (3.2, 3.2, 5.2, 90, 90, 120),
    "monoclinic": (5.1, 5.2, 5.3, 90, 99.2, 90),
    "long": (2.8, 2.8, 31.0, 90, 90, 120),
}


@pytest.mark.parametrize("parameters", CELLS.values(), ids=CELLS)
def test_decode_inverts_encode(parameters: tuple[float, ...]) -> None:
    lattice = lattice_from_parameters(parameters)
    np.testing.assert_allclose(decode_lattice(encode_lattice(lattice, 7), 7), parameters, atol=1e-9)


def test_decode_inverts_encode_for_random_niggli_cells() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        cell = Crystal(np.eye(3) * 4 + rng.normal(size=(3, 3)), [[0, 0, 0]], [29]).niggli()
        np.testing.assert_allclose(decode_lattice(encode_lattice(cell.lattice, 3), 3), cell.parameters, atol=1e-8)


def test_features_mean_what_they_say() -> None:
    features = encode_lattice(np.eye(3) * 4.0, 5)
    np.testing.assert_allclose(features, [np.log(64 / 5), 0, 0, 0, 0, 0], atol=1e-12)
    lattice = lattice_from_parameters(CELLS["monoclinic"])
    rotated = lattice @ Rotation.random(random_state=1).as_matrix()
    np.testing.assert_allclose(encode_lattice(rotated, 4), encode_lattice(lattice, 4), atol=1e-12)
    # volume and shape are independent
    np.testing.assert_allclose(encode_lattice(lattice * 1.1, 4)[1:], encode_lattice(lattice, 4)[1:], atol=1e-12)


def test_every_generated_shape_is_a_cell_of_the_volume_meant() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        features = np.concatenate([rng.normal(2.7, 0.3, 1), rng.normal(0, 0.7, 5)])
        parameters = decode_lattice(features, 6)
        volume = abs(np.linalg.det(lattice_from_parameters(parameters)))
        assert volume / 6 == pytest.approx(np.exp(features[0]), rel=1e-6)


@pytest.mark.parametrize("features", [[np.nan] * 6, [np.inf, 0, 0, 0, 0, 0], [1e6, 0, 0, 0, 0, 0]], ids=str)
def test_numbers_that_are_no_cell_decode_to_nan(features: list[float]) -> None:
    assert np.isnan(decode_lattice(features, 4)).all()


def test_a_negative_number_of_atoms_decodes_to_nan() -> None:
    assert np.isnan(decode_lattice(np.ones(6), -0.2)).all()


def test_possible_cells_are_built() -> None:
    for parameters in CELLS.values():
        np.testing.assert_allclose(lattice_parameters(build_lattice(parameters, 4)), parameters, atol=1e-9)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ((np.nan, 4, 4, 90, 90, 90), "not finite"),
        ((4, 4, 0, 90, 90, 90), "impossible lattice parameters"),
        ((4, 4, -4, 90, 90, 90), "impossible lattice parameters"),
        ((4, 4, 4, 90, 90, 180), "impossible lattice parameters"),
        ((4, 4, 4, 120, 120, 120), "do not close"),
        ((4, 4, 4, 150, 50, 60), "do not close"),
        ((4, 4, 400, 90, 90, 1), "flat"),
        ((1, 1, 1, 90, 90, 90), "cubic angstrom per atom"),
        ((400, 40, 40, 90, 90, 90), "cubic angstrom per atom"),
    ],
    ids=str,
)
def test_impossible_cells_are_refused(parameters: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_lattice(parameters, 4)
