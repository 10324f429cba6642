"""What every descriptor promises: invariances, Jacobian, blocks, batches, its attributes in files, relabelling."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from hpcgen.config import EadConfig, PairSpectrumConfig, RepresentationConfig, ThreeBodyConfig
from hpcgen.crystal import Crystal, from_structure
from hpcgen.errors import StoreError
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import (
    VERSIONS,
    Descriptor,
    descriptor_attrs,
    make_descriptor,
    relabel,
    representation_config,
)

PAIR = RepresentationConfig()
NARROW = RepresentationConfig().resolved(2, exact=True)
THREE = RepresentationConfig(descriptor="pair-spectrum+3body")
CUBIC_ANGLES = RepresentationConfig(
    descriptor="pair-spectrum+3body", three_body=ThreeBodyConfig(l_max=3, shells=4, cutoff=6.5, weight=0.5)
)
EAD = RepresentationConfig(descriptor="ead", ead=EadConfig(cutoff=6.0, eta=[1.0, 9.0], centres=24))
ALL = pytest.mark.parametrize(
    "config", [PAIR, NARROW, THREE, CUBIC_ANGLES, EAD], ids=["pair", "narrow", "3body", "3body-L3", "ead"]
)
SMOOTH = pytest.mark.parametrize("config", [PAIR, NARROW, THREE, CUBIC_ANGLES], ids=["pair", "narrow", "3body", "L3"])


def random_crystal() -> Crystal:
    """Six atoms at random in a triclinic cell."""
    rng = np.random.default_rng(3)
    lattice = 4.6 * np.eye(3) + rng.normal(scale=0.5, size=(3, 3))
    return Crystal(lattice, rng.random((6, 3)), np.array([38, 22, 22, 8, 8, 8]))


@cache
def real_crystals() -> dict[str, Crystal]:
    """Measured structures from 1 to 14 atoms in the primitive cell, with 1 to 3 elements."""

    def built(group: str, lattice: Lattice, species: list[str], sites: list[list[float]]) -> Crystal:
        return from_structure(Structure.from_spacegroup(group, lattice, species, sites).get_primitive_structure())

    return {
        "fcc Cu": built("Fm-3m", Lattice.cubic(3.615), ["Cu"], [[0, 0, 0]]),
        "diamond": built("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]]),
        "rutile": built("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        "perovskite": built(
            "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        ),
        "chalcopyrite": built(
            "I-42d",
            Lattice.tetragonal(5.289, 10.423),
            ["Cu", "Fe", "S"],
            [[0, 0, 0], [0, 0, 0.5], [0.257, 0.25, 0.125]],
        ),
        "spinel": built(
            "Fd-3m", Lattice.cubic(8.083), ["Mg", "Al", "O"], [[0.125, 0.125, 0.125], [0.5, 0.5, 0.5], [0.2624] * 3]
        ),
    }


def supercell(c: Crystal, matrix: list[list[int]]) -> Crystal:
    """The crystal in the cell with rows `matrix` @ lattice, an integer matrix."""
    m = np.array(matrix)
    copies = round(abs(np.linalg.det(m)))
    grid = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3) @ np.linalg.inv(m)
    inside = grid[((grid > -1e-9) & (grid < 1 - 1e-9)).all(axis=1)]
    assert len(inside) == copies
    frac = (c.frac @ np.linalg.inv(m))[:, None] + inside
    return Crystal(m @ c.lattice, frac.reshape(-1, 3), np.repeat(c.numbers, copies))


def encode(descriptor: Descriptor, c: Crystal, n_channels: int = 3) -> np.ndarray:
    return descriptor.encode(c, species_channels(c.numbers)[0], n_channels)


OTHERS = {
    "rotation": lambda c: Crystal(c.lattice @ Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix().T, c.frac, c.numbers),
    "reflection": lambda c: Crystal(-c.lattice, c.frac, c.numbers),
    "translation": lambda c: Crystal(c.lattice, c.frac + np.array([0.31, -0.77, 0.5]), c.numbers),
    "permutation": lambda c: Crystal(c.lattice, c.frac[::-1], c.numbers[::-1]),
    "basis": lambda c: supercell(c, [[1, 3, 0], [0, 1, -2], [2, 6, 1]]),
    "supercell": lambda c: supercell(c, [[2, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "supercell 2x2x1": lambda c: supercell(c, [[2, 0, 0], [0, 2, 0], [0, 0, 1]]),
    "supercell, sheared to 3": lambda c: supercell(c, [[1, 0, 0], [1, 1, 0], [2, 1, 3]]),
    "supercell, sheared to 4": lambda c: supercell(c, [[2, 0, 0], [1, 2, 0], [0, 1, 1]]),
    "scale": lambda c: Crystal(1.7 * c.lattice, c.frac, c.numbers),
}


@ALL
def test_every_invariance_that_is_promised_holds(config: RepresentationConfig) -> None:
    descriptor = make_descriptor(config)
    assert descriptor.name == config.descriptor
    assert {"rotation", "translation", "permutation", "basis", "supercell"} <= set(descriptor.invariances)
    for name, c in {"random": random_crystal(), **real_crystals()}.items():
        reference = encode(descriptor, c)
        assert np.abs(reference).max() > 0.1
        for change, other in OTHERS.items():
            if change.split()[0].rstrip(",") in descriptor.invariances:
                difference = np.abs(encode(descriptor, other(c)) - reference).max()
                assert difference < 1e-10 * np.abs(reference).max(), (name, change)


@ALL
def test_different_crystals_differ(config: RepresentationConfig) -> None:
    descriptor = make_descriptor(config)
    for name, c in {"random": random_crystal(), **real_crystals()}.items():
        if len(c) == 1:
            continue
        moved = Crystal(c.lattice, c.frac + 0.02 * np.random.default_rng(0).random((len(c), 3)), c.numbers)
        q = encode(descriptor, c)
        assert np.abs(encode(descriptor, moved) - q).max() > 1e-4 * np.abs(q).max(), name


@SMOOTH
def test_jacobian_against_finite_differences(config: RepresentationConfig) -> None:
    descriptor, c = make_descriptor(config), random_crystal()
    species, x, h = species_channels(c.numbers)[0], random_crystal().cart, 1e-5
    q, jacobian = descriptor.evaluate(c.lattice, x, species, 3)
    np.testing.assert_allclose(q, descriptor.evaluate(c.lattice, x, species, 3, jacobian=False)[0], atol=1e-13)
    numeric = np.empty_like(jacobian)
    for a in range(x.size):
        step = np.zeros(x.size)
        step[a] = h
        up, down = (
            descriptor.evaluate(c.lattice, x + sign * step.reshape(x.shape), species, 3, jacobian=False)[0]
            for sign in (1, -1)
        )
        numeric[:, a] = (up - down) / (2 * h)
    for part in descriptor.blocks(3).values():
        assert np.abs(jacobian[part]).max() > 0.1
    np.testing.assert_allclose(jacobian, numeric, atol=1e-7)
    np.testing.assert_allclose(jacobian.reshape(len(jacobian), -1, 3).sum(axis=1), 0, atol=1e-12)  # translations


@ALL
def test_names_and_blocks_cover_the_vector(config: RepresentationConfig) -> None:
    descriptor, c = make_descriptor(config), random_crystal()
    for n_channels in (1, 3, 5):
        names, blocks = descriptor.names(n_channels), descriptor.blocks(n_channels)
        assert len(names) == len(set(names)) == descriptor.length(n_channels)
        ends = [0]
        for part in blocks.values():
            assert part.start == ends[-1] < part.stop
            ends.append(part.stop)
        assert ends[-1] == len(names)
    small = dict(zip(descriptor.names(3), encode(descriptor, c), strict=True))
    for name, value in zip(descriptor.names(5), encode(descriptor, c, 5), strict=True):
        assert value == pytest.approx(small.get(name, 0.0), abs=1e-14)


@ALL
def test_a_batch_has_the_bits_of_its_members_for_any_number_of_threads(config: RepresentationConfig) -> None:
    descriptor = make_descriptor(config)
    crystals = [random_crystal(), *real_crystals().values()] * 20
    one = descriptor.encode_batch(crystals, 3)
    assert one.shape == (140, descriptor.length(3))
    np.testing.assert_array_equal(one[1], encode(descriptor, crystals[1]))
    for threads in (2, 5):
        np.testing.assert_array_equal(descriptor.encode_batch(crystals, 3, threads=threads), one)
    assert descriptor.encode_batch([], 3).shape == (0, descriptor.length(3))


@SMOOTH
def test_a_batch_refuses_what_no_channel_fits(config: RepresentationConfig) -> None:
    crystals = [real_crystals()["fcc Cu"]] * 70 + [real_crystals()["spinel"]]
    for threads in (1, 2):
        with pytest.raises(ValueError, match="channels must lie in 0-1"):
            make_descriptor(config).encode_batch(crystals, 2, threads=threads)
    with pytest.raises(ValueError, match="at least one thread"):
        make_descriptor(config).encode_batch(crystals, 3, threads=0)


@ALL
def test_relabelling_equals_encoding_the_relabelled_crystal(config: RepresentationConfig) -> None:
    """Self terms included: a merged channel's own images are those of both."""
    descriptor = make_descriptor(config)
    for name, c in {"random": random_crystal(), **real_crystals()}.items():
        species = species_channels(c.numbers)[0]
        vector = descriptor.encode(c, species, 4)
        for old_to_new in ([1, 0, 2, 3], [3, 2, 0, 1], [0, 1, 1, 2], [1, 0, 0, 1], [0, 0, 0, 0]):
            new = max(old_to_new) + 1
            mixing = np.array([[float(n == a) for n in old_to_new] for a in range(new)])
            expected = descriptor.encode(c, np.array(old_to_new)[species], new)
            found = relabel(config, vector, mixing)
            np.testing.assert_allclose(
                found, expected, atol=1e-12 * np.abs(vector).max(), err_msg=f"{name} {old_to_new}"
            )
        used = relabel(config, vector, np.eye(3, 4))
        np.testing.assert_allclose(used, descriptor.encode(c, species, 3), atol=1e-13, err_msg=name)


