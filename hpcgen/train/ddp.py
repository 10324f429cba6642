"""Processes of a training run: one, or several started by torchrun, by srun or by `hpcgen run` (local.py).

    hpcgen train CONFIG                                                      one process
    torchrun --standalone --nproc-per-node=2 -m hpcgen train CONFIG          one node
    srun --ntasks-per-node=4 --gpus-per-task=1 hpcgen train CONFIG           several nodes

The global batch is dealt out over the processes. Each process weights the loss of its share so that the average of
gradients that DDP takes is the gradient of the mean over the global batch, also when that cannot be dealt out evenly.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpcgen.errors import LaunchError, TrainingError
from hpcgen.train.plain import dumps, loads

PATIENCE = timedelta(hours=2)  # the others wait this long for process 0 to encode the data


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: 0 ... size - 1; process 0 writes and logs.
        size: number of processes.
        device: the device this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and logs."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """The part of a global batch that this process computes: contiguous, sizes differ by at most one."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over the processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def mean_loss(self, losses: Tensor, batch: int) -> Tensor:
        """The scalar to differentiate, from the losses (B',) of this process' share of a batch of B.

        The average of it over the processes is the mean over the batch.
        """
        return losses.sum() * (self.size / batch)

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes, on each of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; all call it."""
        if self.size == 1:
            return flag
        return bool(self.total(torch.tensor(int(flag), device=self.device)).item())

    def wait(self) -> None:
        """Return when every process has come here."""
        self.any(False)

    def first_does(self, make: Callable[[], Any]) -> Any:
        """What `make` returns on process 0, on every process; the others do not call it.

        It is passed on as a checkpoint is stored: numbers, text, lists, dicts and tensors, on the CPU.

        Raises:
            TrainingError: on the others, if `make` raises on process 0.
        """
        if self.size == 1:
            return make()
        content, size = b"", -1
        try:
            if self.first:
                made = make()
                content = dumps(made)
                size = len(content)
        finally:
            sizes = torch.tensor([size], device=self.device)
            dist.broadcast(sizes, 0)
        if sizes.item() < 0:
            raise TrainingError("process 0 could not prepare the training", remedy="read its message")
        blob = torch.empty(int(sizes.item()), dtype=torch.uint8, device=self.device)
        if self.first:
            blob.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(blob, 0)
        return made if self.first else loads(blob.cpu().numpy().tobytes())


def pick_device(choice: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Raises:
        LaunchError: if CUDA is asked for and there is none, or there are more processes than devices.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cpu" or (choice == "auto" and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise LaunchError("device cuda: torch sees no CUDA device", remedy="set the stage's `device: auto` or `cpu`")
    if count == 1 and local_size > 1 and os.environ.get("SLURM_STEP_ID"):
        return torch.device("cuda", 0)  # --gpus-per-task: each task sees its own device as number 0
    if local_size > count:
        raise LaunchError(
            f"{local_size} processes on this node, and {count} CUDA devices",
            remedy=f"start {count} processes per node, or set `train.device: cpu`",
        )
    return torch.device("cuda", local_rank)


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the other processes of this run, and leave them at the end.

    Raises:
        LaunchError: if the device is not there, or the other processes cannot be reached.
    """
    place = _torchrun() or _slurm()
    if place is None:
        yield Processes(0, 1, pick_device(device))
        return
    rank, size, local_rank, local_size, address, port = place
    where = pick_device(device, local_rank, local_size)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    else:
        torch.set_num_threads(_threads(local_size))
    if size == 1:
        yield Processes(0, 1, where)
        return
    try:
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            init_method=f"tcp://{address}:{port}" if port else "env://",
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise LaunchError(
            f"process {rank} of {size} cannot join the others: {str(error).splitlines()[0]}",
            remedy="check MASTER_ADDR and MASTER_PORT, and GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME",
        ) from None
    try:
        yield Processes(rank, size, where)
    finally:
        dist.destroy_process_group()


Place = tuple[int, int, int, int, str, int]


def _torchrun() -> Place | None:
    """Rank, size, local rank, local size, address and port that torchrun gives (port 0: torch reads them itself)."""
    env = os.environ
    if "RANK" not in env or "WORLD_SIZE" not in env or "MASTER_ADDR" not in env:
        return None
    size = int(env["WORLD_SIZE"])
    return int(env["RANK"]), size, int(env.get("LOCAL_RANK", 0)), int(env.get("LOCAL_WORLD_SIZE", size)), "", 0


def _slurm() -> Place | None:
    """As `_torchrun`, from a step of srun. The batch script's own SLURM_NTASKS does not count: it is one process."""
    env = os.environ
    size = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if "SLURM_STEP_ID" not in env or "SLURM_PROCID" not in env or size == 1:
        return None
    local_size = int(env.get("SLURM_STEP_TASKS_PER_NODE", str(size)).split("(")[0].split(",")[0])
    job = 7 * int(env.get("SLURM_JOB_ID", 0)) + int(env["SLURM_STEP_ID"])
    port = int(env.get("MASTER_PORT", 20000 + job % 20000))
    return int(env["SLURM_PROCID"]), size, int(env.get("SLURM_LOCALID", 0)), local_size, _slurm_address(), port


def _slurm_address() -> str:
    """Host name of the step's first node."""
    if "MASTER_ADDR" in os.environ:
        return os.environ["MASTER_ADDR"]
    nodes = os.environ.get("SLURM_STEP_NODELIST", "localhost")
    if "[" not in nodes and "," not in nodes:
        return nodes
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise LaunchError(
            f"the first host of {nodes} is unknown: `scontrol show hostnames` failed",
            remedy="export MASTER_ADDR=<host name of the first node>",
        ) from None


def _threads(local_size: int) -> int:
    """CPU threads of each process: the cores of this job on this node, dealt out; torchrun by itself would leave one.

    More threads than cores are not just useless: those of OpenMP wait for each other spinning.
    """
    env, cores = os.environ, len(os.sched_getaffinity(0))
    if "SLURM_STEP_ID" in env:
        if env.get("SLURM_CPUS_PER_TASK", "").isdigit():
            return int(env["SLURM_CPUS_PER_TASK"])
        if env.get("SLURM_CPUS_ON_NODE", "").isdigit():  # the affinity says more where Slurm binds nobody
            cores = min(cores, int(env["SLURM_CPUS_ON_NODE"]))
    return max(1, cores // local_size)
