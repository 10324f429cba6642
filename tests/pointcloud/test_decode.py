"""Clouds back to crystals: exact ones exactly, noisy ones as counted, across faces; what is no crystal is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgen.crystal import Crystal, lattice_from_parameters
from hpcgen.pointcloud.cloud import Cloud, CloudCodec, CloudScales, wrapped
from hpcgen.pointcloud.decode import Decoded, decode, decode_many, midmean

SLOTS = (38, 22, 8)
PEROVSKITE = Crystal(np.eye(3) * 3.9, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
                     [38, 22, 8, 8, 8])  # fmt: skip
CODEC = CloudCodec(CloudScales())


def noisy(crystal: Crystal, sigma: float, seed: int = 0, codec: CloudCodec = CODEC, slots=SLOTS) -> Cloud:
    """A cloud whose numbers have normal noise of `sigma`, in units of 0 to 1."""
    rng = np.random.default_rng(seed)
    position, element, lattice = (v + sigma * rng.standard_normal(v.shape) for v in codec.encode(crystal, slots, rng))
    return Cloud(wrapped(position), element, lattice)


def errors(found: Crystal, true: Crystal) -> np.ndarray:
    """(n,) angstrom; every atom must have one partner of its element."""
    assert sorted(found.numbers) == sorted(true.numbers)
    away = found.frac[:, None] - true.frac[None]
    distance = np.linalg.norm((away - np.rint(away)) @ true.lattice, axis=2)
    distance[found.numbers[:, None] != true.numbers[None]] = np.inf
    partner = distance.argmin(axis=1)
    assert len(set(partner)) == len(true)
    return distance.min(axis=1)


@st.composite
def crystals(draw) -> tuple[Crystal, tuple[int, ...]]:
    """Random atoms at least 1.2 angstrom apart, by rejection, in a random right-handed cell; slots in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    elements = draw(st.permutations([38, 22, 8]))[: draw(st.integers(1, 3))]
    lattice = lattice_from_parameters([*rng.uniform(3.5, 9, 2), rng.uniform(3.5, 12), *rng.uniform(65, 110, 3)])
    wanted, frac = draw(st.integers(len(elements), 12)), []
    for point in rng.random((400, 3)):
        away = np.array(frac).reshape(-1, 3) - point
        if len(frac) < wanted and (np.linalg.norm((away - np.rint(away)) @ lattice, axis=1) > 1.2).all():
            frac.append(point)
    return Crystal(lattice, np.array(frac), np.resize(elements, len(frac))), tuple(elements)