@ALL
def test_a_file_restores_its_descriptor(config: RepresentationConfig) -> None:
    attrs = descriptor_attrs(config)
    assert representation_config(attrs) == config
    assert all(isinstance(value, str) for value in attrs.values())


@ALL
def test_another_version_of_a_definition_is_refused(config: RepresentationConfig) -> None:
    attrs = descriptor_attrs(config)
    for version in ("0", str(VERSIONS[config.descriptor] + 1)):
        with pytest.raises(StoreError, match=f"has version {version}"):
            representation_config({**attrs, "descriptor_version": version})


def test_files_without_a_version_are_refused() -> None:
    """Written before own images counted."""
    old = {"descriptor": "pair-spectrum", "descriptor_settings": PairSpectrumConfig().model_dump_json()}
    with pytest.raises(StoreError, match="has version unknown") as error:
        representation_config(old)
    assert "version 2" in str(error.value)


@pytest.mark.parametrize("settings", ["{", "[]", "{}", json.dumps({"pair_spectrum": {"bins": 3}})])
def test_settings_that_cannot_be_read_are_a_store_error(settings: str) -> None:
    with pytest.raises(StoreError, match="settings cannot be read"):
        representation_config({**descriptor_attrs(PAIR), "descriptor_settings": settings})
    with pytest.raises(StoreError, match="descriptor is 'soap'"):
        representation_config({**descriptor_attrs(PAIR), "descriptor": "soap"})
