"""One step of training, and the state after it: AdamW, warm-up and cosine decay, clipped gradients, averaged weights.

On a GPU nothing here waits for the device: data, random numbers and sums live on it, and a gradient that is not a
finite number switches the updates off there, so that `check` may look at it later and still finds the last good
weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hpcgen.config import Config, TrainConfig
from hpcgen.errors import LaunchError, TrainingError
from hpcgen.flow import seed_of
from hpcgen.train.batches import Batches, count, effective_batch
from hpcgen.train.ddp import Processes
from hpcgen.train.memory import out_of_memory
from hpcgen.train.part import Part, Rows
from hpcgen.train.tally import Tally

AVERAGE = 4  # steps between two updates of the averaged weights, which cost as much as a tenth of a small step
LOOK = 8  # steps between two looks at a GPU or at other processes, each of which waits for them


class Trainer:
    """A part in training.

    Args:
        part: what is trained.
        config: the section train and the seed are used.
        data: (M, ...) each, float32, the same on every process.
        procs: this process among those of the run.

    Attributes:
        network: in training mode.
        average: the network with the averaged weights, in evaluation mode.
        step: optimiser steps done.
        batch: rows of a global batch.
        tally: losses and norms since it was last cleared.
        look: steps between two calls of `check`, and of what else waits for the device or for other processes.

    Raises:
        TrainingError: if there are no data, or they do not fit on the device.
        LaunchError: if there are more processes than rows in a batch, or the precision is not to be had.
    """

    def __init__(self, part: Part, config: Config, data: Rows, procs: Processes) -> None:
        self.part, self.settings, self.procs = part, config.train, procs
        self.batch = effective_batch(self.settings.batch, count(data), procs)
        torch.manual_seed(seed_of(config.seed, f"{part.name}:weights", "train"))
        self.network = part.network()
        self.average = copy.deepcopy(self.network)
        try:
            data = {name: values.to(procs.device) for name, values in data.items()}
            self.network.to(procs.device).train()
            self.average.to(procs.device).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            size = sum(v.numel() * v.element_size() for v in data.values()) / 2**30
            raise TrainingError(
                f"{procs.device} has no room for the data ({size:.1f} GiB) and the network: {_first_line(error)}",
                remedy="use a larger GPU, free this one, or set train.device: cpu",
            ) from None
        self.batches = Batches(part, data, self.batch, config.seed)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), self.settings.learning_rate, betas=(0.9, 0.99), fused=True
        )
        self.forward: Any = procs.wrap(self.network)
        if self.settings.compile:
            graphs = procs.device.type == "cuda" and procs.size == 1  # in CUDA graphs, which DDP's hooks do not suit
            self.forward = torch.compile(self.forward, mode="reduce-overhead" if graphs else "default")
        self.autocast = autocast(self.settings, procs.device)
        self.step = 0
        self.tally = Tally(procs.device)
        self.look = LOOK if procs.device.type == "cuda" or procs.size > 1 else 1
        self._parameters = list(self.network.parameters())
        self._averaged = list(self.average.parameters())
        self._bad_step = torch.zeros((), device=procs.device)
        self._bad_loss = torch.zeros((), device=procs.device)

    def advance(self) -> None:
        """Do one step.

        Raises:
            TrainingError: if the batch does not fit into the device's memory; the message says which would.
        """
        try:
            self._advance()
            return
        except torch.OutOfMemoryError as error:
            reason = _first_line(error)
        # only now, without the error's frames, is the memory of the step free
        raise out_of_memory(self.step + 1, reason, self._attempt, self.batch, self.procs)

    def _advance(self) -> None:
        step = self.step + 1
        rate = learning_rate(step, self.settings.steps, self.settings.learning_rate, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.batches.seed_network(step - 1, self.procs)
        rows, drawn = self.batches.share(step - 1, self.procs)
        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            losses = self.part.losses(self.forward, rows, drawn)
        self.procs.mean_loss(losses, self.batch).backward()
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        # clipped inside the fused kernel, which divides by this, as for GradScaler: no pass of its own over gradients
        self.optimiser.grad_scale = (norm / self.settings.grad_clip).clamp(min=1.0)  # type: ignore[attr-defined]
        self._watch(step, norm, losses)
        self.optimiser.step()
        if step % AVERAGE == 0 or step == self.settings.steps:
            self._update_average(step)
        self.tally.add(losses, self.part.levels(drawn))
        self.tally.add_norm(norm)
        self.step = step

    def _watch(self, step: int, norm: Tensor, losses: Tensor) -> None:
        """From the first gradient on that is no finite number, keep the weights; stop at once where looking is free.

        After DDP's average every process holds the same gradients, so that all stop at the same step.
        """
        first = (self._bad_step == 0) & ~torch.isfinite(norm)
        if self.look == 1:
            if first.item():
                self._bad_step.fill_(step)
                self._bad_loss.copy_(losses.detach().mean())
                self.check()
            return
        self._bad_step = torch.where(first, float(step), self._bad_step)
        self._bad_loss = torch.where(first, losses.detach().mean(), self._bad_loss)
        # where this is 1 the fused kernel leaves out its update, as it does for GradScaler
        self.optimiser.found_inf = (self._bad_step > 0).float()  # type: ignore[attr-defined]

    def check(self) -> None:
        """Raise if a gradient was no finite number since the last look.

        Raises:
            TrainingError: naming the step.
        """
        step = int(self._bad_step.item())
        if step:
            rate = learning_rate(step, self.settings.steps, self.settings.learning_rate, self.settings.warmup)
            raise TrainingError(
                f"the gradient is not a finite number at step {step} (loss on process {self.procs.rank}: "
                f"{self._bad_loss.item():.4g}, learning rate {rate:.2g})",
                remedy="lower train.learning_rate; the folder checkpoints/ keeps the last good state, if any",
            )

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Draw in the weights after `step`, in the name of all steps since the last multiple of AVERAGE.

        Without torch's AveragedModel, whose counter would be copied to the device, and waited for, each time.
        """
        since = range((step - 1) // AVERAGE * AVERAGE + 1, step + 1)
        get_ema_multi_avg_fn(math.prod(decay(self.settings.ema, s) for s in since))(
            self._averaged, self._parameters, step
        )
        for mine, theirs in zip(self.average.buffers(), self.network.buffers(), strict=True):
            mine.copy_(theirs)

    def _attempt(self, share: int) -> None:
        """A step on the first rows of this process alone, to see whether so many fit. Leaves the weights useless."""
        self.optimiser.zero_grad(set_to_none=True)
        device = self.procs.device
        rows = {name: values[:share] for name, values in self.batches.data.items()}
        drawn = self.part.draw(share, torch.Generator(device).manual_seed(0))
        with self.autocast():
            losses = self.part.losses(self.network, rows, drawn)
        losses.mean().backward()
        self.optimiser.step()

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on as if nothing had happened; all processes call it."""
        return {
            "step": self.step,
            "batch": self.batch,
            "weights": self.network.state_dict(),
            "ema": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict()["state"],
            "tally": self.tally.total(self.procs),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, perhaps one of another number of processes or another device."""
        self.step = state["step"]
        self.network.load_state_dict(state["weights"])
        self.average.load_state_dict(state["ema"])
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state["optimiser"], "param_groups": groups})
        self.tally.clear()
        if self.procs.first:
            self.tally.sums.copy_(state["tally"])


def autocast(settings: TrainConfig, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """The context that the network runs in: bfloat16 products where `train.precision` says so.

    Raises:
        LaunchError: if bf16 is asked for on a GPU that has none.
    """
    able = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and not able:
        raise LaunchError("train.precision is bf16, which this GPU does not have", remedy="set train.precision: fp32")
    if settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda" and able):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext


def decay(final: float, step: int) -> float:
    """What a step leaves of the averaged weights.

    None of the fresh weights at first, then ever more: else the first steps would weigh in short runs.
    """
    return 0.0 if step == 1 else min(final, step / (9 + step))


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up over `warmup` steps (at most a tenth of all), then half a cosine down to 1 % of the peak."""
    warmup = min(warmup, steps // 10)
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["out of memory"])[0]
