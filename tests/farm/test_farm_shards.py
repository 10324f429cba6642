"""The catalogue of the shards: what counts, what is left out, what is waited for, and the merge."""

from __future__ import annotations

import logging
import os
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure, StoreError
from hpcgen.farm.shards import Catalogue, next_start, shard_files, shard_path
from hpcgen.flow import Candidate, Entry


def entry(name: str, source: str = "here") -> Entry:
    n = 1 + sum(name.encode()) % 3
    return Entry(name, Crystal(3 * np.eye(3), np.zeros((n, 3)), np.full(n, 84)), source, "train")


def write(folder: Path, start: int, rank: int, names: list[str], seal: bool = True, commit: int = 2) -> Path:
    """A shard; names in capitals fail. Entries say which shard they come from."""
    folder.mkdir(exist_ok=True)
    writer = store.ShardWriter(shard_path(folder, start, rank), Entry)
    where = f"{start}/{rank}"
    for i, name in enumerate(names, 1):
        writer.append(Failure(name, "x", where, "") if name.isupper() else entry(name, where), name)
        if i % commit == 0:
            writer.commit()
    writer.commit()
    writer.seal() if seal else writer.close()
    return shard_path(folder, start, rank) if seal else Path(f"{shard_path(folder, start, rank)}.part")


def task_ids(text: str) -> NDArray[np.bytes_]:
    return np.array(list(text), "S16")


def catalogue(folder: Path, tasks: str) -> Catalogue:
    out = Catalogue(folder, task_ids(tasks), Entry)
    out.scan()
    return out


def damage(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0x40
    path.write_bytes(data)


def test_names_of_shards(tmp_path: Path) -> None:
    assert shard_files(tmp_path / "none") == []
    assert next_start(tmp_path / "none") == 1
    paths = [write(tmp_path, *key, ["a"], seal=key[1] != 3) for key in ((2, 3), (10, 0), (1, 12), (2, 100000))]
    (tmp_path / "shard-notes.txt").write_text("somebody's file")
    (tmp_path / "attempts-0011-00000.log").write_text("")
    assert shard_files(tmp_path) == [paths[2], paths[0], paths[3], paths[1]]
    assert next_start(tmp_path) == 11


def test_the_first_of_doubles_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, 2, 0, ["c", "a", "b"], seal=False)  # the second start was killed
    write(tmp_path, 1, 1, ["a", "D", "stranger", "a"])
    write(tmp_path, 1, 0, ["b", "D"])
    with caplog.at_level(logging.WARNING, "hpcgen"):
        found = catalogue(tmp_path, "abcDe")
    assert found.done.tolist() == [True, True, True, True, False]
    assert found.records == 3
    assert found.strangers == 1
    assert found.damaged == 0
    assert caplog.text.count("1 results belong to no task of this run") == 1
    assert [f.kind for f in found.failures()] == ["1/0"]
    write(tmp_path, 3, 0, ["e"])
    found.scan(3)
    items = found.items()
    assert [i.id for i in items] == list("abcDe")
    assert [i.source for i in items if isinstance(i, Entry)] == ["1/1", "1/0", "2/0", "3/0"]


def test_an_older_shard_that_shows_up_later_wins(tmp_path: Path) -> None:
    """The result must not depend on when a shared file system shows a file."""
    write(tmp_path, 2, 0, ["a", "b"])
    found = catalogue(tmp_path, "ab")
    write(tmp_path, 1, 7, ["b"])
    found.scan()
    assert [i.source for i in found.items()] == ["2/0", "1/7"]


def test_only_one_start_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, ["a"])
    write(tmp_path, 2, 0, ["b"])
    found = Catalogue(tmp_path, task_ids("ab"), Entry)
    found.scan(2)
    assert found.done.tolist() == [False, True]
    found.scan(1)
    assert found.done.all()


def test_a_shard_that_grows_and_is_sealed(tmp_path: Path) -> None:
    writer = store.ShardWriter(shard_path(tmp_path, 1, 0), Entry)
    writer.append(entry("a"), "a")
    writer.commit()
    found = catalogue(tmp_path, "abc")
    assert found.done.tolist() == [True, False, False]
    writer.append(entry("b"), "b")
    writer.commit()
    found.scan()
    assert found.done.tolist() == [True, True, False]
    writer.append(entry("c"), "c")
    writer.seal()  # the name changes under the catalogue
    assert found._picks(found.done).results(Entry)[1].id == "b"
    found.scan()
    assert [i.id for i in found.items()] == ["a", "b", "c"]


