"""How `hpcgen run` starts the ranks of a stage: by srun, by mpiexec, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hpcgen.config import FarmConfig
from hpcgen.errors import LaunchError
from hpcgen.farm import lock
from hpcgen.farm.devices import visible_gpus
from hpcgen.farm.signals import SIGNALS
from hpcgen.farm.world import without_launcher

SESSION_FOLDER = "PRTE_MCA_prte_local_tmpdir_base"
"""Where mpiexec (Open MPI 5) keeps the folder of its session, which is named after its process number.

A killed mpiexec leaves that folder behind, and a later one with the same number then ends with 213.
"""


def ranks_command(config: FarmConfig, command: list[str], *, gpu: bool) -> list[str] | None:
    """The command that runs `command` on every rank, or None where one process is enough.

    Args:
        config: launcher and number of ranks.
        command: of one rank.
        gpu: whether every rank wants a GPU, where there are some.

    Raises:
        LaunchError: if the configuration asks for a launcher that is not on this machine.
    """
    launcher = config.launcher
    if launcher == "auto":
        launcher = "srun" if "SLURM_JOB_ID" in os.environ and _find("srun") else "mpiexec" if _has_mpi() else "none"
    ranks = _ranks(config, gpu) if launcher == "mpiexec" else 0
    if launcher == "none" or ranks == 1:
        return None
    program = _find(launcher)
    if program is None:
        raise LaunchError(
            f"farm.launcher is {launcher}, and there is no {launcher} on this machine",
            remedy="pip install 'hpcgen[mpi]', load the site's MPI module, or set farm.launcher=none",
        )
    if launcher == "srun":  # sizes come from the allocation, never written twice
        return [program, f"--mpi={os.environ.get('HPCGEN_SRUN_MPI', 'pmix')}", *command]
    return [program, *_mpiexec_options(_open_mpi(program)), "-n", str(ranks), *command]


def run_program(command: list[str]) -> int:
    """Run a stage's program; SIGTERM and SIGUSR1 reach it as SIGUSR1, on which it seals its shards and ends with 75.

    mpiexec answers SIGTERM by ending with 1 whatever its ranks return, but passes SIGUSR1 on to them.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgen-mpi-", ignore_cleanup_errors=True) as session:
        child = subprocess.Popen(command, env=_child_environment() | {SESSION_FOLDER: session})
        before = {n: signal.signal(n, lambda *_: child.send_signal(signal.SIGUSR1)) for n in SIGNALS}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if child.poll() is None:  # Ctrl-C: the ranks got it too
                child.wait()
    return code if code >= 0 else 128 - code


def _ranks(config: FarmConfig, gpu: bool) -> int:
    """As the configuration says, else the tasks of the Slurm job, else one per core or per place on a GPU."""
    if config.ranks:
        return config.ranks
    if os.environ.get("SLURM_NTASKS", "").isdigit():
        return int(os.environ["SLURM_NTASKS"])
    cores = len(os.sched_getaffinity(0))
    places = len(visible_gpus(os.environ)[1]) * config.ranks_per_gpu if gpu else 0
    return min(cores, places) if places else cores


def _mpiexec_options(open_mpi: int) -> list[str]:
    """What an mpiexec needs beside the number of ranks; `open_mpi` is its major version, 0 for another MPI."""
    if not open_mpi:
        return []
    options = ["--oversubscribe"]
    if os.geteuid() == 0:
        options.append("--allow-run-as-root")
    if open_mpi >= 5:  # the ranks that are alive finish the stage when one dies
        options += ["--with-ft", "ulfm"]
    for name in (lock.TOKEN, "OMP_NUM_THREADS"):  # ranks on other nodes get no other variables
        options += ["-x", name]
    return options


@cache
def _open_mpi(program: str) -> int:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\(Open(?: MPI|RTE)\) (\d+)", shown)
    return int(found[1]) if found else 0


def _find(program: str) -> str | None:
    """A program beside this Python (the wheel's mpiexec) or on PATH."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


def _has_mpi() -> bool:
    return find_spec("mpi4py") is not None and _find("mpiexec") is not None


def _child_environment() -> dict[str, str]:
    """One thread per rank unless the user chose otherwise; ranks that wait must not burn the cores of the others."""
    environment = without_launcher(os.environ) | lock.pass_on()
    environment.pop("SLURM_EXPORT_ENV", None)  # of sbatch --export=NONE: srun would pass none of this on
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    return environment