@settings(deadline=None, max_examples=60)
@given(crystals(), st.integers(0, 99))
def test_exact_clouds_come_back_exactly(drawn: tuple[Crystal, tuple[int, ...]], seed: int) -> None:
    crystal, slots = drawn
    decoded = decode(CODEC.encode(crystal, slots, np.random.default_rng(seed)), slots, CODEC.scales)
    assert isinstance(decoded, Decoded)
    assert errors(decoded.crystal, crystal).max() < 1e-6
    np.testing.assert_allclose(decoded.crystal.parameters, crystal.parameters, rtol=1e-9)
    assert decoded.noise_points == 0
    assert decoded.confidence > 0.99
    assert decoded.spread_A < 1e-6
    counts = np.round(decoded.multiplicity)
    np.testing.assert_allclose(decoded.multiplicity, counts, atol=1e-3)
    assert set(counts) <= {128 // len(crystal), 128 // len(crystal) + 1}


@pytest.mark.parametrize("points", [64, 101, 256])
@pytest.mark.parametrize("elements", [1, 5])
def test_any_number_of_points_and_elements(points: int, elements: int) -> None:
    slots = (3, 25, 15, 8, 1)[:elements]
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 3
    crystal = Crystal(np.diag([6.0, 7.0, 18.0]), grid[rng.permutation(27)[:20]], np.resize(slots, 20))
    codec = CloudCodec(CloudScales(points, elements, 20))
    decoded = decode(codec.encode(crystal, slots, rng), slots, codec.scales)
    assert isinstance(decoded, Decoded)
    assert errors(decoded.crystal, crystal).max() < 1e-6


def test_atoms_at_faces_are_averaged_around_the_torus() -> None:
    decoded = decode(noisy(PEROVSKITE, 0.01), SLOTS, CODEC.scales)
    assert isinstance(decoded, Decoded)
    error = errors(decoded.crystal, PEROVSKITE)
    points = 128 / 5
    assert np.sqrt((error**2).mean()) < 2 * 3.9 * 0.01 * np.sqrt(3 / points)
    assert decoded.spread_A == pytest.approx(3.9 * 0.01 * np.sqrt(3), rel=0.15)


def test_noise_wider_along_one_axis_than_atoms_are_apart() -> None:
    """In a long cell the same noise in fractions is no sphere in angstrom: its shape is found, too."""
    frac = np.array([[0, 0, 0.10], [0.5, 0.5, 0.15], [0, 0.5, 0.2], [0.5, 0, 0.6]])
    crystal = Crystal(np.diag([4.0, 4.0, 40.0]), frac, [22, 22, 22, 22])
    found = [decode(noisy(crystal, 0.02, seed, slots=(22,)), (22,), CODEC.scales) for seed in range(10)]
    assert [len(d.crystal) for d in found if isinstance(d, Decoded)] == [4] * 10


def test_stray_points_are_counted_and_move_nothing() -> None:
    rng = np.random.default_rng(3)
    cloud = noisy(PEROVSKITE, 0.005)
    plain = decode(cloud, SLOTS, CODEC.scales)
    position = cloud.position.copy()
    stray = rng.permutation(128)[:6]
    position[stray] = (position[stray] + 0.25) % 1  # far from all atoms
    decoded = decode(cloud._replace(position=position), SLOTS, CODEC.scales)
    assert isinstance(decoded, Decoded)
    assert isinstance(plain, Decoded)
    assert decoded.noise_points == 6
    assert plain.noise_points == 0
    assert decoded.confidence < plain.confidence
    assert errors(decoded.crystal, PEROVSKITE).max() < 0.03


def test_an_empty_slot_and_an_element_that_no_point_chose() -> None:
    salt = Crystal(np.eye(3) * 4, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    cloud = CODEC.encode(salt, (55, 17))
    cloud.element[:, 2] = 5.0  # a column of an empty slot is not looked at
    two = decode(cloud, (55, 17), CODEC.scales)
    assert isinstance(two, Decoded)
    assert two.crystal.formula == "CsCl"
    cloud.element[:, 2] = -5.0
    three = decode(cloud, (55, 17, 8), CODEC.scales)
    assert isinstance(three, Decoded)
    assert three.crystal.formula == "CsCl"


def test_the_number_of_atoms_is_one_question_to_all_elements() -> None:
    """Two atoms 1.8 widths apart: their element alone would be one atom; the others say how many points an atom has."""
    frac = np.array([[0.1, 0.1, 0.1], [0.21, 0.1, 0.1], [0.6, 0.6, 0.6], [0.1, 0.6, 0.6], [0.6, 0.1, 0.6]])
    crystal = Crystal(np.eye(3) * 9.0, frac, [8, 8, 22, 38, 38])
    found = [decode(noisy(crystal, 0.06, seed), SLOTS, CODEC.scales) for seed in range(10)]
    right = [isinstance(d, Decoded) and sorted(d.crystal.numbers) == sorted(crystal.numbers) for d in found]
    assert sum(right) >= 9


def test_a_smeared_atom_is_one() -> None:
    """A network that is not sure puts groups of points side by side: half an angstrom apart they are no two atoms."""
    cloud = CODEC.encode(PEROVSKITE, SLOTS, np.random.default_rng(0))
    groups = np.random.default_rng(1).normal(0, 0.05, (8, 3))  # 0.2 angstrom
    noise = np.random.default_rng(2).normal(0, 0.002, (128, 3))
    decoded = decode(
        cloud._replace(position=wrapped(cloud.position + groups[np.arange(128) % 8] + noise)), SLOTS, CODEC.scales
    )
    assert isinstance(decoded, Decoded)
    assert len(decoded.crystal) == 5


def test_batches_and_threads_change_no_bit() -> None:
    clouds = [noisy(PEROVSKITE, 0.03, seed) for seed in range(150)]
    alone = [decode(c, SLOTS, CODEC.scales) for c in clouds]
    together = decode_many(clouds[::-1], [SLOTS] * 150, CODEC.scales, threads=3)[::-1]
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Decoded)
        assert isinstance(other, Decoded)
        assert (one.crystal.frac == other.crystal.frac).all()
        assert (one.crystal.lattice == other.crystal.lattice).all()
        assert (one.confidence, one.spread_A) == (other.confidence, other.spread_A)


def test_the_order_of_the_points_does_not_matter() -> None:
    cloud = noisy(PEROVSKITE, 0.02)
    order = np.random.default_rng(1).permutation(128)
    one = decode(cloud, SLOTS, CODEC.scales)
    other = decode(Cloud(cloud.position[order], cloud.element[order], cloud.lattice), SLOTS, CODEC.scales)
    assert isinstance(one, Decoded)
    assert isinstance(other, Decoded)
    assert errors(one.crystal, other.crystal).max() < 1e-3


def changed(cloud: Cloud, **rows: object) -> Cloud:
    lattice = cloud.lattice.copy()
    for name, value in rows.items():
        lattice[: 64 if name == "angles" else None][64 if name == "lengths" else 0 :] = value
    return cloud._replace(lattice=lattice)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"angles": [0.9, 0.2, 0.2]}, "do not close"),
        ({"angles": -0.1}, "impossible lattice parameters"),
        ({"lengths": -1.0}, "impossible lattice parameters"),
        ({"lengths": 0.1}, "cubic angstrom per atom"),
        ({"lengths": np.inf}, "not finite"),
        ({"angles": [0.5, 0.5, 0.012]}, "flat"),
    ],
)
def test_impossible_cells_are_rejected(rows: dict, reason: str) -> None:
    told = decode(changed(CODEC.encode(PEROVSKITE, SLOTS), **rows), SLOTS, CODEC.scales)
    assert isinstance(told, str)
    assert reason in told


