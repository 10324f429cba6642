"""The device that a potential computes on, its failures, and the number of threads."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpcgen.errors import DeviceFailure, LaunchError

if TYPE_CHECKING:
    import torch


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that `relax.device` asks for.

    Raises:
        LaunchError: if it asks for a GPU, and torch finds none.
        DeviceFailure: if this rank was given a GPU that torch cannot use.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise LaunchError("relax.device is cuda, and torch finds no GPU", remedy="set relax.device=auto")
    if wanted == "auto" and _gpu_given() and torch.backends.cuda.is_built() and not torch.cuda.is_available():
        # on the CPU this rank would go on fifty times slower, and with other last digits than its neighbours
        raise DeviceFailure("torch cannot use the GPU that this rank was given (CUDA_VISIBLE_DEVICES)")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _gpu_given() -> bool:
    """Whether this node has NVIDIA's driver, and the launcher or the farm gave this process a device."""
    given = re.match(r"\d|GPU-|MIG-", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    return given is not None and Path("/dev/nvidiactl").exists()


def is_device_failure(error: Exception) -> bool:
    """Whether torch says that the GPU is unusable: after such an error every later call in this process fails too."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)  # torch 2.8 and later
    if kind is not None and isinstance(error, kind):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "HIP error", "cuDNN error"))


def first_line(error: Exception) -> str:
    """Of its message."""
    return str(error).splitlines()[0] if str(error) else ""


def memory_used(what: str, error: Exception) -> str:
    """The message of something that a whole GPU cannot hold.

    Raises:
        DeviceFailure: if others hold half of the memory or more: then it is not to blame.
    """
    import torch

    own, (_, total) = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()
    text = f"{what}: {own / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory"
    if own < total / 2:
        raise DeviceFailure(
            f"{text} were enough to fill it, so others hold the rest: lower farm.ranks_per_gpu"
        ) from error
    return f"{text} are not enough"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Ranks share the cores of a node, and another number of threads would change the last digits.

    On a GPU sums of a fixed order are asked for; what torch cannot sum so goes on, and its warnings are kept quiet, as
    are the potentials' own about their ways of making tensors.
    """
    import torch

    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(before)
