"""The shard folder of a farm: where each task's result lies, and the merge at the end."""

from __future__ import annotations

import logging
import os
import re
import time
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.errors import Failure, StoreError

log = logging.getLogger("hpcgen")
_NAME = re.compile(r"shard-(\d+)-(\d+)\.frames(\.part)?$")
_NOWHERE = -1
_PAUSE = 0.1  # seconds before the second look at a folder whose results are not all visible, doubled each time
_LONGEST_PAUSE = 3.0
_AT_ONCE = 4096  # commits noted together


def shard_path(folder: Path, start: int, rank: int) -> Path:
    """Where `rank` of the `start`-th start writes: unique, so that no start touches the shards of another."""
    return folder / f"shard-{start:04d}-{rank:05d}.frames"


def shard_files(folder: Path) -> list[Path]:
    """All shards, sealed or not, oldest start first, then by rank."""
    try:
        found = [path for path in folder.iterdir() if _NAME.match(path.name)]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda path: (*_age(path), path.name))


def next_start(folder: Path) -> int:
    """Number of the start that begins now, from 1."""
    return max((_age(path)[0] for path in shard_files(folder)), default=0) + 1


@dataclass(frozen=True)
class _Seen:
    """What was found in a shard, and what the file was like then.

    Attributes:
        number: its number in the catalogue.
        state: size and time of change.
        damaged: places where nothing could be read.
        strangers: results of tasks that are not of this run.
    """

    number: int
    state: tuple[int, int]
    damaged: int
    strangers: int


