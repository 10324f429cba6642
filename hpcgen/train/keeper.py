"""The checkpoints of a training that is not done: the last few, from which it goes on, and the best by validation.

    checkpoints/joint/step-000001000.pt   model, optimiser, averaged weights, sums for the next line of train.csv
    checkpoints/joint/best.pt             the averaged weights with the lowest validation loss so far

Random numbers, the order of rows and the learning rate need no state: they follow from the seed and the step.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcgen.train import plain
from hpcgen.train.checkpoint import Origin

log = logging.getLogger("hpcgen")

FORMAT = "hpcgen.training"
VERSION = 1
BEST = "best.pt"
State = dict[str, Any]


@dataclass(frozen=True)
class Keeper:
    """Writes and finds the checkpoints of one part; on process 0 only.

    Attributes:
        folder: of this part's checkpoints.
        origin: what is trained; files of another origin are an error.
        keep: how many of the last ones stay.
    """

    folder: Path
    origin: Origin
    keep: int

    def newest(self) -> State | None:
        """The state to go on from: the newest checkpoint that is whole; None if there is none.

        One that is damaged is renamed, with a warning.

        Raises:
            CheckpointError: if it is of another family, configuration or data set.
        """
        for path in reversed(self._files()):
            try:
                return self._read(path)
            except plain.DamagedError as error:
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                log.warning("train: %s; renamed to %s, the one before is taken", error.found, aside.name)
        return None

    def save(self, state: State) -> None:
        """Store the state after `state["step"]`, then delete all but the last `keep`.

        Raises:
            StoreError: if it cannot be written.
        """
        self._write(self.folder / f"step-{state['step']:09d}.pt", state)
        for path in self._files()[: -self.keep]:
            path.unlink(missing_ok=True)

    def save_best(self, state: State) -> None:
        """Store `step`, `validation_loss` and `ema` of the best so far."""
        self._write(self.folder / BEST, state)

    def best(self) -> State | None:
        """As `save_best` was given; None if there is none.

        Raises:
            CheckpointError: if it is damaged, or of another family, configuration or data set.
        """
        path = self.folder / BEST
        return self._read(path) if path.exists() else None

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def _write(self, path: Path, state: State) -> None:
        plain.write(path, FORMAT, VERSION, {"origin": asdict(self.origin), "state": state})

    def _read(self, path: Path) -> State:
        content = plain.read(path, FORMAT, VERSION)
        Origin(**content["origin"]).refuse(path, **asdict(self.origin))
        return content["state"]
