"""A full disk: a clear error, nothing acknowledged is lost, the process lives, and with more space the run goes on."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_records import make

from hpcgen import store
from hpcgen.errors import StoreError
from hpcgen.farm.shards import Catalogue, next_start, shard_path
from hpcgen.flow import Candidate, make_id

DRIVER = Path(__file__).with_name("full_disk_driver.py")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drive(what: str, folder: Path) -> str:
    """What the driver printed; it must not have been killed by a signal."""
    result = subprocess.run(
        [sys.executable, str(DRIVER), what, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def commit_each(writer: store.ShardWriter, results: list[tuple[Candidate, str]]) -> None:
    for record, task in results:
        writer.append(record, task)
        writer.commit()


def test_a_shard_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**19))
    said = drive("shard", small_disk)
    assert int(re.search(r"acknowledged (\d+)", said)[1]) > 100
    assert re.search(r"s\.frames\.part cannot be written: the file system is full \(0\.0 of 1\.0 MB free in ", said)
    assert re.search(r"the \d+ results committed before are safe", said)
    assert "remedy:   free some space, then run the same command again" in said
    assert "sealed" in said


def test_an_output_file_on_a_full_disk(small_disk: Path) -> None:
    refused = int(re.search(r"refused (\d+)", drive("output", small_disk))[1])
    assert refused >= 20


def test_a_restart_on_the_same_folder_goes_on(small_disk: Path) -> None:
    records = make(Candidate, 40)
    ids = np.array([make_id("full", "task", i).encode() for i in range(4000)], "S16")
    writer = store.ShardWriter(shard_path(small_disk, 1, 0), Candidate)
    with pytest.raises(StoreError, match="the file system is full"):
        commit_each(writer, [(records[i % 40], task.decode()) for i, task in enumerate(ids.tolist())])
    acknowledged = writer.committed
    assert acknowledged > 100
    writer.close()

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    catalogue = Catalogue(small_disk, ids, Candidate)
    catalogue.scan()
    assert np.flatnonzero(catalogue.done).tolist() == list(range(acknowledged))
    assert catalogue.damaged == 0
    assert next_start(small_disk) == 2
    writer = store.ShardWriter(shard_path(small_disk, 2, 0), Candidate)
    for i in np.flatnonzero(~catalogue.done).tolist():
        writer.append(records[i % 40], ids[i].decode())
    writer.seal()
    catalogue.await_complete(0.0)
    assert catalogue.records == 4000


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As on a full disk, but without the right to mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = store.ShardWriter(tmp_path / "s.frames", Candidate)
    records = make(Candidate, 300)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with pytest.raises(StoreError, match=r"File too large; the \d+ results committed before are safe"):
            commit_each(writer, [(record, f"{i:016x}") for i, record in enumerate(records)])
        assert (tmp_path / "s.frames.part").stat().st_size <= 50_000
        with pytest.raises(StoreError, match="File too large"):
            store.write(tmp_path / "out.h5", Candidate, records)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    acknowledged = writer.committed
    assert acknowledged > 20
    assert [p.name for p in tmp_path.iterdir()] == ["s.frames.part"]
    assert writer.commit() == acknowledged + 1
    assert [task for task, _ in store.read_shard(tmp_path / "s.frames.part", Candidate)] == [
        f"{i:016x}" for i in range(acknowledged + 1)
    ]
    writer.close()
