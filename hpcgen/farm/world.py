"""Which ranks there are, found from the launcher's environment before MPI is touched, and how they end together."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.errors import LaunchError
from hpcgen.farm.channel import Channel, DeadRankError, exit_together, exit_with, have_parted, leave, survives_deaths
from hpcgen.farm.deadline import STDERR

INIT_SECONDS = 600.0  # on a slow file system some ranks need minutes to load their programs
PATIENCE = 3.0  # seconds that the first process gives the others, which start and fail a little later, to hear of it
_SPECIAL_STEP = 0xFFFFFFF0  # Slurm numbers batch, extern and interactive steps from here on
_RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # the innermost launcher counts
LAUNCHERS = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL")


@dataclass(frozen=True)
class World:
    """The ranks of this run.

    Attributes:
        rank: this one, from 0.
        size: how many; 1 without MPI.
        comm: the mpi4py communicator, or None without MPI.
    """

    rank: int = 0
    size: int = 1
    comm: Any = None

    def barrier(self) -> None:
        """Wait for all ranks, without keeping the core busy."""
        self.collect(np.zeros(1, np.uint8))

    def decide(self, answer: bool) -> bool:
        """Rank 0's answer on every rank. Without MPI every process has its own."""
        return bool(self.share(np.array([answer], np.uint8))[0])

    def share(self, data: NDArray[Any]) -> NDArray[Any]:
        """Rank 0's array on every rank, in place.

        Raises:
            LaunchError: if a rank has died.
        """
        return self._together(lambda channel: channel.share(data)) if self.comm is not None else data

    def collect(self, data: NDArray[Any]) -> NDArray[Any]:
        """Every rank's array on every rank: (size, *shape).

        Raises:
            LaunchError: if a rank has died.
        """
        return self._together(lambda channel: channel.collect(data)) if self.comm is not None else data[None]

    def _together(self, call: Callable[[Channel], NDArray[Any]]) -> NDArray[Any]:
        channel = Channel(self.comm)
        try:
            return call(channel)
        except DeadRankError:
            code, left = channel.code_of_leavers()
            if code:
                exit_together(code, left)
                raise SystemExit(code) from None
            raise LaunchError(
                "a rank died before the stage began", remedy="run the same command again: it resumes"
            ) from None

    def abort(self, code: int, channel: Channel | None = None) -> None:
        """End all ranks at once with exit code `code`: where one cannot go on, the others must not wait for it.

        Args:
            code: at least 1.
            channel: what connects those that are alive, if ranks have died.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self.comm is not None:
            if survives_deaths(os.environ) and have_parted():
                exit_with(code)
                return
            if survives_deaths(os.environ):
                leave(channel or Channel(self.comm), code)
            self.comm.Abort(code)


@cache
def world() -> World:
    """The ranks that the launcher started, or a world of one.

    Raises:
        LaunchError: if several tasks were launched but MPI cannot connect them.
    """
    launched = tasks_launched(os.environ)
    if launched == 1:
        return World()
    try:
        MPI = load_mpi()
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"{_launcher(os.environ)} started {launched or 'several'} tasks, but mpi4py cannot be used: {error}",
            expected="mpi4py, and the MPI library that the launcher belongs to",
            remedy="pip install 'hpcgen[mpi]' and use its own mpiexec, load the site's MPI module, "
            "or start one process without mpiexec or srun",
        ) from error
    library = library_of(MPI)
    # an MPI under another one's mpiexec may end the process inside MPI_Init, with a message that helps nobody
    size = 1 if _mismatched(os.environ, library) else _initialised(MPI).Get_size()
    if launched > 1 and size == 1:
        raise LaunchError(
            f"{_launcher(os.environ)} started {launched} tasks, but mpi4py (with {library}) sees each of them alone",
            expected=f"a launcher of the same MPI, and a communicator of {launched} ranks",
            remedy=_connect(os.environ, library),
        )
    if size == 1:
        return World()
    return World(MPI.COMM_WORLD.Get_rank(), size, MPI.COMM_WORLD)


def library_of(MPI: Any) -> str:
    """Name and version of the MPI library, such as `Open MPI v5.0.11`."""
    return " ".join(MPI.Get_library_version().split("\0")[0].splitlines()[0].split(",")[0].split())


def load_mpi() -> Any:
    """The module mpi4py.MPI, not yet initialised if nobody else has imported it."""
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of another MPI's launcher: `world` says it better
        from mpi4py import MPI
    return MPI


def _initialised(MPI: Any) -> Any:
    """The world's communicator."""
    if not MPI.Is_initialized():
        if survives_deaths(os.environ):  # then MPI_Init waits for ever for a rank that died before it
            faulthandler.dump_traceback_later(_init_seconds(), exit=True, file=STDERR)
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        faulthandler.cancel_dump_traceback_later()
    return MPI.COMM_WORLD


