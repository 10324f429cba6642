"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcgen.farm.launcher import SESSION_FOLDER

ROOT = Path(__file__).resolve().parent.parent

# one thread per process: tests start several ranks on few cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; skips where there is none, except in CI, where that is a failure."""
    folder = os.environ.get("HPCGEN_DATA", "")
    if folder and Path(folder).is_dir():
        os.environ["HPCGEN_DATA"] = str(Path(folder).resolve())
        return Path(folder).resolve()
    reason = f"HPCGEN_DATA is {folder!r}, which is no folder" if folder else "HPCGEN_DATA is not set"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def session_folder() -> Iterator[None]:
    """A fresh place for the sessions of every mpiexec: what a killed one left breaks another of its number."""
    with tempfile.TemporaryDirectory(prefix="hpcgen-test-", ignore_cleanup_errors=True) as folder:
        os.environ[SESSION_FOLDER] = folder
        yield
        del os.environ[SESSION_FOLDER]


@pytest.fixture(scope="session")
def mpiexec() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`mpiexec(ranks, *python_arguments, **run_options)` runs this Python on so many ranks and returns the result."""
    beside = Path(sys.executable).parent / "mpiexec"
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        reason = "no mpiexec: pip install 'hpcgen[mpi]'"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []

    def run(ranks: int, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 300, "check": False} | options
        command = [program, *root, "--oversubscribe", "-n", str(ranks), sys.executable, *arguments]
        return subprocess.run(command, **options)

    return run


@pytest.fixture
def hpcgen_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`hpcgen_command(*arguments)` runs the command line as a user would and returns the result."""

    def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 300, "check": False} | options
        return subprocess.run([sys.executable, "-m", "hpcgen", *map(str, arguments)], **options)

    return run
