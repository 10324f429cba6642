"""What is written down while a training goes on: train.csv, and TensorBoard events where that package is installed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("part", "step", "train_loss", "validation_loss", "learning_rate", "gradient_norm", "samples_per_s", "seconds")
"""Columns that every line has; losses by band of the noise level and scores of samples come behind them."""


class History:
    """The lines of train.csv of one part; on process 0 only.

    A line is on disk when `write` returns. What a line has no value for is left empty.

    Args:
        path: train.csv; other parts may have lines in it.
        part: name of the part.
        events: folder for TensorBoard's event files; None writes none.
    """

    def __init__(self, path: Path, part: str, events: Path | None = None) -> None:
        self.path, self.part = path, part
        self._names = list(NAMES)
        self._events_folder = events if events is not None and find_spec("tensorboard") else None
        self._events: Any = None

    def begin(self, step: int) -> float:
        """Go on after a step (0: from the start), without lines of later ones, which will be computed again.

        Returns:
            The seconds that the last line kept has.
        """
        lines = [line for line in self._lines() if line["part"] != self.part or _number(line["step"]) <= step]
        names = {name: None for line in lines for name, value in line.items() if value}
        self._names = [*NAMES, *(name for name in names if name not in NAMES)]
        self._rewrite(lines)
        if self._events_folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            folder = self._events_folder / self.part
            self._events = SummaryWriter(str(folder), purge_step=step + 1)
        return max([_number(line["seconds"]) for line in lines if line["part"] == self.part], default=0.0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line; a column that is new is added to the file."""
        cells = {"part": self.part, "step": str(step), **{k: f"{v:.6g}" for k, v in values.items()}}
        new = [name for name in cells if name not in self._names]
        if new:
            self._names += new
            self._rewrite(self._lines())
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._names, restval="").writerow(cells)
        if self._events is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._events.add_scalar(name, value, step)
            self._events.flush()

    def close(self) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()

    def _lines(self) -> list[dict[str, str]]:
        """The whole lines of the file; a kill may have torn the last one."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        return [line for line in csv.DictReader(io.StringIO(whole)) if set(NAMES) <= line.keys()]

    def _rewrite(self, lines: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)
        temporary.replace(self.path)


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.inf
