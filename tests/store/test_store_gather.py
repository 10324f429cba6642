"""Gathering from shards makes the file that `store.write` makes of the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_records import TYPES, assert_same, make

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation

FAILURES = [Failure(f"row:{i}", "x", "k", f"Fehler {i} ≠") for i in range(7)]
ATTRS: dict[str, Any] = {"family": "toy", "scales": [1.0, 2.0]}


def shards(folder: Path, record_type: type, records: list[Any], seed: int = 0) -> store.Picks:
    """The records in three shards and commits of 1 to 9 results, mixed with failures; where they are, in order."""
    rng = np.random.default_rng(seed)
    results = [*range(len(records)), *(-1 - i for i in range(len(FAILURES)))]
    rng.shuffle(results)
    files, places, found = [], [], np.zeros((len(records), 3), np.int32)
    for number, part in enumerate(np.array_split(np.array(results), 3)):
        files.append(folder / f"{number}.frames")
        writer = store.ShardWriter(files[-1], record_type)
        for i in part.tolist():
            writer.append(records[i] if i >= 0 else FAILURES[-1 - i], f"{i}")
            if rng.random() < 0.2:
                writer.commit()
        writer.seal()
        for place in store.read_shard(files[-1], record_type).places():
            for row, (task, atoms) in enumerate(zip(place.tasks.tolist(), place.atoms.tolist(), strict=True)):
                if row < place.records:
                    found[int(task)] = len(places), row, atoms
            places.append((number, place.offset, place.length))
    return store.Picks(files, np.array(places, np.int64).reshape(-1, 3), *np.ascontiguousarray(found.T))


def assert_equal_files(one: Path, other: Path) -> None:
    """Every dataset and attribute, in type, shape, layout and every bit."""
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[list[str]] = [[], []]
        a.visit(names[0].append)
        b.visit(names[1].append)
        assert names[0] == names[1]
        for name in ["/", *names[0]]:
            x, y = a[name], b[name]
            assert dict(x.attrs).keys() == dict(y.attrs).keys(), name
            for key, value in x.attrs.items():
                np.testing.assert_array_equal(value, y.attrs[key], err_msg=f"{name} {key}")
            if isinstance(x, h5py.Dataset):
                assert (x.dtype, x.shape, x.chunks, x.compression) == (y.dtype, y.shape, y.chunks, y.compression), name
                assert h5py.check_string_dtype(x.dtype) == h5py.check_string_dtype(y.dtype)
                np.testing.assert_array_equal(x[()], y[()], err_msg=name)


@pytest.mark.parametrize("record_type", TYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("block_bytes", [1, 3000, 10**9])
def test_the_file_is_the_same(tmp_path: Path, record_type: type, block_bytes: int) -> None:
    records = make(record_type, 60)
    picks = shards(tmp_path, record_type, records)
    store.write(tmp_path / "a.h5", record_type, records, failures=FAILURES, header={"seed": 3}, attrs=ATTRS)
    store.gather(
        tmp_path / "b.h5",
        record_type,
        picks,
        failures=FAILURES,
        header={"seed": 3},
        attrs=ATTRS,
        block_bytes=block_bytes,
    )
    assert store.content_digest(tmp_path / "a.h5") == store.content_digest(tmp_path / "b.h5")
    assert_equal_files(tmp_path / "a.h5", tmp_path / "b.h5")
    with store.open(tmp_path / "b.h5", record_type) as f:
        f.verify()
        for one, other in zip(records, f, strict=True):
            assert_same(one, other)


def test_some_records_in_another_order(tmp_path: Path) -> None:
    records = make(Relaxation, 50)
    chosen = [41, 3, 17, 8]
    picks = shards(tmp_path, Relaxation, records).at(chosen)
    store.gather(tmp_path / "b.h5", Relaxation, picks)
    with store.open(tmp_path / "b.h5") as f:
        assert f.ids == [records[i].id for i in chosen]
    for one, i in zip(picks.results(Relaxation), chosen, strict=True):
        assert_same(one, records[i])


@pytest.mark.parametrize("record_type", TYPES, ids=lambda t: t.__name__)
def test_no_records_at_all(tmp_path: Path, record_type: type) -> None:
    picks = shards(tmp_path, record_type, []).at(slice(0, 0))
    store.write(tmp_path / "a.h5", record_type, [], failures=FAILURES)
    store.gather(tmp_path / "b.h5", record_type, picks, failures=FAILURES)
    assert_equal_files(tmp_path / "a.h5", tmp_path / "b.h5")


def test_a_shard_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    picks = shards(tmp_path, Candidate, make(Candidate, 30))
    damaged = bytearray(picks.files[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    for content in (bytes(damaged), bytes(damaged[:-100]), None):
        if content is None:
            picks.files[1].unlink()
        else:
            picks.files[1].write_bytes(content)
        with pytest.raises(StoreError, match=r"1\.frames cannot be read any more") as error:
            store.gather(tmp_path / "b.h5", Candidate, picks)
        assert "run the same command again" in error.value.remedy
        assert not (tmp_path / "b.h5").exists()
        assert not list(tmp_path.glob(".*"))
