"""Which GPU a rank computes on: decided from the node-local rank, before anything initialises CUDA.

Neighbours share: with 8 ranks and 4 GPUs, ranks 0 and 1 take the first one. Launchers place neighbouring ranks on
neighbouring cores, and nodes number their GPUs along the sockets, so a rank and its GPU mostly sit on one socket.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Literal

from hpcgen.config import FarmConfig
from hpcgen.errors import LaunchError
from hpcgen.farm.world import in_step

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # the last filter first
_LOCAL = (  # (rank on the node, ranks on the node), the innermost launcher first
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),  # torchrun
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI
    ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"),  # Cray
)
_DEVICE = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")
NVIDIA_SMI_SECONDS = 60.0  # the first call after a boot loads the driver


def pin_device(
    config: FarmConfig,
    want: Literal["auto", "cpu", "cuda"],
    environ: MutableMapping[str, str] = os.environ,
) -> str | None:
    """Make the GPU of this rank the only one that it sees. To be called before torch is imported.

    What Slurm has bound to each task (`--gpus-per-task`, `--gpu-bind`) is left as it is.

    Args:
        config: how many ranks may share a GPU.
        want: the `device` of the stage.
        environ: where the visible devices are read, and set.

    Returns:
        The device as in CUDA_VISIBLE_DEVICES, None for the CPU.

    Raises:
        LaunchError: if there are more ranks on this node than its GPUs may serve, or no GPU where `cuda` is asked for.
    """
    if want == "cpu":
        return None
    variable, gpus = visible_gpus(environ)
    if not gpus and want == "cuda":
        raise LaunchError(
            "the configuration asks for cuda, and this node shows no GPU",
            expected=f"a GPU in {variable}, or in the list of nvidia-smi -L",
            remedy="ask the batch system for GPUs (--gpus-per-node=1), or set relax.device=cpu (sample.device=cpu)",
        )
    chosen = choose(gpus, *local_place(environ), config.ranks_per_gpu, bound=bound_by_slurm(environ, len(gpus)))
    if chosen is not None:
        environ[variable] = chosen
    return chosen


def choose(gpus: Sequence[str], rank: int, ranks: int, ranks_per_gpu: int, *, bound: bool) -> str | None:
    """The GPU of one rank.

    Args:
        gpus: those that this rank sees.
        rank: among the ranks of this node, from 0.
        ranks: of this node.
        ranks_per_gpu: how many may share one.
        bound: whether the launcher has dealt out the GPUs already, so that each rank may see others.

    Raises:
        LaunchError: on every rank, if there are too many of them.
    """
    if not gpus:
        return None
    if bound:
        return gpus[rank % len(gpus)]
    if ranks > len(gpus) * ranks_per_gpu:
        fitting = len(gpus) * ranks_per_gpu
        raise LaunchError(
            f"{ranks} ranks on this node want a GPU, and it has {len(gpus)}",
            expected=f"at most {fitting} ranks: farm.ranks_per_gpu is {ranks_per_gpu}",
            remedy=f"start fewer (--ntasks-per-node={fitting}), or set farm.ranks_per_gpu={-(-ranks // len(gpus))} "
            f"if the memory of the GPUs allows that, or relax.device=cpu (sample.device=cpu)",
        )
    return gpus[rank * len(gpus) // ranks]


def local_place(environ: Mapping[str, str]) -> tuple[int, int]:
    """(rank, ranks) of this process among those that the launcher started on this node; (0, 1) if it is alone."""
    for rank, ranks in _LOCAL:
        if environ.get(rank, "").isdigit() and environ.get(ranks, "").isdigit():
            return int(environ[rank]), int(environ[ranks])
    if not in_step(environ):
        return 0, 1
    layout = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "1")
    nodes: list[int] = []  # as in `2(x3),1`
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout):
        nodes += [int(tasks)] * int(times or 1)
    return int(environ.get("SLURM_LOCALID", "0")), nodes[int(environ.get("SLURM_NODEID", "0"))]


def bound_by_slurm(environ: Mapping[str, str], seen: int) -> bool:
    """Whether srun has given each of its tasks its own GPUs. The ranks of an mpiexec share those of its one task."""
    if any(rank in environ for rank, _ in _LOCAL) or not in_step(environ):
        return False
    if environ.get("SLURM_GPUS_ON_NODE", "").isdigit() and seen < int(environ["SLURM_GPUS_ON_NODE"]):
        return True
    if environ.get("SLURM_GPU_BIND", "") == "none":
        return False
    asked = ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU", "SLURM_GPU_BIND")
    return any(environ.get(name) for name in asked) or "gpu" in environ.get("SLURM_TRES_PER_TASK", "")


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """(the variable that restricts what this process sees, the GPUs it sees), without loading CUDA.

    AMD's GPUs are known only where a variable lists them, which Slurm sees to.
    """
    for variable in VISIBLE:
        if variable in environ:
            gpus: list[str] = []
            for entry in environ[variable].split(","):
                if not _DEVICE.fullmatch(entry.strip()):  # CUDA ends at the first that is none: -1, NoDevFiles
                    break
                gpus.append(entry.strip())
            return variable, gpus
    return VISIBLE[0], _nvidia_gpus()


def listed_gpus(text: str) -> list[str]:
    """The devices in the output of `nvidia-smi -L`: numbers, or the UUIDs of the parts of a divided GPU (MIG)."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        if found := re.match(r"GPU (\d+):", line):
            gpus.append([found[1]])
        elif (found := re.search(r"\(UUID: (MIG-[^)]+)\)", line)) and gpus:
            gpus[-1] = [entry for entry in gpus[-1] if not entry.isdigit()] + [found[1]]
    return [entry for gpu in gpus for entry in gpu]


def _nvidia_gpus() -> list[str]:
    """The GPUs that nvidia-smi lists, else those that the driver does."""
    try:
        shown = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True
        )
        return listed_gpus(shown.stdout)
    except (OSError, subprocess.SubprocessError):
        return [str(i) for i, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]
