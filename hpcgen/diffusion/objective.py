"""What the network is asked to predict, and how the errors at different noise levels are weighted.

Symbols: x0 a scaled training vector, eps standard normal noise, x_t = a x0 + s eps with a = sqrt(alpha_bar_t)
and s = sqrt(1 - alpha_bar_t); SNR = a^2 / s^2. a and s broadcast against x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from hpcgen.diffusion.schedules import Schedule

Network = Callable[[Tensor, Tensor], Tensor]
"""(x (B, *shape), t (B,)) -> (B, *shape)."""

WEIGHTINGS = ("plain", "min-snr")
GAMMA = 5.0  # of min-SNR weighting, as its paper recommends


class Objective(Protocol):
    """One parametrisation of the denoiser."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """What the network should return."""
        ...

    def x0(self, output: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        """The estimate of x0 that a network output means."""
        ...

    def per_x0(self, snr: Tensor) -> Tensor:
        """Squared error of the output that a squared error of 1 of the x0 estimate amounts to."""
        ...


class Noise:
    """The network predicts eps (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return eps

    def x0(self, output: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        return (x_t - s * output) / a

    def per_x0(self, snr: Tensor) -> Tensor:
        return snr


class X0:
    """The network predicts x0 itself."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return x0

    def x0(self, output: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        return output

    def per_x0(self, snr: Tensor) -> Tensor:
        return torch.ones_like(snr)


class V:
    """The network predicts v = a eps - s x0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D).

    Unlike eps it determines x0 at every noise level, the last one included, where eps / a amplifies any error.
    """

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return a * eps - s * x0

    def x0(self, output: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        return a * x_t - s * output

    def per_x0(self, snr: Tensor) -> Tensor:
        return snr + 1


OBJECTIVES: dict[str, Objective] = {"noise": Noise(), "v": V(), "x0": X0()}


def q_sample(x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """x_t of the forward process; x0 and eps (B, *shape), a and s (B, 1, ...)."""
    return a * x0 + s * eps


def loss_weights(schedule: Schedule, objective: Objective, weighting: str) -> Tensor:
    """(T,) float32, the weight of the squared error of the network's output at each time.

    `plain` is 1. `min-snr` weights the squared error of x0 by min(SNR, gamma), whatever the network predicts: Hang et
    al. 2023 (arXiv 2303.09556), eq. 10 and section 3.4.

    Raises:
        ValueError: for another weighting.
    """
    if weighting == "plain":
        return torch.ones(schedule.steps)
    if weighting == "min-snr":
        snr = torch.exp(2 * schedule.half_log_snr)
        return (snr.clamp(max=GAMMA) / objective.per_x0(snr)).float()
    raise ValueError(f"no weighting {weighting!r}; there are {', '.join(WEIGHTINGS)}")


def draw_times(batch: int, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """(B,) int64 times on the generator's device, each uniform on 0 ... T-1, together spread evenly.

    Kingma et al. 2021 (arXiv 2107.00630), appendix I.1: the mean loss of a batch varies less.
    """
    device = generator.device
    u = torch.rand((), generator=generator, dtype=torch.float64, device=device)
    even = (u + torch.arange(batch, dtype=torch.float64, device=device) / batch) % 1.0
    return (even * schedule.steps).long().clamp(max=schedule.steps - 1)


def loss(model: Network, x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule, objective: Objective) -> Tensor:
    """Squared error of the network's prediction, mean over the dimensions: (B,).

    Args:
        model: the network.
        x0: (B, *shape) scaled training vectors.
        t: (B,) int64 times in 0 ... T-1.
        eps: (B, *shape) standard normal noise.
        schedule: the forward process.
        objective: what the network predicts.
    """
    column = (-1,) + (1,) * (x0.ndim - 1)
    a, s = (v[t].reshape(column) for v in schedule.amplitudes(x0.device))
    output = model(q_sample(x0, eps, a, s), t)
    return (output - objective.target(x0, eps, a, s)).square().flatten(1).mean(1)
