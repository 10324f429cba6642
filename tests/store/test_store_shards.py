"""Shards: what was committed survives SIGKILL and damage elsewhere in the file."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_records import assert_same, make

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor, make_id
from hpcgen.store import shard_format

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
    records = write(tmp_path / "s.frames")
    assert [p.name for p in tmp_path.iterdir()] == ["s.frames"]
    shard = store.read_shard(tmp_path / "s.frames", Candidate)
    found = dict(shard)
    assert shard.damaged == 0
    assert list(found) == tasks(20)
    for i, (record, name) in enumerate(zip(records, tasks(20), strict=True)):
        if i % 5 == 4:
            assert found[name] == Failure(name, "x", "k", f"{i}")
        else:
            assert_same(found[name], record)


def test_only_what_is_committed_counts(tmp_path: Path) -> None:
    writer = store.ShardWriter(tmp_path / "s.frames", Survivor)
    first, second = make(Survivor, 2)
    writer.append(first, "a")
    writer.commit()
    writer.append(second, "b")
    assert [t for t, _ in store.read_shard(tmp_path / "s.frames.part", Survivor)] == ["a"]
    writer.close()
    assert [t for t, _ in store.read_shard(tmp_path / "s.frames.part", Survivor)] == ["a"]
    with pytest.raises(TypeError, match="gave str"):
        store.ShardWriter(tmp_path / "t.frames", Survivor).append("nonsense", "a")
    with pytest.raises(FileExistsError):
        store.ShardWriter(tmp_path / "s.frames", Survivor)


@pytest.mark.parametrize("run", range(6))
def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path, run: int) -> None:
    path = tmp_path / "s.frames"
    process = subprocess.Popen([sys.executable, str(DRIVER), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05 + 0.037 * run)
    process.kill()
    acknowledged = [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    assert acknowledged, "killed before it did anything"
    found = list(store.read_shard(path.with_name("s.frames.part"), Relaxation))
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
        known.update({make_id("kill", "task", i): i for i in range(200000)})
    return known[task]


def places(path: Path) -> list[store.Place]:
    return list(store.read_shard(path, Candidate).places())


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("place", ["mark", "length", "digest", "contents", "middle", "last byte"])
def test_a_damaged_commit_is_left_out_and_the_others_stay(tmp_path: Path, place: str) -> None:
    path = tmp_path / "s.frames"
    write(path)
    second = places(path)[1]
    within = {"mark": 3, "length": 10, "digest": 20, "contents": 50, "middle": second.length // 2}
    flip(path, second.offset + within.get(place, second.length - 1))
    shard = store.read_shard(path, Candidate)
    assert [t for t, _ in shard] == [t for i, t in enumerate(tasks(20)) if i // 5 != 1]
    assert shard.damaged == 1


def test_what_lies_between_commits_does_not_matter(tmp_path: Path) -> None:
    """Zeros, as a file system leaves them, a mark that is no frame, and an absurd length."""
    path = tmp_path / "s.frames"
    write(path)
    data, third = path.read_bytes(), places(path)[2].offset
    mark = data[:8]
    for rubbish in (bytes(5000), mark, mark + b"\xff" * 100, mark * 300):
        path.write_bytes(data[:third] + rubbish + data[third:])
        shard = store.read_shard(path, Candidate)
        assert [t for t, _ in shard] == tasks(20)
        assert shard.damaged >= 1


def test_a_damaged_head_costs_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "s.frames"
    write(path)
    flip(path, 40)
    shard = store.read_shard(path, Candidate)
    assert [t for t, _ in shard] == tasks(20)
    assert shard.damaged == 1
    other = store.read_shard(path, Relaxation)  # nothing says what it holds, but the digests do not fit
    assert list(other) == []


@pytest.mark.parametrize("seed", range(4))
def test_damage_anywhere_gives_right_results_or_none(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "s.frames"
    records = dict(zip(tasks(60), write(path, groups=12), strict=True))
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    lost = 0
    for _ in range(60):
        broken = bytearray(data[: rng.integers(len(data) + 1)] if rng.random() < 0.3 else data)
        for where in rng.integers(0, max(len(broken), 1), rng.choice([0, 1, 3, 30])):
            if broken:
                broken[where] = rng.integers(256)
        path.write_bytes(broken)
        shard = store.read_shard(path, Candidate)
        found = dict(shard)
        for task, result in found.items():
            if isinstance(result, Failure):
                assert result == Failure(task, "x", "k", str(tasks(60).index(task)))
            else:
                assert_same(result, records[task])
        lost += len(found) < 60
        assert shard.damaged > 0 or bytes(broken) == data or data.startswith(bytes(broken))
    assert lost > 20


@pytest.mark.parametrize("keep", [0, 4, 96, 800])
def test_a_file_that_never_got_anywhere_is_left_out(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "s.frames"
    write(path)
    path.write_bytes(path.read_bytes()[:keep])
    shard = store.read_shard(path, Candidate)
    assert list(shard) == []
    assert shard.damaged == 1


def test_shards_of_other_records_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s.frames")
    with pytest.raises(StoreError, match=r"holds hpcgen\.candidates \(Candidate\)") as error:
        list(store.read_shard(tmp_path / "s.frames", Relaxation))
    assert "hpcgen.relaxed (Relaxation)" in error.value.expected
    assert f"delete {tmp_path}" in error.value.remedy


def test_shards_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shard_format, "FORMAT", 7)
        patch.setattr(shard_format, "__version__", "9.9")
        write(tmp_path / "s.frames")
    with pytest.raises(StoreError, match=r"was written by hpcgen 9\.9 .*shard format 7") as error:
        places(tmp_path / "s.frames")
    assert "finish the run with hpcgen 9.9, or delete" in error.value.remedy


def test_a_missing_shard_is_damaged_and_a_sealed_one_found_by_its_old_name(tmp_path: Path) -> None:
    write(tmp_path / "s.frames")
    assert len(list(store.read_shard(tmp_path / "s.frames.part", Candidate))) == 20
    shard = store.read_shard(tmp_path / "t.frames", Candidate)
    assert list(shard) == []
    assert shard.damaged == 1
