"""Writes on a disk that is too small: `full_disk_driver.py FOLDER`, a folder of about 1 MB with a file `ballast`.

Prints `acknowledged N`, `message`, then what happened after space was made. Must end with exit code 0: HDF5 used to
crash the process here, in the write or at its end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from store_records import make

from hpcgen import store
from hpcgen.errors import StoreError
from hpcgen.flow import Candidate, make_id


def shard(folder: Path) -> None:
    """Commit until the disk is full, make space, go on."""
    records = make(Candidate, 50)
    writer = store.ShardWriter(folder / "s.frames", Candidate)
    count = acknowledged = 0
    try:
        while True:
            for _ in range(7):
                task = make_id("full", "task", count)
                writer.append(records[count % 50], task)
                count += 1
            acknowledged = writer.commit()
    except StoreError as error:
        print(f"acknowledged {acknowledged}\n{error}", flush=True)
    found = sum(1 for _ in store.read_shard(folder / "s.frames.part", Candidate))
    assert found == acknowledged == writer.committed
    assert writer.pending == 7
    for attempt in (writer.commit, writer.seal, lambda: store.ShardWriter(folder / "other.frames", Candidate)):
        try:
            attempt()
        except StoreError:
            continue
        raise AssertionError("that was no full disk")
    assert not (folder / "other.frames.part").exists()
    (folder / "ballast").unlink()
    writer.seal()
    shard = store.read_shard(folder / "s.frames", Candidate)
    assert [task for task, _ in shard] == [make_id("full", "task", i) for i in range(count)]
    assert shard.damaged == 0
    print(f"sealed {count}", flush=True)


def output(folder: Path) -> None:
    """Write a file into less and less space, so that the disk is full at every point of it."""
    records = make(Candidate, 400)
    store.write(folder / "whole.h5", Candidate, records)
    size = (folder / "whole.h5").stat().st_size
    (folder / "whole.h5").unlink()
    total = free(folder)
    refused = 0
    for space in range(0, size + 8192, max(4096, size // 25)):
        (folder / "ballast").write_bytes(bytes(max(0, total - space)))
        try:
            store.write(folder / "out.h5", Candidate, records)
        except StoreError as error:
            refused += "the file system is full" in str(error)
        else:
            with store.open(folder / "out.h5") as f:
                f.verify()
            (folder / "out.h5").unlink()
        assert sorted(p.name for p in folder.iterdir()) == ["ballast"]
        (folder / "ballast").unlink()
    print(f"refused {refused}", flush=True)


def free(folder: Path) -> int:
    """Free bytes of the file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


if __name__ == "__main__":
    {"shard": shard, "output": output}[sys.argv[1]](Path(sys.argv[2]))