def _init_seconds() -> float:
    """How long ranks may take to start until one counts as dead."""
    return float(os.environ.get("HPCGEN_MPI_INIT_SECONDS") or INIT_SECONDS)


def _mismatched(environ: Mapping[str, str], library: str) -> bool:
    """Whether mpiexec is certainly of another MPI than the library; of srun nobody can tell beforehand."""
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return any(name in library for name in ("MPICH", "MVAPICH", "Intel"))
    return "PMI_SIZE" in environ and not in_step(environ) and library.startswith("Open MPI")


def tasks_launched(environ: Mapping[str, str]) -> int:
    """Number of tasks that a launcher started together: 1 for a plain process, 0 if only MPI can tell.

    A Slurm batch script or interactive shell is one process, whatever SLURM_NTASKS says: only steps that srun
    starts have several. Inside an allocation mpiexec is itself a step, so its own variables count first.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in environ:
            return max(_number(environ[name]), 1)
    if in_step(environ):
        return max(_number(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")), 1)
    return 0 if "PMIX_RANK" in environ or "PMI_RANK" in environ else 1


def is_first(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is rank 0 of what started it (torchrun, mpiexec, srun), or alone."""
    return _rank(environ) == 0


def without_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a launcher that is started from here: it hangs if it takes this process for one of its own.

    Only what a launcher has told its rank is left out, so the user's settings (OMPI_MCA_...) stay.
    """
    if not any(name in environ for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")):
        return dict(environ)
    return {k: v for k, v in environ.items() if not k.startswith(LAUNCHERS)}


def show_log() -> None:
    """Let this process print its log lines: the others keep silent, but the leader may have died."""
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.NOTSET)


def hide_log() -> None:
    """Print only errors from this process, until `show_log`."""
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)


def end_all(error: BaseException, text: str, code: int) -> int:
    """Report an error that ends this process, and end the other ranks with it.

    The first process reports at once. Mostly the others have the same error, so they wait to be ended with it, and
    report only if that does not happen. A launcher that ends them because the first one is gone does not change the
    exit code.

    Args:
        error: what was raised.
        text: what to print.
        code: exit code of all.

    Returns:
        `code`.
    """
    first, alone = is_first(), tasks_launched(os.environ) == 1 and "RANK" not in os.environ
    if first or alone:
        print(text, file=sys.stderr, flush=True)
    if alone:
        return code
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    try:
        ranks, known = world(), False
    except LaunchError as lone:  # the ranks do not see each other, so nobody waits for this one
        ranks, known = World(), str(lone) == str(error)
    if not first or ranks.comm is None:
        time.sleep(PATIENCE if first else 2 * PATIENCE)
    if not first and not known:
        print(f"rank {_rank(os.environ)} on {socket.gethostname()}: {text}", file=sys.stderr, flush=True)
    if ranks.size > 1:
        ranks.abort(code)
    return code


def _rank(environ: Mapping[str, str]) -> int:
    for name in _RANK:
        if name in environ:
            return _number(environ[name])
    return _number(environ.get("SLURM_PROCID", "0")) if "SLURM_STEP_ID" in environ else 0


def in_step(environ: Mapping[str, str]) -> bool:
    """Whether srun started this process as a task."""
    step = environ.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < _SPECIAL_STEP and "SLURM_PROCID" in environ


def _launcher(environ: Mapping[str, str]) -> str:
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return f"the mpiexec of Open MPI {environ.get('OMPI_VERSION', '')}".rstrip()
    if in_step(environ):
        kind = environ.get("SLURM_MPI_TYPE", "")
        return f"srun --mpi={kind}" if kind else "srun"
    return "an mpiexec of the MPICH family (MPICH, Intel MPI, MVAPICH)"


def _connect(environ: Mapping[str, str], library: str) -> str:
    """How to start ranks that see each other."""
    if in_step(environ) and "OMPI_COMM_WORLD_SIZE" not in environ:
        return "srun --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH (srun --mpi=list shows what there is)"
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = f"{beside}" if beside.exists() else f"the mpiexec of {library}"
    return f"start with {mpiexec}, or install an mpi4py that uses the MPI of your launcher"


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
