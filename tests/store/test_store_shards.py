"""Shards: what was committed survives SIGKILL and damage elsewhere in the file."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from store_records import assert_same, make

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor, make_id

DRIVER = Path(__file__).with_name("shard_writer_driver.py")


def tasks(count: int) -> list[str]:
    return [make_id("shard", "task", i) for i in range(count)]


def write(path: Path, groups: int = 4) -> list[Candidate]:
    """A shard of 5 results a commit, the last of each a failure; sealed."""
    records, names = make(Candidate, 5 * groups), tasks(5 * groups)
    writer = store.ShardWriter(path, Candidate)
    for i, (record, name) in enumerate(zip(records, names, strict=True)):
        writer.append(Failure(name, "x", "k", f"{i}") if i % 5 == 4 else record, name)
        if i % 5 == 4:
            assert writer.pending == 5
            assert writer.commit() == i + 1
    writer.seal()
    writer.seal()
    return records


def test_round_trip(tmp_path: Path) -> None:
    records = write(tmp_path / "s.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]
    shard = store.read_shard(tmp_path / "s.h5", Candidate)
    found = dict(shard)
    assert shard.damaged == 0
    assert list(found) == tasks(20)
    for i, (record, name) in enumerate(zip(records, tasks(20), strict=True)):
        if i % 5 == 4:
            assert found[name] == Failure(name, "x", "k", f"{i}")
        else:
            assert_same(found[name], record)


def test_only_what_is_committed_counts(tmp_path: Path) -> None:
    writer = store.ShardWriter(tmp_path / "s.h5", Survivor)
    first, second = make(Survivor, 2)
    writer.append(first, "a")
    writer.commit()
    writer.append(second, "b")
    assert [t for t, _ in store.read_shard(tmp_path / "s.h5.part", Survivor)] == ["a"]
    writer.close()
    assert [t for t, _ in store.read_shard(tmp_path / "s.h5.part", Survivor)] == ["a"]
    with pytest.raises(TypeError, match="gave str"):
        store.ShardWriter(tmp_path / "t.h5", Survivor).append("nonsense", "a")
    with pytest.raises(FileExistsError):
        store.ShardWriter(tmp_path / "s.h5", Survivor)


@pytest.mark.parametrize("run", range(6))
def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path, run: int) -> None:
    path = tmp_path / "s.h5"
    process = subprocess.Popen([sys.executable, str(DRIVER), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05 + 0.037 * run)
    process.kill()
    acknowledged = [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    assert acknowledged, "killed before it did anything"
    found = list(store.read_shard(path.with_name("s.h5.part"), Relaxation))
    assert len(found) >= acknowledged[-1]
    records = make(Relaxation, 50)
    for count, (task, result) in enumerate(sorted(found, key=lambda x: _index(x[0]))):
        assert _index(task) == count
        if count % 7 == 0:
            assert isinstance(result, Failure)
        else:
            assert_same(result, records[count % 50])


def _index(task: str, known: dict[str, int] = {}) -> int:  # noqa: B006 - a cache
    if not known:
        known.update({make_id("kill", "task", i): i for i in range(20000)})
    return known[task]


@pytest.mark.parametrize("dataset", ["task", "lattice", "table/residual", "table/seconds", "failures/kind"])
def test_a_damaged_commit_is_left_out_and_the_others_stay(tmp_path: Path, dataset: str) -> None:
    path = tmp_path / "s.h5"
    write(path)
    with h5py.File(path, "r+") as f:
        data = f["00000001"][dataset]
        data[0] = b"x" if data.dtype.kind in "SO" else 17.25
    shard = store.read_shard(path, Candidate)
    assert [t for t, _ in shard] == [t for i, t in enumerate(tasks(20)) if i // 5 != 1]
    assert shard.damaged == 1


def test_a_torn_commit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    with h5py.File(path, "r+") as f:
        del f["00000003"].attrs["committed"]
        del f["00000002/table/repair"]
    shard = store.read_shard(path, Candidate)
    assert [t for t, _ in shard] == tasks(10)
    assert shard.damaged == 2


@pytest.mark.parametrize("keep", [0, 4, 96, 800])
def test_a_file_that_never_got_anywhere_is_left_out(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "s.h5"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    shard = store.read_shard(path, Candidate)
    assert list(shard) == []
    assert shard.damaged == 1


def test_shards_of_other_records_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    with pytest.raises(StoreError, match=r"holds hpcgen\.candidates"):
        list(store.read_shard(tmp_path / "s.h5", Relaxation))
