"""Which ranks there are, found from the launcher's environment before MPI is touched. The only import of mpi4py."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hpcgen.errors import LaunchError

POLL = 0.0005  # seconds between looks at a message: waiting ranks leave the core to those that work
_SPECIAL_STEP = 0xFFFFFFF0  # Slurm numbers batch, extern and interactive steps from here on


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
        if self.comm is not None:
            wait(self.comm.Ibarrier())

    def abort(self, code: int) -> None:
        """End all ranks at once with exit code `code`: where one cannot go on, the others must not wait for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.comm is not None:
            self.comm.Abort(code)


def wait(request: Any) -> None:
    """Wait for an MPI request and let signal handlers run meanwhile."""
    while not request.Test():
        time.sleep(POLL)


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
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"{launched or 'several'} tasks were launched, but mpi4py cannot be used: {error}",
            remedy="pip install 'hpcgen[mpi]', or start one process without mpiexec or srun",
        ) from error
    size = MPI.COMM_WORLD.Get_size()
    if launched > 1 and size == 1:
        raise LaunchError(
            f"the launcher started {launched} tasks, but MPI sees each of them alone",
            expected=f"a communicator of {launched} ranks",
            remedy="under Slurm: srun --mpi=pmix (srun --mpi=list shows what there is); "
            "elsewhere: the mpiexec of the MPI that mpi4py uses",
        )
    if size == 1:
        return World()
    return World(MPI.COMM_WORLD.Get_rank(), size, MPI.COMM_WORLD)


def tasks_launched(environ: Mapping[str, str]) -> int:
    """Number of tasks that a launcher started together: 1 for a plain process, 0 if only MPI can tell.

    A Slurm batch script or interactive shell is one process, whatever SLURM_NTASKS says: only steps that srun
    starts have several. Inside an allocation mpiexec is itself a step, so its own variables count first.
    """
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if name in environ:
            return max(_number(environ[name]), 1)
    step = environ.get("SLURM_STEP_ID", "")
    if step.isdigit() and int(step) < _SPECIAL_STEP and "SLURM_PROCID" in environ:
        return max(_number(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")), 1)
    return 0 if "PMIX_RANK" in environ or "PMI_RANK" in environ else 1


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
