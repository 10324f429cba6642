"""The training loop: AdamW, warm-up and cosine decay, clipped gradients, a moving average of the weights.

Everything random is drawn for the global batch from a stream that the run's seed and the step (or epoch) number
determine, so that it does not depend on the number of processes.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from hpcgen import diffusion, models
from hpcgen.config import Config
from hpcgen.diffusion.objective import draw_times
from hpcgen.errors import LaunchError, TrainingError
from hpcgen.flow import seed_of
from hpcgen.train.ddp import Processes

if TYPE_CHECKING:
    from hpcgen.diffusion.objective import Objective

log = logging.getLogger("hpcgen")

COLUMNS = ("step", "train_loss", "validation_loss", "learning_rate", "samples_per_s", "seconds")
Params = tuple[Tensor, ...] | list[Tensor]
VALIDATION_DRAWS = 4096  # at least so many (row, time, noise) triples, the same at every validation


@dataclass(frozen=True, eq=False)
class Weights:
    """What a checkpoint takes from the loop: the network after `step` and its moving average."""

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]


def train(
    config: Config,
    data: Tensor,
    validation: Tensor,
    procs: Processes,
    *,
    keep: Callable[[Weights], None],
    csv_path: Path | None = None,
) -> nn.Module:
    """Train the configured network, and return it with its averaged weights (in evaluation mode).

    Args:
        config: sections model, diffusion, train and the seed are used.
        data: (M, *shape) float32 scaled training vectors, on the device, the same on every process.
        validation: (V, *shape) likewise; V may be 0, then there is no validation loss.
        procs: this process among those of the run.
        keep: called on process 0 every `train.checkpoint_every` steps and after the last.
        csv_path: where process 0 writes the columns `COLUMNS`, a line every `train.validate_every` steps.

    Raises:
        TrainingError: if there are no data, or a loss is not a finite number. What was kept before stays.
        LaunchError: if there are more processes than samples in a batch.
    """
    settings = config.train
    batch = effective_batch(settings.batch, len(data), procs)
    torch.manual_seed(seed_of(config.seed, "weights", "train"))
    model = models.build(config.model, tuple(data.shape[1:])).to(procs.device)
    wrapped = procs.wrap(model)
    ema = AveragedModel(model, multi_avg_fn=moving_average(settings.ema))
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    schedule = diffusion.Schedule.of(config.diffusion.schedule, config.diffusion.steps)
    objective = diffusion.OBJECTIVES[config.diffusion.objective]
    batches = Batches(data, batch, config.seed, schedule)
    started = lap = time.perf_counter()
    running, since = 0.0, 0
    with _Table(csv_path if procs.first else None) as write:
        bar = tqdm(range(1, settings.steps + 1), "train", unit="step", disable=None if procs.first else True)
        for step in bar:
            rate = learning_rate(step, settings.steps, settings.learning_rate, settings.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate
            x0, t, eps = batches.share(step - 1, procs)
            losses = diffusion.loss(wrapped, x0, t, eps, schedule, objective)
            optimiser.zero_grad(set_to_none=True)
            procs.mean_loss(losses, batch).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            # After DDP's average every process holds the same gradients, so that all stop at the same step.
            if not math.isfinite(norm.item()):
                raise TrainingError(
                    f"the gradient is not a finite number at step {step} (loss on process {procs.rank}: "
                    f"{losses.mean().item():.4g}, learning rate {rate:.2g})",
                    remedy="lower train.learning_rate; checkpoint.partial.pt keeps the last good state, if any",
                )
            optimiser.step()
            ema.update_parameters(model)
            running, since = running + losses.sum().item(), since + 1
            last = step == settings.steps
            if last or step % settings.validate_every == 0:
                valid = validation_loss(ema.module, validation, procs, schedule, objective, config.seed)
                mean = procs.total(torch.tensor(running, device=procs.device)).item() / (since * batch)
                now = time.perf_counter()
                speed = since * batch / (now - lap)
                write((step, f"{mean:.6g}", f"{valid:.6g}", f"{rate:.4g}", f"{speed:.1f}", f"{now - started:.1f}"))
                if procs.first:
                    log.info(
                        "train: step %d of %d, loss %.4f, validation %.4f, %.0f samples/s",
                        step, settings.steps, mean, valid, speed,
                    )  # fmt: skip
                    bar.set_postfix(loss=f"{mean:.4f}", validation=f"{valid:.4f}")
                running, since, lap = 0.0, 0, time.perf_counter()
            if procs.first and (last or step % settings.checkpoint_every == 0):
                keep(Weights(step, model.state_dict(), ema.module.state_dict()))
    return ema.module.eval()


def effective_batch(batch: int, rows: int, procs: Processes) -> int:
    """The global batch: at most the rows there are, at least one sample for each process.

    Raises:
        TrainingError: if there are no rows.
        LaunchError: if there are more processes than samples in a batch.
    """
    if rows == 0:
        raise TrainingError("there are no training vectors", remedy="give more data, or lower data.test_fraction")
    if batch > rows and procs.first:
        log.warning("train.batch is %d and there are %d training vectors: batches of %d", batch, rows, rows)
    batch = min(batch, rows)
    if batch < procs.size:
        raise LaunchError(
            f"{procs.size} processes share batches of {batch}", remedy="start fewer processes, or raise train.batch"
        )
    return batch


class Batches:
    """Global batches: the rows in a new order each epoch, with a time and noise for each.

    Batches run on across the ends of epochs, so that every row is used equally often.
    """

    def __init__(self, data: Tensor, batch: int, seed: int, schedule: diffusion.Schedule) -> None:
        self.data, self.batch, self.seed, self.schedule = data, batch, seed, schedule
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(seed_of(self.seed, f"epoch:{epoch}", "train"))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = torch.randperm(len(self.data), generator=generator)
        return self._orders[epoch]

    def rows(self, step: int) -> Tensor:
        """(B,) rows of the batch of this step (from 0)."""
        size, out = len(self.data), []
        position, end = step * self.batch, (step + 1) * self.batch
        while position < end:
            epoch, start = divmod(position, size)
            part = self._order(epoch)[start : start + end - position]
            out.append(part)
            position += len(part)
        return torch.cat(out)

    def share(self, step: int, procs: Processes) -> tuple[Tensor, Tensor, Tensor]:
        """x0 (B', *shape), t (B',), eps (B', *shape) of this process' share, on its device."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, f"step:{step}", "train"))
        t = draw_times(self.batch, self.schedule, generator)
        eps = torch.randn(self.batch, *self.data.shape[1:], generator=generator)
        mine = procs.share(self.batch)
        rows = self.rows(step)[mine].to(self.data.device)
        return self.data[rows], t[mine].to(procs.device), eps[mine].to(procs.device)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up over `warmup` steps (at most a tenth of all), then half a cosine down to 1 % of the peak."""
    warmup = min(warmup, steps // 10)
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def moving_average(decay: float) -> Callable[[Params, Params, Tensor | int], None]:
    """The update of the averaged weights.

    The decay rises as (1 + n) / (10 + n) up to its final value: otherwise the first steps would weigh in short runs.
    """

    @torch.no_grad()
    def update(averaged: Params, current: Params, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    data: Tensor,
    procs: Processes,
    schedule: diffusion.Schedule,
    objective: Objective,
    seed: int,
    chunk: int = 256,
) -> float:
    """Mean loss over the rows at fixed times and noises, each row `VALIDATION_DRAWS / V` times; NaN without rows."""
    if len(data) == 0:
        return math.nan
    generator = torch.Generator().manual_seed(seed_of(seed, "noise", "validation"))
    repeats = min(16, math.ceil(VALIDATION_DRAWS / len(data)))
    rows = torch.arange(len(data)).repeat(repeats)
    t = draw_times(len(rows), schedule, generator)[torch.randperm(len(rows), generator=generator)]
    total = torch.zeros((), device=procs.device, dtype=torch.float64)
    for number, start in enumerate(range(0, len(rows), chunk)):
        # Noise is drawn for every chunk, also for those of other processes, so that it is the same for any number.
        index = rows[start : start + chunk]
        eps = torch.randn(len(index), *data.shape[1:], generator=generator)
        if number % procs.size != procs.rank:
            continue
        inputs = data[index.to(data.device)], t[start : start + chunk].to(procs.device), eps.to(procs.device)
        total += diffusion.loss(model, *inputs, schedule, objective).double().sum()
    return procs.total(total).item() / len(rows)


class _Table:
    """Writes lines of train.csv as they come, so that a killed run leaves what it had."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.file: TextIO | None = None

    def __enter__(self) -> Callable[[tuple[object, ...]], None]:
        if self.path is None:
            return lambda row: None
        self.file = self.path.open("w", newline="", encoding="utf-8")
        self._write(COLUMNS)
        return self._write

    def _write(self, row: tuple[object, ...]) -> None:
        assert self.file is not None
        csv.writer(self.file).writerow(row)
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
