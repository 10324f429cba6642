"""What the launcher's environment says, and how ranks that cannot work together end: at once, with one message."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcgen import errors
from hpcgen.farm.launcher import SESSION_FOLDER
from hpcgen.farm.world import is_first, tasks_launched, without_launcher

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}
CODE = errors.LaunchError.exit_code
AGREE = """
import sys
from hpcgen.farm import agreement, world
from hpcgen.farm.world import end_all
try:
    agreement.check(world(), dict(pair.split("=") for pair in sys.argv[1:]))
except Exception as error:
    sys.exit(end_all(error, str(error), error.exit_code))
print("agreed")
"""
ALONE = """
import sys
from hpcgen.farm.world import end_all, world
try:
    world()
except Exception as error:
    sys.exit(end_all(error, f"hpcgen: {error}", error.exit_code))
print("went on")
"""


def plain(**extra: str) -> dict[str, str]:
    launchers = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_", "HPCGEN_RUN")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(launchers) or k == SESSION_FOLDER}
    return clean | {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"} | extra


def mpmd(*groups: tuple[int, list[str]], options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run so many ranks of each of several programs in one communicator."""
    if MPIEXEC is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no mpiexec: pip install 'hpcgen[mpi]'")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    command = [MPIEXEC, *root, *options, "--oversubscribe"]
    for ranks, program in groups:
        command += ["-n", str(ranks), *program, ":"]
    return subprocess.run(command[:-1], capture_output=True, text=True, timeout=120, check=False, env=plain())


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, True),
        ({"OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"OMPI_COMM_WORLD_RANK": "2"}, False),
        ({"PMI_RANK": "1"}, False),
        (STEP, False),
        (STEP | {"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, True),  # left over in a shell: no step
        (STEP | {"OMPI_COMM_WORLD_RANK": "0"}, True),  # mpiexec inside a step
        ({"RANK": "1", "OMPI_COMM_WORLD_RANK": "0"}, False),  # torchrun inside mpiexec
    ],
)
def test_who_is_first(environ: dict[str, str], first: bool) -> None:
    assert is_first(environ) is first


def test_a_launcher_started_by_a_rank_does_not_see_the_rank() -> None:
    settings = {"PATH": "/bin", "OMPI_MCA_btl": "tcp", "SLURM_JOB_ID": "1"}
    assert without_launcher(settings) == settings
    rank = settings | {"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0", "MPI_LOCALRANKID": "0"}
    assert without_launcher(rank) == {"PATH": "/bin", "SLURM_JOB_ID": "1"}
    assert tasks_launched(without_launcher({"PMI_RANK": "0", "PMI_SIZE": "4"})) == 1


@pytest.mark.mpi
def test_ranks_that_agree_go_on() -> None:
    program = [sys.executable, "-c", AGREE, "colour=red", "size=3"]
    result = mpmd((1, program), (2, program))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["agreed"] * 3


@pytest.mark.mpi
def test_ranks_that_differ_end_with_one_message_that_names_them() -> None:
    usual = [sys.executable, "-c", AGREE, "colour=red", "size=3", "shape=cubic"]
    odd = [sys.executable, "-c", AGREE, "colour=blue", "size=3", "shape=hcp"]
    result = mpmd((1, odd), (3, usual))
    assert result.returncode == CODE
    assert "agreed" not in result.stdout
    host = os.uname().nodename
    assert f"the colour: red on rank 1 ({host}) and 2 more, but blue on rank 0 ({host})" in result.stderr
    assert "hcp on rank 0" in result.stderr
    assert "size" not in result.stderr
    assert result.stderr.count("do not agree on") == 1


ABORT = "from hpcgen.farm import world; w = world(); w.barrier(); w.rank or w.abort(7); w.barrier()"


@pytest.mark.mpi
@pytest.mark.parametrize("options", [(), ("--with-ft", "ulfm")], ids=["plain", "ulfm"])
def test_abort_ends_all_ranks_with_its_code(options: tuple[str, ...]) -> None:
    result = mpmd((3, [sys.executable, "-c", ABORT]), options=options)
    if "unrecognized" in result.stderr:
        pytest.skip("this mpiexec knows no fault tolerance")
    assert result.returncode == 7, result.stderr


@pytest.mark.mpi
def test_another_version_may_compare_other_facts() -> None:
    usual = [sys.executable, "-c", AGREE, "version=1"]
    newer = [sys.executable, "-c", AGREE, "version=2", "more=x", "evenmore=y"]
    result = mpmd((2, usual), (1, newer))
    assert result.returncode == CODE
    assert "the version: 1 on rank 0" in result.stderr
    assert "2 on rank 2" in result.stderr


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_VERSION": "5.0.1"}, ["the mpiexec of Open MPI 5.0.1", "start with"]),
        ({"PMI_SIZE": "2"}, ["MPICH family", "Open MPI v", "start with"]),
        (
            {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_MPI_TYPE": "none"},
            ["srun --mpi=none started 2 tasks", "--mpi=pmix"],
        ),
    ],
    ids=["open-mpi", "mpich", "slurm"],
)
def test_tasks_that_do_not_see_each_other(environ: dict[str, str], named: list[str]) -> None:
    """The environment of a launcher whose MPI is not that of mpi4py, in two processes that nothing connects."""
    pytest.importorskip("mpi4py")
    began = time.monotonic()
    processes = []
    for rank in "01":
        ranked = {"SLURM_PROCID": rank} if "SLURM_STEP_ID" in environ else {}
        ranked |= {"OMPI_COMM_WORLD_RANK": rank} if "OMPI_COMM_WORLD_SIZE" in environ else {}
        ranked |= {"PMI_RANK": rank} if "PMI_SIZE" in environ else {}
        command = [sys.executable, "-c", ALONE]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=plain(**environ, **ranked), stdout=pipe, stderr=pipe, text=True))
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [CODE, CODE]
    for text in named:
        assert text in said[0]
    assert "hpcgen:" not in said[1]  # once is enough
    assert time.monotonic() - began < 60


def test_a_launcher_that_ends_the_others_does_not_change_their_exit_code() -> None:
    environ = plain(SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="1")
    script = "import hpcgen.farm.world as w; w.PATIENCE = 60; print('ready', flush=True)" + ALONE.replace(
        "import sys",
        "import sys, threading, os, signal, time\n"
        "def kill():\n"
        "    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL: time.sleep(0.02)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=kill, daemon=True).start()",
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == CODE
    assert "hpcgen:" not in result.stderr
