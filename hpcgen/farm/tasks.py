"""Doing tasks on one rank: results into the shard, the journal before each task, suspects in a process of their own."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import FarmConfig
from hpcgen.errors import DeviceFailure, Failure, HpcgenError
from hpcgen.farm.attempts import Journal, journal_path
from hpcgen.farm.messages import Tally
from hpcgen.farm.shards import shard_path
from hpcgen.farm.signals import StopFlag, TaskDropped, TaskOverdue
from hpcgen.farm.solo import raised, run_alone
from hpcgen.farm.units import Units
from hpcgen.progress import duration

log = logging.getLogger("hpcgen")
Results = list[tuple[int, Any]]
"""(index of a task, its record or `Failure`)."""
WorkAll = Callable[[list[int]], Sequence[Any]]
COMMIT_SECONDS = 0.5  # what a kill can cost each rank
COMMIT_RESULTS = 512  # bounds memory: a commit takes about 5 ms, whether of 1 result or of 100
RAISED_IN_A_ROW = 10  # that is no bad item but a bug or a broken node


class Hands:
    """The tasks of one rank in one start.

    Args:
        task_ids: (M,) S16.
        units: which of them are done together.
        work: indices of a unit, or of one task of it -> record or `Failure` of each.
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
        units: Units,
        work: WorkAll,
        name_of: Callable[[int], str],
        record_type: type,
        shards: Path | None,
        config: FarmConfig,
        label: str,
        stop: StopFlag,
        tally: Tally,
    ) -> None:
        self._ids, self._units, self._work, self._name_of = task_ids, units, work, name_of
        self._type, self._folder, self._config, self._label = record_type, shards, config, label
        self._stop, self._tally = stop, tally
        self._writer: store.ShardWriter | None = None
        self._journal: Journal | None = None
        self._failed = 0  # failures since the last commit
        self._raised: Results = []  # kept back until another task shows that it was no bug
        self._in_a_row = 0
        self._last_commit = time.monotonic()

    def open(self, start: int, rank: int) -> None:
        """Begin a start of the farm, as this rank of it; shard and journal are made with the first task."""
        self._start, self._rank = start, rank

    def do(self, unit: int) -> None:
        """One task or group.

        Raises:
            DeviceFailure: if the accelerator failed; the unit is not done, and this rank can do no other.
            HpcgenError: if no task can be done, such as for a missing package.
        """
        began = time.monotonic()
        members = self._units[unit]
        if self._folder is not None:
            self._note(members[0])
        caught: list[Failure] = []
        results = self._attempt(members, caught)
        if results is None:
            self._tally.busy += time.monotonic() - began
            log.warning("%s: %s was dropped for the stop signal", self._label, self._named(members))
        elif len(caught) == len(results):
            self._raised += results
        else:
            self._store(results, began)

    def do_alone(self, unit: int, kills: int) -> None:
        """A unit that has killed `kills` processes, in a process of its own, until it is done or set aside."""
        began = time.monotonic()
        members = self._units[unit]
        self._note(members[0])
        log.info(
            "%s: %s was in hand when its process died, so it runs in one of its own", self._label, self._named(members)
        )
        results = self._attempt_alone(members, kills)
        if results is not None:
            self._store(results, began)

    def _attempt(self, members: list[int], caught: list[Failure]) -> Results | None:
        """The results of these tasks, in this process; None if they were dropped. `caught`: what was raised."""
        stop = self._stop
        try:
            stop.begin()
            results = list(zip(members, self._work(members), strict=True))
            stop.end()
            self._in_a_row = 0
            return results
        except TaskOverdue:
            if len(members) == 1:
                return [self._overdue(members[0])]
        except TaskDropped:
            return None
        except (DeviceFailure, HpcgenError):
            raise
        except Exception as error:
            stop.end()
            log.error("%s: %s raised:\n%s", self._label, self._named(members), traceback.format_exc())
            if len(members) == 1:
                caught.append(self._caught(members[0], error))
                return [(members[0], caught[-1])]
        finally:
            stop.end()
        return self._one_by_one(members, lambda member: self._attempt([member], caught))

    def _attempt_alone(self, members: list[int], kills: int) -> Results | None:
        """The results of these tasks, from a process of their own; None if it was stopped."""
        assert self._folder is not None
        names = [self._id(member) for member in members]
        output = self._folder / f"solo-{self._start:04d}-{self._rank:05d}.h5"
        reason = ""
        kills = min(kills, self._config.max_kills - 1)  # being in hand proves nothing: every suspect gets a run alone
        while kills < self._config.max_kills:
            outcome = run_alone(
                self._label, names, output, self._type, self._config.task_limit, lambda: self._stop.raised
            )
            if outcome.results:
                return list(zip(members, outcome.results, strict=True))
            if self._stop.raised:
                return None
            if outcome.overdue:
                if len(members) == 1:
                    return [self._overdue(members[0])]
                break
            if not outcome.died:
                raise RuntimeError(f"{self._named(members)} in a process of its own: {outcome.error}")
            kills += 1
            reason = outcome.died + (f": {outcome.error.splitlines()[0]}" if outcome.error else "")
            assert self._journal is not None
            self._journal.killed(bytes(self._ids[members[0]]))
        if len(members) > 1:
            return self._one_by_one(members, lambda member: self._attempt_alone([member], 0))
        log.error("%s: task %s has killed %d processes and is set aside: %s", self._label, names[0], kills, reason)
        message = f"killed {kills} processes, the last, which ran nothing else, by {reason}"
        return [(members[0], self._failure(members[0], "killed-its-process", message))]

    def _one_by_one(self, members: list[int], attempt: Callable[[int], Results | None]) -> Results | None:
        """One task of a group is to blame: the results of each alone, None if the run is to stop."""
        log.warning("%s: %s did not succeed, so its tasks are done one by one", self._label, self._named(members))
        out: Results = []
        for member in members:
            results = None if self._stop.raised else attempt(member)
            if results is None:
                return None
            out += results
        return out

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

    def _store(self, results: Results, began: float) -> None:
        """Keep all results of a unit, which one commit then holds whole."""
        results, self._raised = self._raised + results, []
        if self._folder is None:
            self._tally.done += len(results)
        else:
            if self._writer is None:  # ranks without a result leave no file
                self._writer = store.ShardWriter(shard_path(self._folder, self._start, self._rank), self._type)
            for index, result in results:
                self._writer.append(result, self._id(index))
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

    def _id(self, index: int) -> str:
        return self._ids[index].decode("ascii")

    def _named(self, members: list[int]) -> str:
        """For messages."""
        first = self._id(members[0])
        return f"task {first}" if len(members) == 1 else f"the group of {len(members)} tasks from {first} on"

    def _failure(self, index: int, kind: str, message: str) -> Failure:
        return Failure(self._name_of(index), self._label, kind, message)

    def _overdue(self, index: int) -> tuple[int, Failure]:
        limit = duration(self._config.task_limit)
        log.error("%s: task %s took longer than %s and is set aside", self._label, self._id(index), limit)
        return index, self._failure(index, "time-limit", f"took longer than farm.task_limit ({limit})")

    def _caught(self, index: int, error: Exception) -> Failure:
        """A task that raises is a failure; many in a row are not, and end the run."""
        self._in_a_row += 1
        if self._in_a_row >= RAISED_IN_A_ROW:
            self._raised.clear()
            raise RuntimeError(f"{RAISED_IN_A_ROW} tasks in a row raised, the last one {self._id(index)}") from error
        return raised(self._name_of(index), self._label, error)

    def _keep_failures(self) -> None:
        if self._raised:
            self._store([], time.monotonic())
