"""The training of one part: steps, lines of train.csv, checkpoints, stopping and going on.

A training that was interrupted and goes on equals one that was not, on the CPU bit by bit: what is drawn follows from
the seed and the step (`batches.py`), and the rest of the state is in the checkpoints (`keeper.py`). With another number
of processes the global batches are the same, and sums round differently.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from torch import nn
from tqdm import tqdm

from hpcgen.config import Config
from hpcgen.train.ddp import Processes
from hpcgen.train.history import History
from hpcgen.train.keeper import Keeper
from hpcgen.train.part import Part, Rows
from hpcgen.train.trainer import Trainer, learning_rate
from hpcgen.train.validation import validation_loss

log = logging.getLogger("hpcgen")

Score = Callable[[int, nn.Module], dict[str, float]]
"""(step, network with averaged weights) -> what to write down of a small sample, by column of train.csv."""


def train(
    part: Part,
    config: Config,
    data: Rows,
    validation: Rows,
    procs: Processes,
    *,
    keeper: Keeper | None = None,
    history: History | None = None,
    score: Score | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Trainer:
    """Train a part, from its newest checkpoint on if there is one, to the last step or until told to stop.

    Args:
        part: what is trained.
        config: the section train and the seed are used.
        data: training rows by name, (M, ...) float32, the same on every process.
        validation: validation rows likewise, (V, ...); V may be 0, then there is no validation loss.
        procs: this process among those of the run; all call this.
        keeper: checkpoints; used on process 0, where None stores none.
        history: train.csv; used on process 0, where None writes none.
        score: called on process 0 for every `train.score_every`-th line of train.csv and the last.
        stop: looked at between steps on every process; if one is told to stop, all do, with a checkpoint.

    Returns:
        The trainer; its `step` is below `train.steps` if it was told to stop.

    Raises:
        TrainingError: if there are no data, a batch does not fit into memory, or a gradient is not a finite number.
            What was kept before stays.
        CheckpointError: if there are checkpoints of another family, configuration or data set.
        LaunchError: if there are more processes than rows in a batch.
        StoreError: if a checkpoint cannot be written.
    """
    settings = config.train
    session = _Session(part, config, data, validation, procs, keeper, history, score)
    trainer = session.trainer
    stopped = False
    quiet = None if procs.first else True  # None: no bar unless on a terminal
    with tqdm(total=settings.steps, initial=trainer.step, desc=f"train {part.name}", unit="step", disable=quiet) as bar:
        while trainer.step < settings.steps and not stopped:
            trainer.advance()
            bar.update()
            step = trainer.step
            last = step == settings.steps
            line = last or step % settings.validate_every == 0
            keep = last or step % settings.checkpoint_every == 0
            if line or keep or step % trainer.look == 0:
                trainer.check()
                stopped = procs.any(stop())
                if line:
                    bar.set_postfix_str(session.write_line(), refresh=False)
                if keep or stopped:
                    session.keep()
    session.close()
    procs.wait()  # a launcher may end all processes when one has ended, and process 0 still writes
    return trainer


class _Session:
    """A training with what is written down and kept of it; all processes call its methods together."""

    def __init__(
        self,
        part: Part,
        config: Config,
        data: Rows,
        validation: Rows,
        procs: Processes,
        keeper: Keeper | None,
        history: History | None,
        score: Score | None,
    ) -> None:
        self.config, self.procs = config, procs
        self.trainer = trainer = Trainer(part, config, data, procs)
        self.validation = {name: values.to(procs.device) for name, values in validation.items()}
        found = procs.first_does(lambda: keeper.newest() if keeper else None)
        self.best = math.inf
        if found is not None:
            trainer.restore(found)
            self.best = found["best"]
            if procs.first:
                log.info("train: %s goes on after step %d of %d", part.name, trainer.step, config.train.steps)
        self.keeper, self.history, self.score = (keeper, history, score) if procs.first else (None, None, None)
        self.seconds = self.history.begin(trainer.step) if self.history else 0.0
        self._lap, self._lap_step = time.perf_counter(), trainer.step

    def write_line(self) -> str:
        """Measure, write a line of train.csv, and keep the averaged weights if they are the best so far."""
        trainer, settings, step = self.trainer, self.config.train, self.trainer.step
        losses = trainer.tally.mean(self.procs)  # waits for the device
        trainer.tally.clear()
        elapsed = time.perf_counter() - self._lap
        speed = (step - self._lap_step) * trainer.batch / elapsed
        self.seconds += elapsed
        with trainer.autocast():
            held_out = validation_loss(trainer.part, trainer.average, self.validation, self.procs, self.config.seed)
        values = {
            **losses.columns("train_loss"),
            **held_out.columns("validation_loss"),
            "learning_rate": learning_rate(step, settings.steps, settings.learning_rate, settings.warmup),
            "gradient_norm": losses.norm,
            "samples_per_s": speed,
            "seconds": self.seconds,
        }
        number = math.ceil(step / settings.validate_every)
        if self.score and settings.score_every and (step == settings.steps or number % settings.score_every == 0):
            values |= self.score(step, trainer.average)
        if self.history:
            self.history.write(step, values)
        if held_out.loss < self.best:
            self.best = held_out.loss
            if self.keeper:
                weights = trainer.average.state_dict()
                self.keeper.save_best({"step": step, "validation_loss": self.best, "ema": weights})
        said = f"loss {losses.loss:.4f}, validation {held_out.loss:.4f}"
        if self.procs.first:
            name = trainer.part.name
            log.info("train: %s, step %d of %d, %s, %.0f samples/s", name, step, settings.steps, said, speed)
        self._lap, self._lap_step = time.perf_counter(), step
        return said

    def keep(self) -> None:
        """Store what is needed to go on from here."""
        state = self.trainer.state() | {"best": self.best}
        if self.keeper:
            self.keeper.save(state)

    def close(self) -> None:
        """Close files."""
        if self.history:
            self.history.close()
