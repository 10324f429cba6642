"""Crystals as clouds: what every point says, how points are dealt out, what does not fit, and the network's array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcgen.crystal import Crystal, lattice_parameters
from hpcgen.pointcloud.cloud import Cloud, CloudCodec, CloudScales, repeats

SKEW = [[4.1, 0, 0], [1.3, 5.2, 0], [-0.7, 1.1, 21.0]]  # longer than the 15 angstrom of the paper


def crystal(n: int, seed: int = 0, elements: tuple[int, ...] = (8, 22, 38)) -> Crystal:
    rng = np.random.default_rng(seed)
    return Crystal(SKEW, rng.random((n, 3)), np.resize(elements, n))


@pytest.mark.parametrize("n", [1, 3, 5, 16])
@pytest.mark.parametrize("seed", [None, 1])
def test_points_are_dealt_out_evenly(n: int, seed: int | None) -> None:
    counts = repeats(n, 128, None if seed is None else np.random.default_rng(seed))
    assert counts.sum() == 128
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("points", "elements", "n"), [(128, 3, 7), (200, 5, 20), (31, 1, 31), (2, 2, 1)])
def test_every_point_is_an_atom(points: int, elements: int, n: int) -> None:
    present = (8, 22, 38, 3, 15)[: min(elements, n)]
    original = crystal(n, elements=present)
    codec = CloudCodec(CloudScales(points, elements, n))
    slots = present[::-1]
    cloud = codec.encode(original, slots, np.random.default_rng(0))
    assert (cloud.element.sum(1) == 1).all()
    assert set(np.unique(cloud.element)) <= {0.0, 1.0}
    hits = np.zeros(n, int)
    for position, slot in zip(cloud.position, cloud.element.argmax(1), strict=True):
        atom = np.flatnonzero((original.frac == position).all(1) & (original.numbers == slots[slot]))
        hits[atom] += 1
    assert hits.sum() == points
    assert set(hits) <= {points // n, points // n + 1}
    half = points // 2
    wanted = lattice_parameters(SKEW)
    np.testing.assert_allclose(cloud.lattice[:half] * 180, np.tile(wanted[3:], (half, 1)))
    np.testing.assert_allclose(cloud.lattice[half:] * 6.0, np.tile(wanted[:3], (points - half, 1)))


def test_random_numbers_decide_order_and_origin_only() -> None:
    codec = CloudCodec(CloudScales())
    plain, again, other = (codec.encode(crystal(5), (38, 22, 8), r) for r in map(np.random.default_rng, (1, 1, 2)))
    assert (plain.position == again.position).all()
    assert (plain.position != other.position).any()
    shifted = codec.encode(crystal(5), (38, 22, 8), np.random.default_rng(1), shift=True)
    assert not np.isin(shifted.position, plain.position).any()
    ordered = codec.encode(crystal(5), (38, 22, 8))
    assert (np.diff(ordered.element.argmax(1)) >= 0).all()
    with pytest.raises(ValueError, match="random origin"):
        codec.encode(crystal(5), (38, 22, 8), shift=True)


def test_a_left_handed_cell_is_the_same_crystal() -> None:
    codec = CloudCodec(CloudScales())
    original = crystal(4)
    mirrored = Crystal(-original.lattice, -original.frac, original.numbers)
    one, two = (codec.encode(c, (8, 22, 38)) for c in (original, mirrored))
    np.testing.assert_allclose(one.position, two.position, atol=1e-12)
    np.testing.assert_allclose(one.lattice, two.lattice)


@pytest.mark.parametrize(
    ("sizes", "slots", "reason"),
    [
        ((128, 3, 4), (8, 22, 38), "5 sites, more than 4"),
        ((128, 2, 16), (8, 22), "3 elements, more than 2"),
        ((128, 3, 16), (8, 22, 39), r"elements \[38\]"),
        ((128, 3, 16), (8, 8, 38), "must be at most 3 different"),
        ((128, 3, 16), (8, 22, 38, 3), "must be at most 3 different"),
    ],
)
def test_what_does_not_fit_is_told(sizes: tuple[int, int, int], slots: tuple[int, ...], reason: str) -> None:
    codec = CloudCodec(CloudScales(*sizes))
    with pytest.raises(ValueError, match=reason):
        codec.encode(crystal(5), slots)
    assert codec.misfit(crystal(5)) == (reason if "more than" in reason else "")


@pytest.mark.parametrize("elements", [1, 3, 5])
def test_arrays_and_back(elements: int) -> None:
    crystals = [crystal(n, seed=n, elements=(8, 22, 38, 3, 15)[:elements]) for n in (5, 6, 7)]
    codec = CloudCodec(CloudScales.fit(crystals, points=64, elements=elements, max_sites=7))
    clouds = [codec.encode(c, (8, 22, 38, 3, 15)[:elements]) for c in crystals]
    batch = Cloud(*map(np.array, zip(*clouds, strict=True)))
    x = codec.forward(batch)
    assert x.dtype == np.float32
    assert x.shape == (3, *codec.shape)
    assert not x[np.broadcast_to(~codec.in_use, x.shape)].any()
    for one, many in zip(codec.inverse(x), batch, strict=True):
        np.testing.assert_allclose(one, many, atol=2e-7, rtol=1e-6)
    assert (codec.forward(clouds[1]) == x[1]).all()
    wild = codec.inverse(x + 1e5)
    assert (wild.position < 1).all()
    assert np.isinf(wild.lattice).any()  # not clamped


def test_columns_in_use_have_unit_spread(data_folder: Path) -> None:
    from hpcgen.data.gate import Limits, admit
    from hpcgen.data.sources import raw_items

    limits = Limits(16, 3, frozenset(range(1, 104)))
    rows = [item for i, item in enumerate(raw_items(data_folder / "mp_20_biternary_val.csv.gz")) if i % 50 == 0]
    crystals = [c for c in (admit(item, limits) for item in rows) if isinstance(c, Crystal)]
    codec = CloudCodec(CloudScales.fit(crystals, points=128, elements=3, max_sites=16))
    x = np.array([codec.forward(codec.encode(c, np.unique(c.numbers))) for c in crystals])
    assert len(x) > 50
    spread = x.std(axis=(0, 2))
    assert ((spread > 0.6) & (spread < 1.4)).all(), spread
    assert np.abs(x.mean(axis=(0, 2))).max() < 0.7


def test_state_keeps_every_number() -> None:
    scales = CloudScales.fit([crystal(3), crystal(4)], points=100, elements=4, max_sites=9)
    assert CloudScales.from_state(scales.state()) == scales


@pytest.mark.parametrize("wrong", [{"points": 8}, {"elements": 0}, {"length_unit": 0.0}, {"angle_mean": (90.0,)}])
def test_impossible_scales(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"cloud|lattice"):
        CloudScales(**wrong)
