"""The batch scripts on a real Slurm of two virtual nodes: same candidates as one process, clear end where MPI fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcgen import store
from hpcgen.errors import LaunchError

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "env/virtual_slurm.sh"
TINY = {
    "data.builtin.cations": "[Na, Mg]",
    "data.builtin.anions": "[O, Cl]",
    "train.steps": "20",
    "train.batch": "16",
    "model.width": "16",
    "sample.n": "12",
    "sample.steps": "10",
}

pytestmark = pytest.mark.slurm


def give_up(reason: str) -> None:
    """Skip, except in CI, where a Slurm that does not start is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which sbatch and srun talk to a private cluster of two nodes with two processors each."""
    if os.geteuid() != 0:
        give_up("a virtual Slurm needs root")
    if shutil.which("slurmctld") is None:
        give_up("no Slurm: apt-get install --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge libpmix2")
    # socket paths are limited to 108 characters, which pytest's folders can exceed
    folder = Path("/tmp") / f"hpcgen-slurm-{os.getpid()}"
    result = subprocess.run([str(SCRIPT), "start", str(folder), "2", "2"], capture_output=True, text=True, check=False)
    try:
        if result.returncode != 0:
            give_up(f"the virtual Slurm did not start: {result.stdout}{result.stderr}")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_", "PMIX_"))}
        yield clean | {"SLURM_CONF": str(folder / "slurm.conf"), "HPCGEN_VENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    finally:
        subprocess.run([str(SCRIPT), "stop", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with samples.h5 from a model that was hardly trained."""
    folder = tmp_path_factory.mktemp("sampled") / "run"
    config = folder.parent / "tiny.yaml"
    config.write_text("name: tiny\n")
    sets = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "hpcgen", "run", str(config), "--run-dir", str(folder), *sets, "--until", "sample"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


def wait_for(job: str, environment: dict[str, str], limit: float = 240) -> str:
    """Final state of a job."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        shown = subprocess.run(["scontrol", "show", "job", job], env=environment, capture_output=True, text=True).stdout
        state = shown.partition("JobState=")[2].split()[0] if "JobState=" in shown else "UNKNOWN"
        if state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            return state
        time.sleep(0.3)
    raise AssertionError(f"job {job} did not end within {limit} s")


def test_two_nodes_give_the_candidates_of_one_process(cluster, sampled: Path, tmp_path: Path, hpcgen_command) -> None:
    folders = [tmp_path / "slurm", tmp_path / "alone"]
    for folder in folders:
        shutil.copytree(sampled, folder)
    log = tmp_path / "job.log"
    options = ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2", f"--output={log}"]
    command = ["sbatch", "--parsable", *options, "slurm/reconstruct.sh", folders[0] / "config.yaml", folders[0]]
    job = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=cluster, capture_output=True, text=True, check=True
    ).stdout.strip()
    state = wait_for(job, cluster)
    assert state == "COMPLETED", log.read_text()
    assert "on 4 ranks" in log.read_text()
    alone = hpcgen_command("reconstruct", folders[1] / "config.yaml", "--run-dir", folders[1])
    assert alone.returncode == 0, alone.stderr
    one, other = (store.content_digest(f / "candidates.h5") for f in folders)
    assert one == other
    assert (folders[0] / "survivors.h5").exists()


def test_a_launcher_that_does_not_connect_the_ranks_is_an_error(cluster, sampled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(sampled, folder)
    hpcgen = [sys.executable, "-m", "hpcgen", "reconstruct", str(folder / "config.yaml"), "--run-dir", str(folder)]
    result = subprocess.run(
        ["srun", "--mpi=none", "--nodes=2", "--ntasks=4", *hpcgen],
        env=cluster,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == LaunchError.exit_code
    assert "--mpi=pmix" in result.stderr
    assert not (folder / "candidates.h5").exists()