class Catalogue:
    """Where the first good result of each task lies. Results themselves are not kept.

    A `.part` is read like a sealed shard: its rank died, or is still writing. A commit in the making has no digest
    that fits, so what is read is whole in any case, and a later scan looks again at files that have changed.

    Args:
        folder: the shards.
        task_ids: (M,) S16, unique.
        record_type: type of the records.

    Raises:
        ValueError: if an id occurs twice.

    Attributes:
        done: (M,) bool, tasks with a result.
    """

    def __init__(self, folder: Path, task_ids: NDArray[np.bytes_], record_type: type) -> None:
        self.done = np.zeros(len(task_ids), dtype=bool)
        self._folder, self._ids, self._type = folder, task_ids, record_type
        self._sorted = np.argsort(task_ids)
        if (task_ids[self._sorted[1:]] == task_ids[self._sorted[:-1]]).any():
            raise ValueError("task ids are not unique")
        self._commit = np.full(len(task_ids), _NOWHERE, np.int32)
        self._row = np.zeros(len(task_ids), np.int32)
        self._atoms = np.zeros(len(task_ids), np.int32)
        self._is_record = np.zeros(len(task_ids), dtype=bool)
        self._files: list[Path] = []
        self._ages: list[tuple[int, int]] = []
        self._places = array("q")  # file, offset, length of each commit: three times 8 bytes instead of objects
        self._seen: dict[tuple[int, int], _Seen] = {}

    @property
    def damaged(self) -> int:
        """Places in the shards where no commit could be read: torn by a kill, or damaged."""
        return sum(seen.damaged for seen in self._seen.values())

    @property
    def strangers(self) -> int:
        """Results of tasks that are not of this run."""
        return sum(seen.strangers for seen in self._seen.values())

    @property
    def records(self) -> int:
        """Tasks whose result is a record; the others done have a failure."""
        return int(np.count_nonzero(self._is_record))

    def scan(self, start: int | None = None) -> None:
        """Look at the shards that are new or have changed, of one start or of all.

        Of doubles, which are equal, the oldest counts: first by start, then by rank, then by place in the shard.

        Raises:
            StoreError: if a shard was written for other records, by a newer version, or may not be read.
        """
        self._scan(start, again=False)

    def await_complete(self, patience: float = 30.0) -> None:
        """Scan until every task has a result: shared file systems may show files of other nodes late.

        Args:
            patience: seconds.

        Raises:
            StoreError: if results are still missing then, or as `scan`.
        """
        end, pause = time.monotonic() + patience, _PAUSE
        self.scan()
        while not self.done.all():
            left = end - time.monotonic()
            if left <= 0:
                missing = np.flatnonzero(~self.done)
                raise StoreError(
                    f"{len(missing)} of {len(self.done)} tasks have no result in {self._folder}, "
                    f"such as {self._ids[missing[0]].decode()}",
                    expected="one result per task",
                    remedy="run the same command again: it computes what is missing",
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
            with suppress(OSError):
                os.utime(self._folder)  # makes an NFS client ask the server instead of its cache
            self._scan(None, again=True)

    def failures(self) -> list[Failure]:
        """The failures among the results, in the order of the tasks.

        Raises:
            StoreError: if a shard cannot be read any more.
        """
        return self._picks(self.done & ~self._is_record).failures(self._type)

    def items(self) -> list[Any]:
        """One result per task, in the order of the tasks, all in memory.

        Raises:
            StoreError: if a task has no result, or a shard cannot be read any more.
        """
        self.await_complete(0.0)
        return self._picks(self.done).results(self._type)

    def write(
        self, path: Path, *, header: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Write all results to an output file, in the order of the tasks, with memory for a part of them only.

        The file equals what `store.write` makes of the same records and failures.

        Raises:
            StoreError: if a task has no result, a shard cannot be read any more, or the file cannot be written.
        """
        self.await_complete(0.0)
        records = self._picks(self._is_record)
        store.gather(path, self._type, records, failures=self.failures(), header=header, attrs=attrs)

    def _picks(self, chosen: NDArray[np.bool_]) -> store.Picks:
        places = np.array(self._places, np.int64).reshape(-1, 3)
        return store.Picks(self._files, places, self._commit[chosen], self._row[chosen], self._atoms[chosen])

    def _scan(self, start: int | None, again: bool) -> None:
        """As `scan`; `again`: look also at damaged shards that have not changed, since a file system may show holes."""
        strangers = self.strangers
        for path in shard_files(self._folder):
            if start is None or _age(path)[0] == start:
                self._look_at(path, again)
        if self.strangers > strangers:
            log.warning("%s: %d results belong to no task of this run and are left out", self._folder, self.strangers)

    def _look_at(self, path: Path, again: bool) -> None:
        """Read a shard, unless it is as it was."""
        age = _age(path)
        try:
            status = path.stat()
        except OSError:
            return  # sealed since the folder was listed, or hidden by NFS: the next scan sees it
        state, before = (status.st_size, status.st_mtime_ns), self._seen.get(age)
        if before is not None and before.state == state and not (again and before.damaged):
            return
        number = before.number if before is not None else len(self._files)
        if before is None:
            self._files.append(path)
            self._ages.append(age)
        shard, strangers = store.read_shard(path, self._type), 0
        places: list[store.Place] = []
        for place in shard.places():
            places.append(place)
            if len(places) == _AT_ONCE:
                strangers += self._note(number, places)
                places = []
        strangers += self._note(number, places)
        if shard.damaged != (before.damaged if before is not None else 0):
            shard.warn()
        self._seen[age] = _Seen(number, state, shard.damaged, strangers)

    def _note(self, file: int, places: list[store.Place]) -> int:
        """Note where the results of some commits lie; returns how many belong to no task."""
        if not places:
            return 0
        sizes = [len(place.tasks) for place in places]
        first = len(self._places) // 3
        for place in places:
            self._places.extend((file, place.offset, place.length))
        task = self._tasks_of(np.concatenate([place.tasks for place in places]))
        commit = first + np.repeat(np.arange(len(places)), sizes)
        row = np.concatenate([np.arange(size) for size in sizes])
        is_record = row < np.repeat([place.records for place in places], sizes)
        atoms = np.concatenate([place.atoms for place in places])
        kept = np.flatnonzero((task >= 0) & self._is_new(file, task))[::-1]  # of doubles numpy keeps the last one set
        self.done[task[kept]] = True
        for column, values in (
            (self._commit, commit),
            (self._row, row),
            (self._atoms, atoms),
            (self._is_record, is_record),
        ):
            column[task[kept]] = values[kept]
        return int(np.count_nonzero(task < 0))

    def _is_new(self, file: int, task: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether results in `file` of these tasks come before those known, if any are known."""
        new = ~self.done[task]
        for i in np.flatnonzero(~new).tolist():
            known = self._places[3 * int(self._commit[task[i]])]
            new[i] = self._ages[file] < self._ages[known]
        return new

    def _tasks_of(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Index of the task of each id, -1 for strangers."""
        if not len(self._ids):
            return np.full(len(ids), -1)
        at = np.searchsorted(self._ids, ids, sorter=self._sorted)
        index = self._sorted[np.minimum(at, len(self._ids) - 1)]
        return np.where(self._ids[index] == ids, index, -1)


def _age(path: Path) -> tuple[int, int]:
    """(start, rank) of a shard."""
    match = _NAME.match(path.name)
    assert match is not None
    return int(match.group(1)), int(match.group(2))
