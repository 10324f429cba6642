"""Noise schedules: how much of the signal is left after each step of the forward process.

The arrays are indexed by t = 0 ... T-1, which stand for the papers' t = 1 ... T. All are float64 on the CPU:
alpha_bar falls to about 1e-9, which float32 products would lose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear")


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward process q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) 1).

    Attributes:
        beta: (T,) float64, variance added by each step, in (0, 1).
    """

    beta: Tensor

    @classmethod
    def of(cls, name: str, steps: int) -> Schedule:
        """The schedule called `name` (`cosine` or `linear`) with `steps` steps.

        Raises:
            ValueError: for another name.
        """
        if name == "cosine":
            return cls(cosine_beta(steps))
        if name == "linear":
            return cls(linear_beta(steps))
        raise ValueError(f"no schedule {name!r}; there are {', '.join(SCHEDULES)}")

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)

    @property
    def alpha_bar(self) -> Tensor:
        """(T,) float64, share of the signal's variance that is left: the product of 1 - beta."""
        return torch.cumprod(1 - self.beta, 0)

    @property
    def half_log_snr(self) -> Tensor:
        """(T,) float64, lambda = log(a / s), half the logarithm of the signal-to-noise ratio; falls with t."""
        alpha_bar = self.alpha_bar
        return 0.5 * (alpha_bar.log() - (1 - alpha_bar).log())

    def amplitudes(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar), each (T,) float32: amplitudes of signal and noise."""
        alpha_bar = self.alpha_bar
        return alpha_bar.sqrt().float().to(device), (1 - alpha_bar).sqrt().float().to(device)


def cosine_beta(steps: int, s: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """(T,) betas of the cosine schedule, Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17."""
    f = torch.cos((torch.linspace(0, 1, steps + 1, dtype=torch.float64) + s) / (1 + s) * torch.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=beta_max)


def linear_beta(steps: int) -> Tensor:
    """(T,) betas of Ho et al. 2020 (arXiv 2006.11239): 1e-4 to 0.02 at T = 1000, scaled to other T."""
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64).clamp(max=0.999)
