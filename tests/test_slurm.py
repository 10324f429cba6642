"""The batch scripts on a real Slurm of four virtual nodes: whatever happens to a job, the candidates are the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_cluster import ROOT, VirtualCluster, running, text_of, wait

from hpcgen import store
from hpcgen.config import load
from hpcgen.errors import LaunchError
from hpcgen.train import checkpoint
from hpcgen.train.plain import digest

SETTINGS = """
name: tiny
data: {builtin: {cations: [Na, Mg], anions: [O, Cl], max_structures: 40}}
model: {name: resmlp, width: 16}
train: {steps: 20, batch: 16}
sample: {n: 24, steps: 10}
reconstruct: {anneal: {starts: 48}}  # about 10 s of one core in all: time to interrupt it
screen: {require_valid_composition: false}
relax: {max_steps: 3}
hull: {max_structures: 2}
farm: {chunk_seconds: 0.2}
"""

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def cluster() -> Iterator[VirtualCluster]:
    """Four nodes with two processors each."""
    yield from running()


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with samples.h5 from a model that was hardly trained."""
    folder = tmp_path_factory.mktemp("sampled") / "run"
    config = folder.parent / "tiny.yaml"
    config.write_text(SETTINGS)
    command = [sys.executable, "-m", "hpcgen", "run", str(config), "--run-dir", str(folder), "--until", "sample"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def expected(sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the candidates that one undisturbed process makes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(sampled, folder)
    command = [sys.executable, "-m", "hpcgen", "reconstruct", str(folder / "config.yaml"), "--run-dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return store.content_digest(folder / "candidates.h5")


@pytest.fixture
def run_folder(sampled: Path, tmp_path: Path) -> Path:
    """A copy of its own, with a space in its path."""
    folder = tmp_path / "a campaign" / "run"
    shutil.copytree(sampled, folder)
    return folder


def at_work(folder: Path, ranks: int, log: Path) -> None:
    """Wait until every rank has had a result."""
    wait(lambda: len(list(folder.glob("shards-*/shard-*"))) >= ranks, f"shards of {ranks} ranks", log)


def test_a_job_told_to_stop_goes_back_into_the_queue_and_completes(
    cluster: VirtualCluster, run_folder: Path, expected: str, tmp_path: Path
) -> None:
    log = tmp_path / "job.log"
    job = cluster.submit("reconstruct.sh", run_folder, log, "--nodes=2", "--ntasks=4", "--ntasks-per-node=2")
    at_work(run_folder, 4, log)
    cluster.run("scancel", "--signal=USR1", "--batch", job)  # what Slurm sends by `--signal=B:USR1@...`
    end = cluster.finish(job, log)
    said = text_of(log)
    assert end["JobState"] == "COMPLETED", said
    assert end["Restarts"] == "1", said
    assert "=== stopped by a signal, what was done is saved; back into the queue" in said
    assert f"job {job}, restart 0 of" in said, "the requeued job must not overwrite its log"
    assert f"job {job}, restart 1 of" in said
    assert "4 tasks on v[" in said
    assert store.content_digest(run_folder / "candidates.h5") == expected
    assert (run_folder / "survivors.h5").exists()


def test_under_ulfm_a_killed_rank_does_not_end_the_job(
    cluster: VirtualCluster, run_folder: Path, expected: str, tmp_path: Path
) -> None:
    log = tmp_path / "job.log"
    options = ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2"]
    job = cluster.submit("reconstruct.sh", run_folder, log, *options, HPCGEN_LAUNCHER="mpiexec")
    at_work(run_folder, 4, log)
    os.kill(cluster.rank_of(job, 1), signal.SIGKILL)
    end = cluster.finish(job, log)
    assert end["JobState"] == "COMPLETED", text_of(log)
    assert end["Restarts"] == "0", text_of(log)
    assert "rank 1 (v1) died; 3 ranks go on" in text_of(log)
    assert store.content_digest(run_folder / "candidates.h5") == expected


def test_a_cancelled_job_stays_cancelled(cluster: VirtualCluster, run_folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    job = cluster.submit("reconstruct.sh", run_folder, log, "--nodes=1", "--ntasks=2")
    at_work(run_folder, 2, log)
    cluster.run("scancel", job)
    end = cluster.finish(job, log)
    assert end["JobState"] == "CANCELLED", text_of(log)
    assert end["Restarts"] == "0", text_of(log)


@pytest.mark.parametrize("where", ["step", "job"])
def test_a_launcher_that_does_not_connect_the_ranks_is_an_error(
    cluster: VirtualCluster, run_folder: Path, tmp_path: Path, where: str
) -> None:
    log = tmp_path / "job.log"
    if where == "job":
        job = cluster.submit("reconstruct.sh", run_folder, log, "--nodes=2", "--ntasks=4", HPCGEN_SRUN_MPI="none")
        end = cluster.finish(job, log)
        assert end["JobState"] == "FAILED", text_of(log)
        assert end["ExitCode"] == f"{LaunchError.exit_code}:0", text_of(log)
        assert end["Restarts"] == "0", "a mistake must not be tried again"
        said = text_of(log)
    else:
        # without --kill-on-bad-exit: else the first task to end makes Slurm kill the others, whose code may win
        step = ["srun", "--mpi=none", "--kill-on-bad-exit=0", "--nodes=2", "--ntasks=4"]
        hpcgen = [sys.executable, "-m", "hpcgen", "reconstruct", run_folder / "config.yaml", "--run-dir", run_folder]
        result = cluster.run(*step, *hpcgen, check=False)
        assert result.returncode == LaunchError.exit_code, result.stderr
        said = result.stderr
    assert "--mpi=pmix" in said
    assert "Traceback" not in said
    assert not (run_folder / "candidates.h5").exists()


def test_a_training_told_to_stop_goes_on_and_ends_with_the_same_weights(
    cluster: VirtualCluster, sampled: Path, tmp_path: Path
) -> None:
    """Two training processes on two nodes, beside two undisturbed ones on the other nodes."""
    runs = {name: (tmp_path / name / "run", tmp_path / f"{name}.log") for name in ("calm", "preempted")}
    settings = SETTINGS.replace("name: resmlp, width: 16", "stages: joint, name: unet1d, width: 8, attention_dim: 16")
    settings = settings.replace("steps: 20", "steps: 60, validate_every: 5, checkpoint_every: 50, score_every: 0")
    jobs = {}
    for name, (folder, log) in runs.items():
        folder.mkdir(parents=True)
        (folder.parent / "tiny.yaml").write_text(settings)
        shutil.copy(sampled / "dataset.h5", folder)
        resolved = load(folder.parent / "tiny.yaml")
        (folder / "config.yaml").write_text(resolved.text())
        jobs[name] = cluster.submit("train.sh", folder, log, "--nodes=2", "--ntasks-per-node=1")
    folder, log = runs["preempted"]
    wait(lambda: len(text_of(folder / "train.csv").splitlines()) > 2, "ten steps", log)
    cluster.run("scancel", "--signal=USR1", "--batch", jobs["preempted"])
    ends = {name: cluster.finish(jobs[name], runs[name][1]) for name in jobs}
    said = text_of(log)
    assert ends["preempted"]["JobState"] == "COMPLETED", said
    assert ends["preempted"]["Restarts"] == "1", said
    assert ends["calm"]["Restarts"] == "0", text_of(runs["calm"][1])
    assert re.search(r"train: stopped by a signal after step \d+, everything done is saved", said), said
    assert "=== stopped by a signal, what was done is saved; back into the queue" in said
    assert re.search(r"goes on after step \d+ of 60", said), said
    parts = [checkpoint.load(runs[name][0] / "checkpoint.pt").parts["joint"] for name in runs]
    assert digest(vars(parts[0])) == digest(vars(parts[1]))
    steps = [line.split(",")[1] for line in text_of(folder / "train.csv").splitlines()]
    assert steps == ["step", *map(str, range(5, 61, 5))]


def test_the_chain_from_train_to_report(cluster: VirtualCluster, tmp_path: Path) -> None:
    config, folder = tmp_path / "tiny.yaml", tmp_path / "the run"
    config.write_text(SETTINGS.replace("n: 24", "n: 8").replace("starts: 48", "starts: 8"))
    options = {
        "HPCGEN_OPTIONS": f"--output={tmp_path}/%x.log",
        "HPCGEN_TRAIN_OPTIONS": "--nodes=2 --ntasks-per-node=1",
        "HPCGEN_RECONSTRUCT_OPTIONS": "--nodes=4 --ntasks=4",
        "HPCGEN_RELAX_OPTIONS": "--nodes=2 --ntasks=2",
    }
    submitted = cluster.run(ROOT / "slurm/submit.sh", config, folder, cwd=tmp_path, env=options).stdout
    jobs = {line.split(": job ")[0]: line.split(": job ")[1] for line in submitted.splitlines()}
    assert list(jobs) == ["train", "sample", "reconstruct", "relax", "report"]
    for name, job in jobs.items():
        log = tmp_path / f"hpcgen-{name}.log"
        assert cluster.finish(job, log)["JobState"] == "COMPLETED", f"{name}:\n{text_of(log)}"
    assert "4 tasks on v[1-4]" in text_of(tmp_path / "hpcgen-reconstruct.log")
    assert (folder / "report/index.html").exists()


def test_a_lost_node_costs_nobody_the_run(
    cluster: VirtualCluster, sampled: Path, expected: str, tmp_path: Path
) -> None:
    """A node dies on which one job has its batch script and rank 0, and another one a rank. The last test: the node
    stays dead."""
    runs = {name: (tmp_path / name / "run", tmp_path / f"{name}.log") for name in ("guest", "host")}
    options = ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    apart = {"guest": "--exclude=v3", "host": "--exclude=v1"}  # v1 and v2, v2 and v3; v4 stands in for the victim
    jobs: dict[str, str] = {}
    for name, (folder, log) in runs.items():
        shutil.copytree(sampled, folder)
        jobs[name] = cluster.submit("reconstruct.sh", folder, log, *options, apart[name])
    for name, (_, log) in runs.items():
        wait(lambda name=name: cluster.job(jobs[name])["JobState"] == "RUNNING", f"the start of {name}", log)
    victim = cluster.job(jobs["host"])["BatchHost"]
    shared = cluster.run("scontrol", "show", "hostnames", cluster.job(jobs["guest"])["NodeList"]).stdout.split()
    assert victim in shared
    for folder, log in runs.values():
        at_work(folder, 2, log)

    cluster.kill_node(victim)
    for name, (folder, log) in runs.items():
        end = cluster.finish(jobs[name], log)
        assert end["JobState"] == "COMPLETED", text_of(log)
        assert int(end["Restarts"]) >= 1, text_of(log)
        assert store.content_digest(folder / "candidates.h5") == expected
    # srun notices before slurmctld does, and the batch script that lives on must not take that for a failure
    said = text_of(runs["guest"][1])
    all_done = "24 in = 24 out" in said.partition("restart 1 of")[0]  # on a busy machine, before the node died
    assert all_done or "a process was killed" in said, said
