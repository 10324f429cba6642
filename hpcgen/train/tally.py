"""Losses by noise level, summed on the device: reading them waits for it, adding to them does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcgen.train.ddp import Processes

BANDS = 4
"""Bands of the noise level, equally wide, from little noise to much."""


@dataclass(frozen=True)
class Mean:
    """The mean of losses, that of each band (NaN where there was no row), and that of the gradients' norms."""

    loss: float
    bands: tuple[float, ...]
    norm: float

    def columns(self, prefix: str) -> dict[str, float]:
        """As columns of train.csv: `train_loss`, `train_loss_1` ... for the prefix `train_loss`."""
        return {prefix: self.loss, **{f"{prefix}_{i + 1}": v for i, v in enumerate(self.bands)}}


class Tally:
    """Sums over the rows of this process, since the last `clear`.

    Attributes:
        sums: float64: losses, rows, losses by band, rows by band, norms, steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._edges = torch.arange(BANDS, device=device)
        self.sums = torch.zeros(4 + 2 * BANDS, dtype=torch.float64, device=device)

    def add(self, losses: Tensor, levels: Tensor | None) -> None:
        """Add the losses (B',) of rows with these noise levels (B',) in 0 ... 1."""
        values = losses.detach().double()
        self.sums[0] += values.sum()
        self.sums[1] += len(values)
        if levels is not None:
            band = (levels * BANDS).long().clamp(max=BANDS - 1)
            among = (band[:, None] == self._edges).double()  # a sum by products is the same every time, on a GPU too
            self.sums[2 : 2 + BANDS] += values @ among
            self.sums[2 + BANDS : 2 + 2 * BANDS] += among.sum(0)

    def add_norm(self, norm: Tensor) -> None:
        """Add the norm of a step's gradient, which is that of the global batch on every process."""
        self.sums[-2] += norm.detach()
        self.sums[-1] += 1

    def total(self, procs: Processes) -> Tensor:
        """`sums` over all processes; all call it."""
        return procs.total(self.sums.clone())

    def mean(self, procs: Processes) -> Mean:
        """The means over all processes; all call it."""
        total = self.total(procs).tolist()
        ratio = [a / b if b else math.nan for a, b in zip(total[2 : 2 + BANDS], total[2 + BANDS : -2], strict=True)]
        loss, norm = (total[i] / total[i + 1] if total[i + 1] else math.nan for i in (0, -2))
        return Mean(loss, tuple(ratio), norm)

    def clear(self) -> None:
        """Begin anew."""
        self.sums.zero_()
