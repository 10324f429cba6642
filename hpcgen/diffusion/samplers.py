"""Samplers: from noise to data, step by step.

Contract: `x_T` (B, *shape) is standard normal noise; `estimate(x, t)` returns the estimate of x0 at time t; the
result is (B, *shape). A sampler draws no random numbers itself: `noise()` returns the next (B, *shape) of standard
normal noise, so that every sample can have its own stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from hpcgen.diffusion.objective import Network, Objective
from hpcgen.diffusion.schedules import Schedule

Estimate = Callable[[Tensor, int], Tensor]
Progress = Callable[[Sequence[int]], Iterable[int]]


def denoiser(
    model: Network, schedule: Schedule, objective: Objective, bounds: tuple[Tensor, Tensor] | None = None
) -> Estimate:
    """The estimate of x0 that a trained network makes at an integer time.

    Args:
        model: the network.
        schedule: the forward process it was trained with.
        objective: what it was trained to predict.
        bounds: lowest and highest value of each dimension, (*shape) each, that estimates are kept within. With the
            noise objective the estimate at the last time is eps / 5e-5, so without bounds one error there ruins all.
    """
    alpha_bar = schedule.alpha_bar

    def estimate(x_t: Tensor, t: int) -> Tensor:
        a, s = float(alpha_bar[t].sqrt()), float((1 - alpha_bar[t]).sqrt())
        times = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
        x0 = objective.x0(model(x_t, times), x_t, a, s)
        return x0 if bounds is None else torch.maximum(torch.minimum(x0, bounds[1]), bounds[0])

    return estimate


@torch.no_grad()
def ddpm(
    estimate: Estimate, x_T: Tensor, schedule: Schedule, noise: Callable[[], Tensor], progress: Progress = iter
) -> Tensor:
    """Ancestral sampling over all steps: Ho et al. 2020 (arXiv 2006.11239), algorithm 2 with eq. 7."""
    beta, alpha_bar = schedule.beta, schedule.alpha_bar
    x = x_T
    for t in progress(range(schedule.steps - 1, -1, -1)):
        x0 = estimate(x, t)
        if t == 0:
            return x0
        before = float(alpha_bar[t - 1])
        remaining = 1 - float(alpha_bar[t])
        beta_t = float(beta[t])
        mean = before**0.5 * beta_t / remaining * x0 + (1 - beta_t) ** 0.5 * (1 - before) / remaining * x
        x = mean + (beta_t * (1 - before) / remaining) ** 0.5 * noise()
    raise ValueError("a schedule needs at least one step")


@torch.no_grad()
def ddim(estimate: Estimate, x_T: Tensor, schedule: Schedule, steps: int, progress: Progress = iter) -> Tensor:
    """Deterministic sampling in `steps` evenly spaced steps: Song et al. 2020 (arXiv 2010.02502), eq. 12, eta = 0.

    Raises:
        ValueError: if `steps` is not in 1 ... T.
    """
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"DDIM takes 1 to {schedule.steps} steps, not {steps}")
    times = ddim_times(schedule.steps, steps)
    alpha_bar = schedule.alpha_bar
    x = x_T
    for i in progress(range(steps)):
        t = times[i]
        x0 = estimate(x, t)
        if i == steps - 1:
            return x0
        now, after = float(alpha_bar[t]), float(alpha_bar[times[i + 1]])
        eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
        x = after**0.5 * x0 + (1 - after) ** 0.5 * eps
    raise ValueError("unreachable: steps >= 1")


def ddim_times(total: int, steps: int) -> list[int]:
    """`steps` different times from `total - 1` down, evenly spaced; all of them for steps = total."""
    return [total - 1 - i * total // steps for i in range(steps)]
