"""The few MPI calls of the farm. The death of another rank becomes `DeadRankError`, where the MPI survives it.

That is ULFM (Open MPI 5 under `mpiexec --with-ft ulfm`); elsewhere the launcher ends the whole job. Only the calls
that take buffers are used: with a dead rank around, those that pickle can hang (measured).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcgen.farm.deadline import KillTimer

P = ParamSpec("P")
R = TypeVar("R")
SHORTEST, LONGEST = 50e-6, 5e-3  # seconds between looks at a message: waiting ranks leave the core to those that work
NAME_BYTES = 64
LEAVE_SECONDS = 60.0
LAST = 0.5  # seconds that the first rank ends after the others where they end together


class DeadRankError(Exception):
    """Another rank of the communicator is dead; nothing can be sent through it any more."""


def survives_deaths(environ: Mapping[str, str]) -> bool:
    """Whether this is a rank of `mpiexec --with-ft ulfm`."""
    return environ.get("OMPI_MCA_mpi_ft_enable", "") in ("1", "true") and "OMPI_COMM_WORLD_RANK" in environ


class Backoff:
    """Sleeps a little longer each time, so that a short wait ends at once and a long one costs nothing."""

    def __init__(self) -> None:
        self._pause = SHORTEST

    def sleep(self) -> None:
        """Sleep; signal handlers run meanwhile."""
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST)


def _notices_death(call: Callable[P, R]) -> Callable[P, R]:
    """Raise `DeadRankError` where MPI says that a process failed or that somebody revoked the communicator."""

    @wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            from mpi4py import MPI

            # known only to an MPI with fault tolerance
            names = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")
            classes = {getattr(MPI, name, None) for name in names}
            if isinstance(error, MPI.Exception) and error.Get_error_class() in classes:
                raise DeadRankError(str(error)) from None
            raise

    return wrapper


class Channel:
    """A communicator with rank 0 as its leader.

    Attributes:
        rank: of this process.
        size: number of ranks.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    @_notices_death
    def test(self, request: Any) -> bool:
        """Whether a request is complete."""
        return request.Test()

    def wait(self, request: Any) -> None:
        """Wait for a request and let signal handlers run meanwhile."""
        backoff = Backoff()
        while not self.test(request):
            backoff.sleep()

    @_notices_death
    def send(self, data: NDArray[Any], to: int, tag: int) -> Any:
        """Start to send; `data` must stay as it is until the request is complete."""
        return self._comm.Isend(data, dest=to, tag=tag)

    @_notices_death
    def receive(self, buffer: NDArray[Any], source: int, tag: int) -> Any:
        """Start to receive into `buffer`."""
        return self._comm.Irecv(buffer, source=source, tag=tag)

    @_notices_death
    def next_message(self, buffer: NDArray[Any]) -> tuple[int, int] | None:
        """Receive a message that has already arrived, whoever sent it: (source, tag), or None if there is none."""
        from mpi4py import MPI

        status = MPI.Status()
        if not self._comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            return None
        source, tag = status.Get_source(), status.Get_tag()
        self._comm.Recv(buffer, source=source, tag=tag)
        return source, tag

    def share(self, data: NDArray[Any]) -> NDArray[Any]:
        """The leader's array on every rank, in place."""
        self.wait(self._start(self._comm.Ibcast, data))
        return data

    def collect(self, data: NDArray[Any]) -> NDArray[Any]:
        """Every rank's array on every rank: (size, *shape)."""
        everybody = np.empty((self.size, *data.shape), data.dtype)
        self.wait(self._start(self._comm.Iallgather, np.ascontiguousarray(data), everybody))
        return everybody

    def host_names(self) -> list[str]:
        """Name of the node of every rank."""
        from mpi4py import MPI

        name = np.zeros(NAME_BYTES, np.uint8)
        mine = np.frombuffer(MPI.Get_processor_name().encode("ascii", "replace")[:NAME_BYTES], np.uint8)
        name[: len(mine)] = mine
        return [bytes(row).rstrip(b"\0").decode("ascii") for row in self.collect(name)]

    def revoke(self) -> None:
        """Make every rank notice, at its next call, that one has died."""
        self._comm.Revoke()

    def survivors(self) -> Channel:
        """The channel of those who are left, in the old order. All of them call it."""
        _without_finalize.register()
        return Channel(self._comm.Shrink())

    def code_of_leavers(self, mine: int = 0) -> tuple[int, Channel]:
        """After a call has raised: the exit code of ranks that want to end everything, 0 if one has just died.

        Returns:
            The code, and the channel of those who are left.
        """
        self.revoke()
        left = self.survivors()
        return int(left.collect(np.array([mine])).max()), left

    @property
    def allows_threads(self) -> bool:
        """Whether a second thread may call MPI while the first one does not."""
        from mpi4py import MPI

        return MPI.Query_thread() >= MPI.THREAD_SERIALIZED

    @_notices_death
    def _start(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args)


class _WithoutFinalize:
    """Ends the process at its exit, because MPI_Finalize waits for the dead (measured with Open MPI 5.0.11)."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.pause = 0.0
        self.apart = False

    def register(self) -> None:
        if self.code is None:
            self.code = 0
            atexit.register(self._end)

    def _end(self) -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(self.pause)
        os._exit(self.code or 0)


_without_finalize = _WithoutFinalize()


def leave(channel: Channel, code: int) -> NoReturn:
    """End all ranks with exit code `code`, where MPI_Abort cannot be used.

    With fault tolerance MPI_Abort ends only its own rank, and a rank that just exits is waited for (Open MPI 5.0.11).
    So the communicator is revoked, the others notice that at their next call, and all leave with the largest code.
    """
    KillTimer().arm(LEAVE_SECONDS)  # for a rank that never makes another call: then the others count this one as dead
    with suppress(DeadRankError):
        agreed, left = channel.code_of_leavers(code)
        code, pause = _told_by_one(max(code, agreed), left)
        time.sleep(pause)
    logging.shutdown()
    os._exit(code)


def _told_by_one(code: int, channel: Channel) -> tuple[int, float]:
    """Exit code of this rank and seconds to wait before, where all ranks of `channel` end with `code`.

    `mpiexec --with-ft ulfm` waits for ever for ranks that end with an error at the same time (in 5 of 60 runs of six
    ranks without MPI_Finalize, 7 of 90 with it), and never where one ends with it, after the others have ended with 0
    (none of 180; Open MPI 5.0.11).
    """
    return (code, LAST) if channel.rank == 0 else (0, 0.0)


def exit_together(code: int, channel: Channel | None) -> None:
    """Say that all ranks of the channel will exit with `code`."""
    if code and channel is not None and channel.size > 1 and survives_deaths(os.environ):
        _without_finalize.register()
        _without_finalize.code, _without_finalize.pause = _told_by_one(code, channel)
    else:
        exit_with(code)


def part() -> None:
    """From here on every rank ends by itself, with fault tolerance without MPI_Finalize: one may die before it."""
    _without_finalize.apart = True
    if survives_deaths(os.environ):
        _without_finalize.register()


def have_parted() -> bool:
    """Whether the other ranks may have ended."""
    return _without_finalize.apart


def exit_with(code: int) -> None:
    """Say which code this process will exit with, which cannot be known any more when it does."""
    if _without_finalize.code is not None:
        _without_finalize.code = code
