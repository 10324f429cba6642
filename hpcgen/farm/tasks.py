"""Doing tasks on one rank: results into the shard, the journal before each task, suspects in a process of their own."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import FarmConfig
from hpcgen.errors import DeviceFailure, Failure, HpcgenError
from hpcgen.farm.attempts import Journal, journal_path
from hpcgen.farm.messages import Tally
from hpcgen.farm.progress import duration
from hpcgen.farm.shards import shard_path
from hpcgen.farm.signals import StopFlag, TaskDropped, TaskOverdue
from hpcgen.farm.solo import raised, run_alone

log = logging.getLogger("hpcgen")
COMMIT_SECONDS = 0.5  # what a kill can cost each rank
COMMIT_RESULTS = 512  # bounds memory: a commit takes about 5 ms, whether of 1 result or of 100
RAISED_IN_A_ROW = 10  # that is no bad item but a bug or a broken node


class Hands:
    """The tasks of one rank in one start.

    Args:
        task_ids: (M,) S16.
        work: index -> record or `Failure`.
        name_of: index -> what a failure made here is filed under.
        record_type: of the results.
        shards: folder, or None: results are dropped.
        config: limits.
        label: the stage.
        stop: the flag and the clock.
        tally: kept up to date.
    """

    def __init__(
        self,
        task_ids: NDArray[np.bytes_],
        work: Callable[[int], Any],
        name_of: Callable[[int], str],
        record_type: type,
        shards: Path | None,
        config: FarmConfig,
        label: str,
        stop: StopFlag,
        tally: Tally,
    ) -> None:
        self._ids, self._work, self._name_of, self._type = task_ids, work, name_of, record_type
        self._folder, self._config, self._label, self._stop, self._tally = shards, config, label, stop, tally
        self._writer: store.ShardWriter | None = None
        self._journal: Journal | None = None
        self._failed = 0  # failures since the last commit
        self._raised: list[tuple[int, Failure]] = []
        self._last_commit = time.monotonic()

    def open(self, start: int, rank: int) -> None:
        """Begin a start of the farm, as this rank of it; shard and journal are made with the first task."""
        self._start, self._rank = start, rank

    def do(self, index: int) -> None:
        """One task.

        Raises:
            DeviceFailure: if the accelerator failed; the task is not done, and this rank can do no other.
            HpcgenError: if no task can be done, such as for a missing package.
        """
        stop = self._stop
        began = time.monotonic()
        if self._folder is not None:
            self._note(index)
        try:
            stop.begin()
            result = self._work(index)
            stop.end()
        except TaskOverdue:
            result = self._overdue(index)
        except TaskDropped:
            self._tally.busy += time.monotonic() - began
            log.warning("%s: task %s was dropped for the stop signal", self._label, self._name(index))
            return
        except (DeviceFailure, HpcgenError):
            raise
        except Exception as error:
            stop.end()
            self._keep_raised(index, error)
            return
        finally:
            stop.end()
        self._store(index, result, began)

    def do_alone(self, index: int, kills: int) -> None:
        """A task that has killed `kills` processes, in a process of its own, until it is done or set aside."""
        began = time.monotonic()
        assert self._folder is not None
        self._note(index)
        name = self._name(index)
        output = self._folder / f"solo-{self._start:04d}-{self._rank:05d}.h5"
        reason = ""
        kills = min(kills, self._config.max_kills - 1)  # being in hand proves nothing: every suspect gets a run alone
        log.info("%s: task %s was in hand when its process died, so it runs in one of its own", self._label, name)
        while kills < self._config.max_kills:
            outcome = run_alone(
                self._label, name, output, self._type, self._config.task_limit, lambda: self._stop.raised
            )
            if outcome.overdue:
                return self._store(index, self._overdue(index), began)
            if outcome.result is not None:
                return self._store(index, outcome.result, began)
            if self._stop.raised:
                return None
            if not outcome.died:
                raise RuntimeError(f"task {name} in a process of its own: {outcome.error}")
            kills += 1
            reason = outcome.died + (f": {outcome.error.splitlines()[0]}" if outcome.error else "")
            assert self._journal is not None
            self._journal.killed(bytes(self._ids[index]))
        log.error("%s: task %s has killed %d processes and is set aside: %s", self._label, name, kills, reason)
        message = f"killed {kills} processes, the last, which ran nothing else, by {reason}"
        return self._store(index, self._failure(index, "killed-its-process", message), began)

    def settle(self) -> None:
        """Nothing is in hand for a while: commit."""
        self._stop.rest()
        self._keep_failures()
        if self._writer is not None and self._writer.pending:
            self._commit()
        if self._journal is not None:
            self._journal.idle()

    def seal(self) -> None:
        """End of this start on this rank."""
        self._stop.rest()
        self._keep_failures()
        if self._writer is not None:
            self._commit()
            self._writer.seal()
            self._writer = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _note(self, index: int) -> None:
        if self._journal is None:
            assert self._folder is not None
            self._journal = Journal(journal_path(self._folder, self._start, self._rank))
        self._journal.begin(bytes(self._ids[index]))

    def _store(self, index: int, result: Any, began: float) -> None:
        if self._raised:
            self._keep_failures()
        if self._folder is None:
            self._tally.done += 1
        else:
            if self._writer is None:  # ranks without a result leave no file
                self._writer = store.ShardWriter(shard_path(self._folder, self._start, self._rank), self._type)
            self._writer.append(result, self._name(index))
            self._failed += isinstance(result, Failure)
            if self._writer.pending >= COMMIT_RESULTS or time.monotonic() - self._last_commit >= COMMIT_SECONDS:
                self._commit()
        self._tally.busy += time.monotonic() - began

    def _commit(self) -> None:
        assert self._writer is not None
        self._tally.done = self._writer.commit()
        self._tally.failed += self._failed
        self._failed = 0
        self._last_commit = time.monotonic()

    def _name(self, index: int) -> str:
        return self._ids[index].decode("ascii")

    def _failure(self, index: int, kind: str, message: str) -> Failure:
        return Failure(self._name_of(index), self._label, kind, message)

    def _overdue(self, index: int) -> Failure:
        limit = duration(self._config.task_limit)
        log.error("%s: task %s took longer than %s and is set aside", self._label, self._name(index), limit)
        return self._failure(index, "time-limit", f"took longer than farm.task_limit ({limit})")

    def _keep_raised(self, index: int, error: Exception) -> None:
        """A task that raises is a failure; many in a row are not, and end the run."""
        log.error("%s: task %s raised:\n%s", self._label, self._name(index), traceback.format_exc())
        self._raised.append((index, raised(self._name_of(index), self._label, error)))
        if len(self._raised) >= RAISED_IN_A_ROW:
            self._raised.clear()
            raise RuntimeError(f"{RAISED_IN_A_ROW} tasks in a row raised, the last one {self._name(index)}") from error

    def _keep_failures(self) -> None:
        waiting, self._raised = self._raised, []
        for index, failure in waiting:
            self._store(index, failure, time.monotonic())
