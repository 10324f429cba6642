"""What the training loop trains: a part of a generator, one network with its random numbers and its loss.

A family has one part (the joint vector of the paper) or several (composition, lattice, descriptor). The loop knows
neither diffusion nor crystals: it deals out rows and random numbers, and takes the mean of the losses.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Rows = dict[str, Tensor]
"""Named tensors (M, ...): `x` (M, *shape) float32, and `c` (M, Dc) float32, the conditions, where there are some."""


class Part(Protocol):
    """One network of a generator, and how it is trained.

    Attributes:
        name: of the part, such as `joint`; its checkpoints, its lines of train.csv and its random streams have it.
        select: which averaged weights sample if the configuration does not say: `last`, or `best` by validation loss.
    """

    name: str
    select: Literal["last", "best"]

    def network(self) -> nn.Module:
        """The network with fresh weights from torch's global generator."""
        ...

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of a global batch of B rows, each (B, ...), on the generator's device."""
        ...

    def losses(self, network: nn.Module, rows: Rows, drawn: dict[str, Tensor]) -> Tensor:
        """The loss of each row, (B',), for B' rows with their random numbers.

        `network` is as `network()` made it, wrapped by DDP or compiled; to be called once.
        """
        ...

    def levels(self, drawn: dict[str, Tensor]) -> Tensor | None:
        """The noise level of each row, (B',) in 0 ... 1, by which losses are reported; None if it has none."""
        ...
