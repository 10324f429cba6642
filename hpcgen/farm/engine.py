"""The farm: every task computed at least once, every result counted exactly once."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen import __version__, store
from hpcgen.config import FarmConfig
from hpcgen.errors import EXIT_INTERNAL, EXIT_REQUEUE, Failure, HpcgenError, LaunchError
from hpcgen.farm.progress import Progress
from hpcgen.farm.ranks import Coordinator, Source, Tally, Worker
from hpcgen.farm.schedule import Schedule, order_of
from hpcgen.farm.shards import merge, next_start, scan, shard_path
from hpcgen.farm.signals import StopFlag
from hpcgen.farm.world import World, wait
from hpcgen.farm.world import world as launched_world

log = logging.getLogger("hpcgen")
COMMIT_SECONDS = 0.5  # what a kill can cost each rank
COMMIT_RESULTS = 512  # bounds memory: a commit takes about 5 ms, whether of 1 result or of 100


@dataclass(frozen=True)
class FarmResult:
    """What rank 0 gets.

    Attributes:
        items: (M) a record or a `Failure` per task, in the order of the tasks.
        seconds: wall time of this start.
        busy: (ranks,) share of that time that each rank spent on tasks.
        resumed: results that earlier starts had committed.
    """

    items: list[Any]
    seconds: float
    busy: NDArray[np.float64]
    resumed: int

    @property
    def records(self) -> list[Any]:
        """The items that are no failures, in order."""
        return [item for item in self.items if not isinstance(item, Failure)]

    @property
    def failures(self) -> list[Failure]:
        """The failures, in order."""
        return [item for item in self.items if isinstance(item, Failure)]


def run(
    task_ids: Sequence[str],
    costs: ArrayLike,
    work: Callable[[int], Any],
    record_type: type,
    *,
    shards: Path,
    config: FarmConfig,
    label: str,
    world: World | None = None,
) -> FarmResult | None:
    """Do every task that has no committed result yet, and gather all results on rank 0.

    Every rank calls it with the same tasks. Which rank does which task, and how often the run was killed, does
    not change the items.

    Args:
        task_ids: (M) unique ids, at most 16 ASCII characters.
        costs: (M,) estimated seconds of each task; only the schedule depends on them.
        work: index of a task -> a record of `record_type` or a `Failure`; must depend on nothing but the task.
        record_type: a type that the store knows.
        shards: folder for the shards, seen by all ranks; kept until `finish`.
        config: chunk size and log interval.
        label: name of the stage, for messages.
        world: the ranks; default: those that the launcher started.

    Returns:
        The result on rank 0, None on the others.

    Raises:
        LaunchError: on all ranks, if they do not have the same tasks or the same version of hpcgen.
        StoreError: if shards in the folder hold other records.
        SystemExit: with code 75, after SIGTERM or SIGUSR1, with everything done so far committed.
    """
    world = world or launched_world()
    _check_agreement(world, task_ids)
    try:
        return _Farm(world, task_ids, work, record_type, shards, config, label).run(costs)
    except BaseException as error:
        if world.size == 1 or (isinstance(error, SystemExit) and error.code == EXIT_REQUEUE):
            raise
        # The others wait for messages of this rank, so an exception here may not just unwind.
        if isinstance(error, HpcgenError):
            print(f"rank {world.rank}: {error}", file=sys.stderr)
            world.abort(error.exit_code)
        print(f"rank {world.rank} of {world.size}, {label}:\n{traceback.format_exc()}", file=sys.stderr)
        world.abort(EXIT_INTERNAL)
        raise


class _Farm:
    """One start of a farm on one rank."""

    def __init__(
        self,
        world: World,
        task_ids: Sequence[str],
        work: Callable[[int], Any],
        record_type: type,
        shards: Path,
        config: FarmConfig,
        label: str,
    ) -> None:
        self._world, self._ids, self._work, self._type = world, task_ids, work, record_type
        self._shards, self._config, self._label = shards, config, label
        self._writer: store.ShardWriter | None = None
        self._failed = 0  # failures since the last commit
        self._last_commit = time.monotonic()
        self._tally = Tally()

    def run(self, costs: ArrayLike) -> FarmResult | None:
        began = time.monotonic()
        self._order, self._costs, self._start = self._plan(costs)
        with StopFlag() as stop:
            self._stop = stop
            source: Source
            coordinator = None
            if self._world.rank == 0:
                resumed = len(self._ids) - len(self._order)
                progress = Progress(self._label, len(self._ids), resumed, self._config.log_interval)
                schedule = Schedule(self._costs, self._world.size, self._config.chunk_seconds)
                source = coordinator = Coordinator(self._world, schedule, stop, progress)
            else:
                source = Worker(self._world, stop)
            self._consume(source)
            source.finish(self._tally)
            done = sum(t.done for t in coordinator.tallies) if coordinator else 0
            complete = self._share(np.array([done == len(self._order)], dtype=np.uint8))[0]
        seconds = time.monotonic() - began
        if coordinator:
            busy = np.array([t.busy / seconds for t in coordinator.tallies])
            progress.close(busy, seconds)
        if not complete:
            if coordinator:
                left = len(self._order) - done
                log.warning("%s: stopped by a signal, everything done is saved, %d tasks are left", self._label, left)
            raise SystemExit(EXIT_REQUEUE)
        if not coordinator:
            return None
        return FarmResult(merge(self._shards, self._ids, self._type), seconds, busy, resumed)

    def _plan(self, costs: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Rank 0 looks at what is done; all ranks learn the open tasks in order, their costs and the start's number."""
        order, cost, head = np.zeros(0, np.int64), np.zeros(0), np.zeros(2, np.int64)
        if self._world.rank == 0:
            self._shards.mkdir(parents=True, exist_ok=True)
            order = order_of(costs, scan(self._shards, self._ids, self._type))
            cost = np.asarray(costs, dtype=np.float64)[order]
            head = np.array([len(order), next_start(self._shards)], dtype=np.int64)
        pending, start = (int(v) for v in self._share(head))
        if self._world.rank != 0:
            order, cost = np.empty(pending, np.int64), np.empty(pending)
        return self._share(order), self._share(cost), start

    def _consume(self, source: Source) -> None:
        """Work until the source has nothing more, then seal."""
        try:
            while not self._stop.raised and (chunk := source.next(self._tally)) is not None:
                for position in range(*chunk):
                    self._do(position)
                    self._tally.stopped = self._stop.raised
                    if source.between_tasks(self._tally):
                        break
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                self._seal()
            raise
        self._tally.stopped = self._stop.raised
        self._seal()

    def _do(self, position: int) -> None:
        index = int(self._order[position])
        began = time.monotonic()
        try:
            result = self._work(index)
            self._shard().append(result, self._ids[index])
        except BaseException:
            log.error("rank %d: task %s (%s) raised", self._world.rank, self._ids[index], self._label)
            raise
        self._failed += isinstance(result, Failure)
        if self._shard().pending >= COMMIT_RESULTS or time.monotonic() - self._last_commit >= COMMIT_SECONDS:
            self._commit()
        self._tally.busy += time.monotonic() - began
        self._tally.estimated += float(self._costs[position])

    def _shard(self) -> store.ShardWriter:
        """This rank's shard, made with the first result: ranks without one leave no file."""
        if self._writer is None:
            path = shard_path(self._shards, self._start, self._world.rank)
            self._writer = store.ShardWriter(path, self._type)
        return self._writer

    def _commit(self) -> None:
        self._tally.done = self._shard().commit()
        self._tally.failed += self._failed
        self._failed = 0
        self._last_commit = time.monotonic()

    def _seal(self) -> None:
        if self._writer is not None:
            self._commit()
            self._writer.seal()

    def _share(self, data: NDArray[Any]) -> NDArray[Any]:
        """Rank 0's array on every rank."""
        if self._world.comm is not None:
            wait(self._world.comm.Ibcast(data, root=0))
        return data


def _check_agreement(world: World, task_ids: Sequence[str]) -> None:
    """Raise on every rank if the ranks do not have the same tasks and version."""
    if len(set(task_ids)) != len(task_ids):
        raise ValueError("task ids are not unique")
    if world.comm is None:
        return
    mine = hashlib.blake2b("\n".join([__version__, *task_ids]).encode(), digest_size=32).digest()
    everybody = np.empty((world.size, 32), dtype=np.uint8)
    wait(world.comm.Iallgather(np.frombuffer(mine, dtype=np.uint8), everybody))
    other = np.flatnonzero((everybody != everybody[0]).any(axis=1))
    if len(other):
        raise LaunchError(
            f"ranks {', '.join(map(str, other[:8]))} have other tasks, or another version of hpcgen, than rank 0",
            expected="the same configuration, input files and installation on every node",
            remedy="check that all nodes see the same file system and activate the same environment",
        )
