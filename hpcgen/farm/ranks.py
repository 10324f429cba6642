"""The messages between rank 0, which hands out chunks and works too, and the other ranks.

Every message is a numpy array of fixed size, so nothing is pickled. A worker asks for its next chunk when it
starts the one before, so a rank 0 in the middle of a task keeps nobody waiting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcgen.farm.progress import Progress
from hpcgen.farm.schedule import Schedule
from hpcgen.farm.signals import StopFlag
from hpcgen.farm.world import POLL, World, wait

REQUEST, REPLY, FINISHED = 1, 2, 3
STOP = -1
SERVE_SECONDS = 0.002


@dataclass
class Tally:
    """What a rank has done so far in this start.

    Attributes:
        done: committed results.
        failed: those of them that are failures.
        busy: seconds inside tasks and commits.
        estimated: seconds that the cost model gave the tasks done.
        stopped: whether this rank was told to stop by a signal.
    """

    done: int = 0
    failed: int = 0
    busy: float = 0.0
    estimated: float = 0.0
    stopped: bool = False

    def pack(self) -> NDArray[np.float64]:
        """As it travels: (5,) float64, exact for counts below 2^53."""
        return np.array([self.done, self.failed, self.busy, self.estimated, self.stopped], dtype=np.float64)

    @classmethod
    def unpack(cls, data: NDArray[np.float64]) -> Tally:
        """The tally in a message."""
        return cls(int(data[0]), int(data[1]), float(data[2]), float(data[3]), bool(data[4]))


class Source(Protocol):
    """Where a rank gets its positions from."""

    def next(self, tally: Tally) -> tuple[int, int] | None:
        """The next chunk (start, stop), or None if this rank is done."""
        ...

    def between_tasks(self, tally: Tally) -> bool:
        """Called after each task; True if the rest of the chunk must be left."""
        ...

    def finish(self, tally: Tally) -> None:
        """Called once, after this rank's shard is sealed."""
        ...


class Coordinator:
    """Rank 0: hands out chunks, to itself too, and knows indices and costs only, never results."""

    def __init__(self, world: World, schedule: Schedule, stop: StopFlag, progress: Progress) -> None:
        self._world, self._schedule, self._stop, self._progress = world, schedule, stop, progress
        self.tallies = [Tally() for _ in range(world.size)]
        self._running = world.size - 1
        self._sending: list[tuple[Any, Any]] = []  # replies under way, with the buffer that MPI reads from
        self._stopping = False
        self._served = 0.0

    def next(self, tally: Tally) -> tuple[int, int] | None:
        """Rank 0's own next chunk."""
        self._account(0, tally)
        self._serve()
        if self._stopping:
            return None
        start, stop = self._schedule.next()
        return (start, stop) if stop > start else None

    def between_tasks(self, tally: Tally) -> bool:
        """Answer the workers, unless that was just done: looking for messages costs as much as a tiny task."""
        if self._stop.raised or time.monotonic() - self._served > SERVE_SECONDS:
            self._account(0, tally)
            self._serve()
            self._served = time.monotonic()
        return self._stopping

    def finish(self, tally: Tally) -> None:
        """Answer until every worker has sealed its shard."""
        self._account(0, tally)
        while self._running:
            if not self._serve():
                time.sleep(POLL)
        for _, request in self._sending:
            wait(request)

    def _account(self, rank: int, tally: Tally) -> None:
        before = self.tallies[rank]
        self._schedule.learn(tally.estimated - before.estimated, tally.busy - before.busy)
        self.tallies[rank] = Tally(**tally.__dict__)
        self._stopping |= tally.stopped or self._stop.raised
        self._progress.show(sum(t.done for t in self.tallies), sum(t.failed for t in self.tallies))

    def _serve(self) -> bool:
        """Take every message that has arrived; False if there was none."""
        comm = self._world.comm
        if comm is None:
            return False
        from mpi4py import MPI

        self._sending = [(buffer, request) for buffer, request in self._sending if not request.Test()]
        status, served = MPI.Status(), False
        while comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            served = True
            worker, data = status.Get_source(), np.empty(5)
            comm.Recv(data, source=worker, tag=status.Get_tag())
            self._account(worker, Tally.unpack(data))
            if status.Get_tag() == FINISHED:
                self._running -= 1
                continue
            reply = np.array((STOP, STOP) if self._stopping else self._schedule.next(), dtype=np.int64)
            self._sending.append((reply, comm.Isend(reply, dest=worker, tag=REPLY)))
        return served


class Worker:
    """Every other rank: keeps one request for work under way."""

    def __init__(self, world: World, stop: StopFlag) -> None:
        self._comm, self._stop = world.comm, stop
        self._reply = np.empty(2, dtype=np.int64)
        self._receiving: Any = None
        self._sending: tuple[Any, Any] | None = None
        self._arrived = False

    def next(self, tally: Tally) -> tuple[int, int] | None:
        """The chunk asked for earlier; asks for the one after it."""
        if self._receiving is None:
            self._ask(tally)
        while not self._has_arrived():
            time.sleep(POLL)
        start, stop = int(self._reply[0]), int(self._reply[1])
        self._receiving = None
        if start in (STOP, stop):
            return None
        self._ask(tally)
        return (start, stop)

    def between_tasks(self, tally: Tally) -> bool:
        """Whether to leave the chunk: this process was signalled, or rank 0 says so already."""
        return self._stop.raised or (self._has_arrived() and int(self._reply[0]) == STOP)

    def finish(self, tally: Tally) -> None:
        """Take the reply that is still under way, then report."""
        if self._receiving is not None:
            while not self._has_arrived():
                time.sleep(POLL)
        self._send(tally, FINISHED)
        self._flush()

    def _ask(self, tally: Tally) -> None:
        self._arrived = False
        self._receiving = self._comm.Irecv(self._reply, source=0, tag=REPLY)
        self._send(tally, REQUEST)

    def _send(self, tally: Tally, tag: int) -> None:
        self._flush()
        buffer = tally.pack()
        self._sending = (buffer, self._comm.Isend(buffer, dest=0, tag=tag))

    def _flush(self) -> None:
        if self._sending is not None:
            wait(self._sending[1])

    def _has_arrived(self) -> bool:
        self._arrived = self._arrived or bool(self._receiving.Test())
        return self._arrived
