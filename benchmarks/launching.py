"""Starting MPI programs from a benchmark: the launcher, and an environment that tells of no other launch."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

LAUNCHERS = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_")


def mpiexec(ranks: int, options: list[str]) -> list[str]:
    """Start of a command line that runs a program on `ranks` ranks; more ranks than cores are allowed.

    Raises:
        SystemExit: if there is no mpiexec beside this Python or on PATH.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        raise SystemExit("there is no mpiexec beside this Python or on PATH: pip install 'hpcgen[mpi]'")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [program, *root, "--oversubscribe", *options, "-n", str(ranks)]


def environment(scratch: Path, **extra: str) -> dict[str, str]:
    """This process's environment without a launcher's variables, which would make a nested MPI program hang.

    Session folders and shared memory of Open MPI lie below `scratch`, so that killed jobs leave nothing behind.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
    return clean | {
        "OMP_NUM_THREADS": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_btl_sm_backing_directory": str(scratch),
        "TMPDIR": str(scratch),
        **extra,
    }
