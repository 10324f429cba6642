"""A diffusion network as something to train: `train.part.Part` for a network, its noise schedule and its objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from hpcgen import models
from hpcgen.config import DiffusionConfig, ModelConfig
from hpcgen.diffusion.objective import OBJECTIVES, draw_times, loss_weights, q_sample
from hpcgen.diffusion.schedules import Schedule

if TYPE_CHECKING:
    from hpcgen.diffusion.conditions import ConditionLayout


class DiffusionPart:
    """A diffusion model of arrays of one shape, with or without a condition.

    Args:
        name: of the part, such as `joint`; its random streams and weights are filed under it.
        model: the network.
        diffusion: schedule, objective, weighting, and how often conditions are dropped.
        shape: of one array.
        condition: what the condition vectors are made of; None if there are none.

    Attributes:
        schedule: the forward process.
        objective: what the network predicts.
    """

    select: Literal["last", "best"] = "last"  # samples get better for long after the loss has stopped falling

    def __init__(
        self,
        name: str,
        model: ModelConfig,
        diffusion: DiffusionConfig,
        shape: tuple[int, ...],
        condition: ConditionLayout | None = None,
    ) -> None:
        self.name, self.shape, self.condition = name, tuple(shape), condition
        self._model, self._unconditional = model, diffusion.unconditional
        self.schedule = Schedule.of(diffusion.schedule, diffusion.steps)
        self.objective = OBJECTIVES[diffusion.objective]
        self._loss = diffusion.loss
        self._weights = loss_weights(self.schedule, self.objective, diffusion.weighting)
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def network(self) -> nn.Module:
        """The network with fresh weights from torch's global generator.

        Raises:
            ConfigError: if the network named cannot take arrays of this shape.
        """
        if self.condition is None:
            return models.build(self._model, self.shape)
        return models.build(self._model, self.shape, condition_width=self.condition.width)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of a global batch, on the generator's device.

        Returns:
            `t` (B,) int64 times, `eps` (B, *shape) float32 noise and, with a condition, `kept` (B, G) bool, which
            groups of it the network sees.
        """
        drawn = {
            "t": draw_times(batch, self.schedule, generator),
            "eps": torch.randn(batch, *self.shape, generator=generator, device=generator.device),
        }
        if self.condition is not None:
            drawn["kept"] = draw_kept(batch, len(self.condition.groups), self._unconditional, generator)
        return drawn

    def losses(self, network: nn.Module, rows: dict[str, Tensor], drawn: dict[str, Tensor]) -> Tensor:
        """(B,) weighted squared or absolute error of the network's output, mean over the dimensions.

        Args:
            network: as `network` makes it, wrapped or compiled.
            rows: `x` (B, *shape) and, with a condition, `c` (B, Dc).
            drawn: as `draw` gives it, for these rows.
        """
        x0, t, eps = rows["x"], drawn["t"], drawn["eps"]
        column = (-1,) + (1,) * len(self.shape)
        a, s, weight = (table[t] for table in self._on(x0.device))
        a, s = a.reshape(column), s.reshape(column)
        x_t = q_sample(x0, eps, a, s)
        if self.condition is None:
            output = network(x_t, t)
        else:
            output = network(x_t, t, self.condition.drop(rows["c"], drawn["kept"]))
        error = output.float() - self.objective.target(x0, eps, a, s)  # under autocast the output is bfloat16
        return weight * (error.square() if self._loss == "l2" else error.abs()).flatten(1).mean(1)

    def levels(self, drawn: dict[str, Tensor]) -> Tensor:
        """(B,) in (0, 1], the noise level as the share of the forward process that is done."""
        return (drawn["t"] + 1) / self.schedule.steps

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """a, s and weight of each time, (T,) float32 each, copied to a device once."""
        if device not in self._tables:
            self._tables[device] = (*self.schedule.amplitudes(device), self._weights.to(device))
        return self._tables[device]


def draw_kept(batch: int, groups: int, unconditional: float, generator: torch.Generator) -> Tensor:
    """(B, G) bool, which groups of conditions each row keeps.

    A share `unconditional` of the rows keeps none: that trains the other half of classifier-free guidance (Ho &
    Salimans 2022, arXiv 2207.12598, algorithm 1). The others keep 1 ... G groups, each number equally often and every
    choice of so many too, because people will ask for any one, or any few, of the conditions a model knows.
    """
    device = generator.device
    how_many = (torch.rand(batch, 1, generator=generator, device=device) * groups).floor() + 1
    rank = torch.rand(batch, groups, generator=generator, device=device).argsort(1).argsort(1)
    conditional = torch.rand(batch, 1, generator=generator, device=device) >= unconditional
    return (rank < how_many) & conditional
