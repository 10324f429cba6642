"""The shard folder of a farm: what earlier starts left, and the merge at the end."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.errors import StoreError
from hpcgen.farm.world import world

log = logging.getLogger("hpcgen")
_NAME = re.compile(r"shard-(\d+)-(\d+)\.h5(\.part)?$")


def shard_path(folder: Path, start: int, rank: int) -> Path:
    """Where `rank` of the `start`-th start writes: unique, so that no start touches the shards of another."""
    return folder / f"shard-{start:04d}-{rank:05d}.h5"


def shard_files(folder: Path) -> list[Path]:
    """All shards, sealed or not, oldest start first."""
    return sorted(p for p in folder.glob("shard-*") if _NAME.match(p.name))


def next_start(folder: Path) -> int:
    """Number of the start that begins now, from 1."""
    found = (_NAME.match(p.name) for p in shard_files(folder))
    return max((int(m.group(1)) for m in found if m), default=0) + 1


def scan(folder: Path, task_ids: Sequence[str], record_type: type) -> NDArray[np.bool_]:
    """(M,) which tasks have a committed, undamaged result. Payloads are looked at and let go."""
    position = {task: i for i, task in enumerate(task_ids)}
    done = np.zeros(len(task_ids), dtype=bool)
    strangers = 0
    for path in shard_files(folder):
        for task, _ in store.read_shard(path, record_type):
            index = position.get(task)
            if index is None:
                strangers += 1
            else:
                done[index] = True
    if strangers:
        log.warning("%s: %d results belong to no task of this run and are left out", folder, strangers)
    return done


def merge(folder: Path, task_ids: Sequence[str], record_type: type) -> list[Any]:
    """One result per task, in the order of the tasks. Of doubles, which are equal, the first is kept.

    Raises:
        StoreError: if a task has no result.
    """
    found: dict[str, Any] = {}
    for path in shard_files(folder):
        for task, result in store.read_shard(path, record_type):
            found.setdefault(task, result)
    missing = [task for task in task_ids if task not in found]
    if missing:
        raise StoreError(
            f"{len(missing)} of {len(task_ids)} tasks have no result in {folder}, such as {missing[0]}",
            expected="one result per task",
            remedy="run the same command again: it computes what is missing",
        )
    return [found[task] for task in task_ids]


def finish(shards: Path) -> None:
    """Remove the shard folder, on rank 0, after the stage has written its output file."""
    if world().rank == 0 and shards.exists():
        shutil.rmtree(shards)
