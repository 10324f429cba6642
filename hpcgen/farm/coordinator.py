"""Rank 0 of a farm: hands out chunks. A thread answers, so a rank 0 in the middle of a task keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hpcgen.farm import lock
from hpcgen.farm.channel import Backoff, Channel, DeadRankError
from hpcgen.farm.messages import (
    DONE,
    FINISHED,
    IDLE,
    MESSAGE,
    REPLY,
    REQUEST,
    RETIRED,
    SERVE_SECONDS,
    STOP,
    Chunk,
    Range,
    Tally,
)
from hpcgen.farm.progress import Progress
from hpcgen.farm.schedule import Schedule
from hpcgen.farm.signals import StopFlag


@dataclass
class _Rank:
    """What rank 0 knows of a rank."""

    tally: Tally = field(default_factory=Tally)
    given: int = 0  # chunks sent
    estimates: deque[float] = field(default_factory=deque)  # of the chunks that it has not finished
    learned: float = 0.0  # its busy time that the schedule knows of
    asking: bool = False  # its request is open
    idle: bool = False  # has done everything it was given
    retired: bool = False
    finished: bool = False


class Coordinator:
    """Rank 0: hands out chunks, to itself too, and knows positions and costs only, never results.

    Args:
        channel: to the other ranks, None if there are none.
        schedule: of the open tasks.
        kills: positions of suspects, which go out alone, and how many processes they have killed.
        stop: of this process.
        progress: where to show it.
    """

    def __init__(
        self,
        channel: Channel | None,
        schedule: Schedule,
        kills: dict[int, int],
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        self._channel, self._schedule, self._stop, self._progress = channel, schedule, stop, progress
        self._kills = kills
        self._ranks = [_Rank() for _ in range(channel.size if channel else 1)]
        self._sending: list[tuple[Any, Any]] = []  # replies under way, with the buffer that MPI reads from
        self._lock = threading.RLock()
        self._stopping = False
        self._served = 0.0
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        if channel and channel.allows_threads:
            self._thread = threading.Thread(target=self._serve_on, name="hpcgen-farm", daemon=True)
            self._thread.start()

    @property
    def tallies(self) -> list[Tally]:
        """What every rank has done, in the order of the ranks."""
        return [r.tally for r in self._ranks]

    @property
    def all_retired(self) -> bool:
        """Whether no rank can do tasks any more."""
        return all(r.retired for r in self._ranks)

    def next(self, tally: Tally) -> Chunk | None:
        lock.check()
        with self._lock:
            me = self._ranks[0]
            me.idle = False
            self._account(0, tally)
            self._learn(me, unfinished=0)
            self._serve()
            return None if self._stopping else self._give(me)

    def wait(self, tally: Tally) -> Chunk | None:
        backoff = Backoff()
        while True:
            if chunk := self.next(tally):
                return chunk
            with self._lock:
                self._ranks[0].idle = True
                if self._stopping or self._over():
                    return None
            backoff.sleep()

    def leave(self) -> bool:
        if self._error:
            raise self._error
        if self._thread is None and time.monotonic() - self._served > SERVE_SECONDS:
            with self._lock:
                self._serve()
        return self._stopping or self._stop.raised

    def retire(self, tally: Tally, suspect: int, rest: Range) -> None:
        with self._lock:
            self._ranks[0].retired = True
            self._take_back(suspect, rest)
        backoff = Backoff()
        while True:
            with self._lock:
                self._account(0, tally)
                self._serve()
                self._ranks[0].idle = True
                if self._stopping or self._over() or self.all_retired:
                    return
            backoff.sleep()

    def finish(self, tally: Tally) -> None:
        """Answer until every worker has sealed its shard."""
        backoff = Backoff()
        while True:
            with self._lock:
                self._account(0, tally)
                self._serve()
                if all(r.finished for r in self._ranks[1:]):
                    break
            backoff.sleep()
        self.close()
        for _, request in self._sending:
            assert self._channel is not None
            self._channel.wait(request)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _over(self) -> bool:
        """Whether every task is done: nothing to hand out, and nobody has anything in hand."""
        return self._schedule.empty and all(r.idle or r.finished for r in self._ranks)

    def _give(self, rank: _Rank) -> Chunk | None:
        """The next chunk, for this rank."""
        chunk = self._schedule.next()
        if chunk is None:
            return None
        rank.given += 1
        rank.idle = False
        rank.estimates.append(self._schedule.estimate(*chunk))
        return (*chunk, self._kills.get(chunk[0], 0) if chunk[1] - chunk[0] == 1 else 0)

    def _take_back(self, suspect: int, rest: Range) -> None:
        """Positions that a rank could not do, its device having failed in the suspect.

        The suspect goes out last: whoever gets it has shown by other tasks that its own device works.
        """
        if suspect >= 0:
            self._kills[suspect] = self._kills.get(suspect, 0) + 1
            self._schedule.give_back(suspect, suspect + 1, last=True)
        self._schedule.give_back(*rest)

    def _account(self, rank: int, tally: Tally) -> None:
        """Take in what a rank has done."""
        if self._error:
            raise self._error
        self._ranks[rank].tally = replace(tally)
        self._stopping |= tally.stopped or self._stop.raised
        alive = sum(not (r.retired or r.finished) for r in self._ranks)
        tallies = self.tallies
        left = self._schedule.seconds_left(max(alive, 1))
        self._progress.show(sum(t.done for t in tallies), sum(t.failed for t in tallies), alive, left)

    def _learn(self, rank: _Rank, unfinished: int) -> None:
        """Tell the schedule how long the chunks took that a rank has finished."""
        finished = 0.0
        while len(rank.estimates) > unfinished:
            finished += rank.estimates.popleft()
        if finished:
            self._schedule.learn(finished, rank.tally.busy - rank.learned)
            rank.learned = rank.tally.busy

    def _serve(self) -> bool:
        """Take every message that has arrived and answer what can be answered; False if there was nothing to do."""
        channel, served = self._channel, False
        if channel is None:
            return False
        self._served = time.monotonic()
        self._sending = [(buffer, request) for buffer, request in self._sending if not channel.test(request)]
        data = np.empty(MESSAGE)
        while message := channel.next_message(data):
            served = True
            source, tag = message
            self._take(source, tag, Tally.unpack(data))
        for number, rank in enumerate(self._ranks):
            if rank.asking:
                served |= self._answer(number, rank)
        return served

    def _take(self, source: int, tag: int, tally: Tally) -> None:
        rank = self._ranks[source]
        self._account(source, tally)
        if tag == REQUEST:
            rank.asking, rank.idle = True, rank.idle and rank.retired
            self._learn(rank, unfinished=1)
        elif tag == IDLE:
            rank.idle = tally.chunks == rank.given  # else a chunk is on its way
            self._learn(rank, unfinished=rank.given - tally.chunks)
        elif tag == RETIRED:
            rank.retired, rank.idle = True, tally.chunks == rank.given
            self._take_back(tally.suspect, tally.returned)
        elif tag == FINISHED:
            rank.finished = True

    def _answer(self, number: int, rank: _Rank) -> bool:
        """Answer an open request, unless there is nothing to hand out now but may be later."""
        chunk: Chunk | None = None
        if self._stopping or rank.finished:
            chunk = (STOP, STOP, 0)
        elif not rank.retired:
            chunk = self._give(rank)
        if chunk is None and (self._over() or self.all_retired):
            chunk = (DONE, DONE, 0)
        if chunk is None:
            return False
        rank.asking = False
        reply = np.array(chunk, dtype=np.int64)
        assert self._channel is not None
        self._sending.append((reply, self._channel.send(reply, number, REPLY)))
        return True

    def _serve_on(self) -> None:
        """What the thread does: answer workers while this rank is in the middle of a task."""
        backoff = Backoff()
        while not self._closed and not self._error:
            with self._lock:
                try:
                    if time.monotonic() - self._served > SERVE_SECONDS and self._serve():
                        backoff = Backoff()
                except DeadRankError as error:
                    self._error = error
                    assert self._channel is not None
                    self._channel.revoke()  # the others learn of it now, not when this rank's task ends
                except Exception as error:  # shown by the main thread
                    self._error = error
            backoff.sleep()
