"""The condition vector of a network: what may be asked for, and how to leave it out.

    c (B, width) = group ‖ group ‖ ... ‖ what is always known

A group stands for one thing that can be asked for. Its last entry is the presence flag: 1, or 0 where nothing is asked
or nothing is known, and then the whole group is zero. In training groups are dropped at random, so that one network
learns the estimate with and without each of them (classifier-free guidance: Ho & Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConditionLayout:
    """Where the groups of a condition vector lie.

    Attributes:
        width: length of the vector.
        groups: what may be left out, disjoint; entries of no group are always there.

    Raises:
        ValueError: if a group is empty, lies outside the vector, or overlaps the one before it.
    """

    width: int
    groups: tuple[slice, ...] = ()

    def __post_init__(self) -> None:
        end = 0
        for group in self.groups:
            if not (end <= group.start < group.stop <= self.width) or group.step is not None:
                raise ValueError(f"group {group} does not follow {end} within a condition of width {self.width}")
            end = group.stop

    def drop(self, c: Tensor, kept: Tensor) -> Tensor:
        """The conditions (B, width) with every group zeroed that `kept` (B, len(groups)) bool does not keep."""
        mask = torch.ones_like(c)
        for number, group in enumerate(self.groups):
            mask[:, group] = kept[:, number, None].to(c.dtype)
        return c * mask

    def without(self, c: Tensor) -> Tensor:
        """The conditions (B, width) with all groups dropped: what guidance leads away from."""
        return self.drop(c, torch.zeros(len(c), len(self.groups), dtype=torch.bool, device=c.device))
