"""Which GPU a rank gets, from the environment of every launcher, and that it is decided before torch looks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hpcgen.config import FarmConfig
from hpcgen.errors import LaunchError
from hpcgen.farm.devices import bound_by_slurm, choose, listed_gpus, local_place, pin_device, visible_gpus

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
SMI = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d1e9f6c-0000-1111-2222-333344445555)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaaaaaa-0000-1111-2222-333344445555)
"""
MIG = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d1e9f6c-0000-1111-2222-333344445555)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-0000-1111-2222-333344445555)
"""


def gpus(n: int) -> list[str]:
    return [str(i) for i in range(n)]


@pytest.mark.parametrize(("n", "ranks", "share"), [(4, 4, 1), (4, 8, 2), (4, 7, 2), (3, 8, 3), (4, 2, 1), (1, 5, 5)])
def test_every_gpu_serves_its_share_and_neighbours_share(n: int, ranks: int, share: int) -> None:
    chosen = [choose(gpus(n), rank, ranks, share, bound=False) for rank in range(ranks)]
    assert chosen == sorted(chosen, key=lambda gpu: int(gpu or "-1"))
    counts = Counter(chosen)
    assert max(counts.values()) <= share
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == min(n, ranks)


def test_too_many_ranks_name_the_numbers_and_three_ways_out() -> None:
    for rank in range(9):
        with pytest.raises(LaunchError) as caught:
            choose(gpus(4), rank, 9, 2, bound=False)
        text = str(caught.value)
        for part in (
            "9 ranks",
            "has 4",
            "at most 8",
            "--ntasks-per-node=8",
            "farm.ranks_per_gpu=3",
            "relax.device=cpu",
        ):
            assert part in text


def test_what_the_launcher_has_dealt_out_stays() -> None:
    assert [choose(["0"], rank, 8, 1, bound=True) for rank in range(8)] == ["0"] * 8
    assert choose(["2", "3"], 5, 8, 1, bound=True) == "3"
    assert choose([], 3, 8, 1, bound=True) is None


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, (3, 8)),
        ({"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "PMI_RANK": "9"}, (1, 2)),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, (0, 2)),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, (1, 4)),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3,1(x10)", "SLURM_NODEID": "2"}, (1, 3)),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3,1(x10)", "SLURM_NODEID": "12"}, (1, 1)),
        (STEP | {"SLURM_TASKS_PER_NODE": "6"}, (1, 6)),
        # a batch script is one process, whatever the allocation
        ({"SLURM_JOB_ID": "1", "SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "6"}, (0, 1)),
        # the ranks of an mpiexec inside a step of one task a node
        (STEP | {"OMPI_COMM_WORLD_LOCAL_RANK": "7", "OMPI_COMM_WORLD_LOCAL_SIZE": "9"}, (7, 9)),
    ],
)
def test_the_place_on_the_node(environ: dict[str, str], place: tuple[int, int]) -> None:
    assert local_place(environ) == place


@pytest.mark.parametrize(
    ("environ", "seen", "bound"),
    [
        (STEP, 4, False),
        (STEP | {"SLURM_GPUS_PER_TASK": "1"}, 1, True),
        (STEP | {"SLURM_TRES_PER_TASK": "cpu=4,gres/gpu=1"}, 1, True),
        (STEP | {"SLURM_NTASKS_PER_GPU": "2"}, 1, True),
        (STEP | {"SLURM_GPU_BIND": "closest"}, 2, True),
        (STEP | {"SLURM_GPUS_PER_TASK": "1", "SLURM_GPU_BIND": "none"}, 4, False),
        (STEP | {"SLURM_GPUS_ON_NODE": "4"}, 4, False),
        (STEP | {"SLURM_GPUS_ON_NODE": "4"}, 1, True),
        ({"SLURM_GPUS_PER_TASK": "1"}, 1, False),
        (STEP | {"SLURM_GPUS_PER_TASK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, 1, False),
    ],
)
def test_whether_slurm_has_bound_them(environ: dict[str, str], seen: int, bound: bool) -> None:
    assert bound_by_slurm(environ, seen) is bound


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0,1,3", ["0", "1", "3"]),
        ("GPU-5d1e9f6c, GPU-aaaaaaaa", ["GPU-5d1e9f6c", "GPU-aaaaaaaa"]),
        ("MIG-GPU-5d1e/1/0", ["MIG-GPU-5d1e/1/0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,3", ["2"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(value: str, expected: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == ("CUDA_VISIBLE_DEVICES", expected)


def test_the_list_of_the_driver() -> None:
    assert listed_gpus(SMI) == ["0", "1"]
    uuids = ["MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d"]
    assert listed_gpus(MIG) == [*uuids, "1"]
    assert listed_gpus("No devices were found\n") == []


def test_pinning() -> None:
    ranked = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    environ = ranked | {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert pin_device(FarmConfig(), "auto", environ) == "6"
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
    environ = ranked | {"ROCR_VISIBLE_DEVICES": "0,1"}
    assert pin_device(FarmConfig(), "auto", environ) == "1"
    assert environ["ROCR_VISIBLE_DEVICES"] == "1"
    environ = ranked | {"CUDA_VISIBLE_DEVICES": "4"}
    with pytest.raises(LaunchError, match="2 ranks"):
        pin_device(FarmConfig(), "auto", environ)
    assert pin_device(FarmConfig(), "cpu", environ) is None
    assert pin_device(FarmConfig(ranks_per_gpu=2), "cuda", environ) == "4"
    environ = ranked | {"CUDA_VISIBLE_DEVICES": ""}
    assert pin_device(FarmConfig(), "auto", environ) is None
    with pytest.raises(LaunchError, match="shows no GPU"):
        pin_device(FarmConfig(), "cuda", environ)


PINNED = """
import os, sys
from hpcgen import config, farm, pipeline
import hpcgen.cli, hpcgen.stages.relax, hpcgen.stages.reference
from hpcgen.relax import get_calculator
assert "torch" not in sys.modules, "imported before the device is pinned"
chosen = farm.pin_device(config.loads("{}").farm, "auto")
assert "torch" not in sys.modules
print(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"], chosen, os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.mark.parametrize("listed", [True, False], ids=["by the driver", "by the variable"])
def test_processes_see_one_gpu_before_torch_is_imported(tmp_path: Path, listed: bool) -> None:
    """Two ranks of a node with two GPUs, as mpiexec would start them; the list comes from a program nvidia-smi."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f'#!/bin/sh\n[ "$1" = -L ] && cat <<END\n{SMI}END\n')
    smi.chmod(smi.stat().st_mode | stat.S_IEXEC)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "HIP_", "ROCR_", "SLURM_", "OMPI_COMM"))}
    clean["PATH"] = f"{tmp_path}{os.pathsep}{clean['PATH']}"
    visible = {} if listed else {"CUDA_VISIBLE_DEVICES": "0,1"}
    said = []
    for rank in ("0", "1"):
        ranked = {"OMPI_COMM_WORLD_LOCAL_RANK": rank, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
        result = subprocess.run(
            [sys.executable, "-c", PINNED],
            env=clean | visible | ranked,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        said.append(result.stdout.split())
    assert said == [["0", "0", "0"], ["1", "1", "1"]]


@pytest.mark.gpu
def test_torch_sees_the_pinned_gpu_only() -> None:
    script = "from hpcgen import config, farm; farm.pin_device(config.loads('{}').farm, 'cuda'); import torch; "
    script += "print(torch.cuda.device_count(), torch.zeros(1, device='cuda').device)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout.split() == ["1", "cuda:0"]