def test_a_bad_cloud_spoils_no_neighbour() -> None:
    good = CODEC.encode(PEROVSKITE, SLOTS)
    bad = good._replace(position=np.full_like(good.position, np.nan))
    first, second, third = decode_many([good, bad, good], [SLOTS] * 3, CODEC.scales)
    assert isinstance(first, Decoded)
    assert isinstance(second, str)
    assert isinstance(third, Decoded)


def test_noise_is_no_confident_crystal() -> None:
    rng = np.random.default_rng(0)
    lattice = CODEC.encode(PEROVSKITE, SLOTS).lattice
    sure = 0
    for _ in range(30):
        result = decode(Cloud(rng.random((128, 3)), rng.random((128, 3)), lattice), SLOTS, CODEC.scales)
        sure += isinstance(result, Decoded) and result.spread_A < 0.5
    assert sure == 0


def test_outliers_do_not_move_the_cell() -> None:
    rows = np.full((64, 3), 0.5)
    rows[:10] = 4.0
    np.testing.assert_allclose(midmean(rows), 0.5)
    rng = np.random.default_rng(0)
    normal, tailed = rng.standard_normal((500, 64, 3)), rng.standard_t(3, (500, 64, 3))
    assert midmean(normal).std() < 1.12 * normal.mean(axis=1).std()
    assert midmean(tailed).std() < 0.9 * tailed.mean(axis=1).std()


@pytest.mark.parametrize("slots", [(), (8, 8), (8, 22, 38, 3)])
def test_slots_must_fit(slots: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="slots"):
        decode(CODEC.encode(PEROVSKITE, SLOTS), slots, CODEC.scales)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(64, 3\)"):
        decode(CODEC.encode(PEROVSKITE, SLOTS), SLOTS, CloudScales(points=64))
