"""Starting `farm_driver.py`, and looking at what it left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcgen import store
from hpcgen.farm.launcher import SESSION_FOLDER
from hpcgen.flow import Candidate

DRIVER = Path(__file__).with_name("farm_driver.py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
TASKS = 120
mpi = pytest.mark.mpi


def environment(**extra: str) -> dict[str, str]:
    launchers = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(launchers)}
    session = tempfile.mkdtemp(dir=os.environ[SESSION_FOLDER])  # what a killed mpiexec leaves disturbs no other
    return clean | {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1", SESSION_FOLDER: session} | extra


def start(
    folder: Path, ranks: int, mode: str = "", tasks: int = TASKS, ulfm: bool = False, **extra: str
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(DRIVER), str(folder), str(tasks), mode]
    if ranks:
        if MPIEXEC is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no mpiexec: pip install 'hpcgen[mpi]'")
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        root += ["--with-ft", "ulfm"] if ulfm else []
        command = [MPIEXEC, *root, "--oversubscribe", "-n", str(ranks), *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(**extra))


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str]:
    """Exit code and everything printed; a hang is a failure of the test, and leaves nothing running."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out + err


def run(
    folder: Path, ranks: int, mode: str = "", tasks: int = TASKS, ulfm: bool = False, **extra: str
) -> tuple[int, str]:
    return finish(start(folder, ranks, mode, tasks, ulfm, **extra))


def computed(folder: Path) -> Counter[str]:
    """How often each task was computed."""
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def committed(folder: Path) -> set[str]:
    paths = sorted((folder / "shards").glob("shard-*"))
    return {task for path in paths for task, _ in store.read_shard(path, Candidate)}
