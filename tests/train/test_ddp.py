"""Several processes compute what one does; started by the real torchrun."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import ddp_program  # beside this file
import pytest
import torch

from hpcgen.errors import LaunchError
from hpcgen.train import ddp
from hpcgen.train.batches import effective_batch
from hpcgen.train.checkpoint import Origin
from hpcgen.train.keeper import Keeper

PROGRAM = Path(ddp_program.__file__)
ALONE = ddp.Processes(0, 1, torch.device("cpu"))


def torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.run(
        [*command, str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[dict, Path]:
    """What two processes computed, and the folder with their train-2.csv."""
    folder = tmp_path_factory.mktemp("two")
    run = torchrun(2, "all", folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(folder / "result.pt", weights_only=True), folder


@pytest.mark.parametrize("batch", ddp_program.BATCHES)
def test_two_processes_have_the_gradients_of_one(two, batch):
    one = ddp_program.gradients(ALONE, batch)
    assert two[0]["size"] == 2
    scale = max(g.abs().max().item() for g in one.values())
    assert scale > 1e-2
    for name, gradient in one.items():
        found = two[0]["gradients"][batch][name]
        torch.testing.assert_close(found, gradient, atol=1e-5 * scale, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_two_processes_train_to_the_weights_of_one(two):
    result, folder = two
    assert result["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    for name, weight in ddp_program.trained(ALONE, folder).network.state_dict().items():
        # Adam divides by the gradient's size, so that rounding of a nearly idle weight shows more
        torch.testing.assert_close(result["weights"][name], weight, atol=2e-4, rtol=2e-3, msg=name)
    tables = [list(csv.DictReader((folder / f"train-{n}.csv").open())) for n in (1, 2)]
    assert [row["step"] for row in tables[0]] == ["4", "8"]
    for a, b in zip(*tables, strict=True):
        for column in ("train_loss", "validation_loss", "learning_rate"):
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-3), column


def test_all_stop_when_one_is_told_to_and_go_on_exactly(two):
    result, _ = two
    for name, weight in result["weights"].items():
        assert torch.equal(result["resumed"][name], weight), name


def test_one_process_goes_on_where_two_were_stopped(two):
    result, folder = two
    keeper = Keeper(folder / "preempted/checkpoints", Origin("toy", "", ""), 2)
    (keeper.folder / "step-000000008.pt").unlink()
    assert keeper.newest()["step"] == ddp_program.STOPPED
    for name, weight in ddp_program.trained(ALONE, None, keeper=keeper).network.state_dict().items():
        torch.testing.assert_close(result["weights"][name], weight, atol=2e-4, rtol=2e-3, msg=name)


def test_a_nan_on_one_process_stops_all_at_the_same_step(tmp_path):
    run = torchrun(2, "nan", tmp_path)
    assert run.returncode != 0
    assert run.stderr.count("TrainingError: the gradient is not a finite number at step 1 ") == 2


def test_shares_cover_the_batch_once():
    for size in (1, 2, 3, 7):
        for batch in (7, 8, 64):
            parts = [ddp.Processes(rank, size, torch.device("cpu")).share(batch) for rank in range(size)]
            assert [i for p in parts for i in range(batch)[p]] == list(range(batch))
            sizes = [p.stop - p.start for p in parts]
            assert max(sizes) - min(sizes) <= 1


def test_more_processes_than_samples_are_refused():
    with pytest.raises(LaunchError, match="5 processes share batches of 4"):
        effective_batch(4, 100, ddp.Processes(0, 5, torch.device("cpu")))


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LaunchError, match="no CUDA device"):
        ddp.pick_device("cuda")
    assert ddp.pick_device("auto") == torch.device("cpu")


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ddp.pick_device("auto", 1, 2) == torch.device("cuda", 1)
    with pytest.raises(LaunchError, match="4 processes on this node, and 2 CUDA devices"):
        ddp.pick_device("auto", 1, 4)


SLURM_STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "n1",
}


def test_place_among_slurm_tasks(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SLURM_STEP.items():
        monkeypatch.setenv(name, value)
    assert ddp._slurm() == (3, 4, 1, 2, "n1", 20861)
    # in the batch script itself SLURM_NTASKS is set, and there is one process
    monkeypatch.delenv("SLURM_STEP_ID")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert ddp._slurm() is None


def test_processes_that_cannot_meet_say_so(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "nonsense"}.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    try:
        with pytest.raises(LaunchError, match="process 0 of 2 cannot join"), ddp.processes("cpu"):
            pass
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("environment", "local_size", "expected"),
    [
        ({}, 1, 8),
        ({}, 3, 2),
        ({}, 20, 1),
        ({"SLURM_CPUS_ON_NODE": "2"}, 1, 8),  # of the batch script, not of a step
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "2"}, 1, 2),
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "2"}, 2, 1),
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "64"}, 2, 4),
        ({"SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "64", "SLURM_CPUS_PER_TASK": "6"}, 2, 6),
    ],
)
def test_threads_are_the_cores_that_the_job_has(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], local_size: int, expected: int
) -> None:
    for name in ("SLURM_STEP_ID", "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert ddp._threads(local_size) == expected