def test_damaged_commits_are_said_once_and_their_tasks_are_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, 1, 0, list("abcdef"))
    write(tmp_path, 1, 1, list("gh"), seal=False)
    (tmp_path / "shard-0001-00002.frames.part").write_bytes(b"")  # killed before its first commit
    damage(path, 0.5)
    with caplog.at_level(logging.WARNING, "hpcgen"):
        found = catalogue(tmp_path, "abcdefgh")
        found.scan()
        found.scan(1)
    assert np.flatnonzero(~found.done).tolist() == [2, 3]
    assert found.damaged == 2
    assert len([r for r in caplog.records if "no commit can be read" in r.message]) == 2
    write(tmp_path, 2, 0, list("cd"))
    found.scan(2)
    assert [i.id for i in found.items()] == list("abcdefgh")


def test_merge_is_what_writing_would_be(tmp_path: Path) -> None:
    shards, names = tmp_path / "shards", [f"task{i}" if i % 7 else f"FAIL{i}" for i in range(200)]
    order = np.random.default_rng(0).permutation(200)
    for rank, part in enumerate(np.array_split(order, 6)):
        write(shards, 1 + rank // 3, rank, [names[i] for i in part], seal=rank != 4, commit=3 + rank)
    found = Catalogue(shards, np.array(names, "S16"), Entry)
    found.scan()
    attrs = {"balance": "{}"}
    found.write(tmp_path / "merged.h5", header={"seed": 1}, attrs=attrs)
    items = found.items()
    failures = [i for i in items if isinstance(i, Failure)]
    records = [i for i in items if isinstance(i, Entry)]
    assert [i.id for i in items] == names
    assert found.failures() == failures
    assert found.records == len(records)
    store.write(tmp_path / "written.h5", Entry, records, failures=failures, header={"seed": 1}, attrs=attrs)
    with store.open(tmp_path / "merged.h5") as merged, store.open(tmp_path / "written.h5") as written:
        merged.verify()
        assert merged.attrs == written.attrs
        assert merged.ids == written.ids
        assert merged.failures == written.failures


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, ["a", "c"])
    found = catalogue(tmp_path, "abcd")
    for attempt in (
        found.items,
        lambda: found.write(tmp_path / "out.h5"),
        lambda: found.await_complete(0.2),
    ):
        with pytest.raises(StoreError, match=r"2 of 4 tasks have no result in .*, such as b") as error:
            attempt()
        assert "run the same command again" in error.value.remedy
    assert not (tmp_path / "out.h5").exists()


def test_late_files_are_waited_for(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, ["a"])
    found = catalogue(tmp_path, "abc")
    hidden = tmp_path.with_name("elsewhere")
    late = write(hidden, 1, 1, ["b", "c"])

    def show() -> None:
        time.sleep(0.5)
        late.rename(tmp_path / late.name)

    thread = threading.Thread(target=show)
    thread.start()
    found.await_complete(60.0)
    thread.join()
    assert found.done.all()


def test_a_hole_that_is_filled_later_is_looked_at_again(tmp_path: Path) -> None:
    """NFS may show the length of a file before its content, and the same time of change afterwards."""
    path = write(tmp_path, 1, 0, ["a", "b", "c"], commit=1)
    data, times = path.read_bytes(), path.stat()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = catalogue(tmp_path, "abc")
    assert not found.done.all()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found.await_complete(30.0)
    assert found.damaged == 0


def test_shards_of_other_records_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, ["a"])
    with pytest.raises(StoreError, match=r"holds hpcgen\.dataset \(Entry\)") as error:
        Catalogue(tmp_path, task_ids("a"), Candidate).scan()
    assert "delete" in error.value.remedy


def test_no_tasks_and_double_tasks(tmp_path: Path) -> None:
    found = catalogue(tmp_path, "")
    found.await_complete(0.0)
    found.write(tmp_path / "out.h5")
    assert found.items() == []
    with store.open(tmp_path / "out.h5") as f:
        assert len(f) == 0
    with pytest.raises(ValueError, match="not unique"):
        Catalogue(tmp_path, task_ids("aba"), Entry)


def test_many_tasks_take_little_memory(tmp_path: Path) -> None:
    """Rank 0 holds bytes, not objects, for each task and commit."""
    ids = np.array([f"{i:016x}" for i in range(20000)], "S16")
    for rank in range(4):
        writer = store.ShardWriter(shard_path(tmp_path, 1, rank), Entry)
        for i in range(rank, 20000, 4):
            writer.append(entry("a"), ids[i].decode())
            if writer.pending == 100:
                writer.commit()
        writer.seal()
    tracemalloc.start()
    found = Catalogue(tmp_path, ids, Entry)
    found.scan()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.done.all()
    assert held < 50 * len(ids)
