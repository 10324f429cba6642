"""Shards: what one rank appends while it works, readable after any kill up to the last commit.

A shard is an HDF5 file with one group per commit, laid out like an output file. The digest of a group's content
is its commit marker: a group that was torn by a kill, or damaged later, has none that fits and does not count.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcgen.errors import Failure, StoreError
from hpcgen.store.opening import DAMAGE, match, open_hdf5
from hpcgen.store.schema import schema_of
from hpcgen.store.table import ID, Table, read_failures, write_failures
from hpcgen.store.writer import finish_digest, mark, publish, start_digest, update_digest

log = logging.getLogger("hpcgen")
PART = ".part"


class ShardWriter:
    """Appends records and failures to `path` + `.part`; `seal` gives the file its final name.

    Attributes:
        committed: results that are safe: they survive the death of this process.
        pending: results appended since the last commit.
    """

    def __init__(self, path: str | Path, record_type: type) -> None:
        self.path = Path(path)
        self.schema = schema_of(record_type)
        self.committed = 0
        self._commits = 0
        self._records: list[tuple[str, Any]] = []
        self._failures: list[tuple[str, Failure]] = []
        self._part = self.path.with_name(self.path.name + PART)
        # The default libver: files of libver="latest" cannot be opened after a kill (measured).
        self._h5: h5py.File | None = h5py.File(self._part, "x", locking=False)
        mark(self._h5, self.schema)
        self._h5.flush()

    @property
    def pending(self) -> int:
        return len(self._records) + len(self._failures)

    def append(self, result: Any, task_id: str) -> None:
        """Add the result of a task; it is safe after the next `commit`.

        Raises:
            TypeError: if it is neither a record of the shard's type nor a `Failure`.
        """
        if isinstance(result, Failure):
            self._failures.append((task_id, result))
        elif type(result) is self.schema.record_type:
            self._records.append((task_id, result))
        else:
            kind = self.schema.record_type.__name__
            raise TypeError(f"task {task_id} gave {type(result).__name__}, expected {kind} or Failure")

    def commit(self) -> int:
        """Make everything appended safe against the death of this process; returns the number of results so far.

        Raises:
            ValueError, TypeError: if a record does not fit its schema.
            OSError: if the file cannot be written.
        """
        if self._h5 is None:
            raise ValueError(f"{self.path} is sealed")
        if self.pending:
            table = Table.of(self.schema, [r for _, r in self._records])
            failures = [f for _, f in self._failures]
            tasks = np.array([t.encode("ascii") for t, _ in (*self._records, *self._failures)], dtype=ID)
            group = self._h5.create_group(f"{self._commits:08d}")
            group.create_dataset("task", data=tasks)
            table.write(group, bare=True)
            write_failures(group, failures, bare=True)
            group.attrs["committed"] = _commit_digest(table, failures, tasks)
            self._h5.flush()
            self._commits += 1
            self.committed += self.pending
            self._records, self._failures = [], []
        return self.committed

    def seal(self) -> None:
        """Commit, close and rename; a second call does nothing."""
        if self._h5 is None:
            return
        self.commit()
        self.close()
        publish(self._part, self.path)

    def close(self) -> None:
        """Close without sealing; what was committed stays readable."""
        if self._h5 is not None:
            self._h5.close()
            self._h5 = None


class Shard:
    """The committed results of one shard, sealed or not.

    Attributes:
        damaged: after iterating, commits that could not be read or whose content does not fit its digest.
    """

    def __init__(self, path: str | Path, record_type: type) -> None:
        self.path = Path(path)
        self.schema = schema_of(record_type)
        self.damaged = 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """(task id, record or Failure), records of a commit first.

        Raises:
            StoreError: if the shard was written for other records or by a newer version.
        """
        self.damaged = 0
        try:
            f = open_hdf5(self.path)
            names = sorted(f) if "schema" in f.attrs else []
        except (StoreError, *DAMAGE) as error:  # killed before its first flush: nothing in it was ever acknowledged
            log.warning("shard left out: %s", error)
            self.damaged = 1
            return
        with f:
            if "schema" in f.attrs:
                match(self.path, f, self.schema.record_type)
            for name in names:
                try:
                    results = self._read(f[name])
                except DAMAGE as error:
                    self.damaged += 1
                    log.warning("%s: commit %s is torn or damaged, so its tasks run again: %s", self.path, name, error)
                    continue
                yield from results

    def _read(self, group: h5py.Group) -> list[tuple[str, Any]]:
        table, failures = Table.read(group, self.schema), read_failures(group)
        tasks = group["task"][:]
        if group.attrs["committed"] != _commit_digest(table, failures, tasks):
            raise ValueError("the content does not fit its digest")
        ids = [t.decode("ascii") for t in tasks]
        return list(zip(ids, [*table.records(), *failures], strict=True))


def read_shard(path: str | Path, record_type: type) -> Shard:
    """The committed results of a shard: iterate for (task id, record or Failure), then look at `.damaged`."""
    return Shard(path, record_type)


def _commit_digest(table: Table, failures: list[Failure], tasks: Any) -> str:
    state = start_digest(table.schema)
    state.update(tasks.tobytes())
    update_digest(state, table, volatile=True)
    return finish_digest(state, failures)
