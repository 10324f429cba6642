"""Samplers: from noise to data, step by step.

Contract: `x_T` (B, *shape) is standard normal noise; `estimate(x, t)` returns the estimate of x0 at time t; the
result is (B, *shape). A sampler draws no random numbers itself: `noise()` returns the next (B, *shape) of standard
normal noise, so that every sample can have its own stream.

Symbols as in `objective.py`: a and s are the amplitudes of signal and noise, lambda = log(a / s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hpcgen.diffusion.objective import Network, Objective
from hpcgen.diffusion.schedules import Schedule

if TYPE_CHECKING:
    from hpcgen.diffusion.conditions import ConditionLayout

Estimate = Callable[[Tensor, int], Tensor]

SAMPLERS = ("ddpm", "ddim", "dpm++")
LOWEST = -5.1  # lambda at which the solver begins: the signal's amplitude is 0.006, as good as none


def denoiser(
    model: Network, schedule: Schedule, objective: Objective, bounds: tuple[Tensor, Tensor] | None = None
) -> Estimate:
    """The estimate of x0 that a trained network makes at an integer time.

    Args:
        model: the network, with its conditions (`guided`) if it has any.
        schedule: the forward process it was trained with.
        objective: what it was trained to predict.
        bounds: lowest and highest value of each dimension, (*shape) each, that estimates are kept within. With the
            noise objective the estimate at the last time is eps / 5e-5, so without bounds one error there ruins all.
    """
    alpha_bar = schedule.alpha_bar
    a, s = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()

    def estimate(x_t: Tensor, t: int) -> Tensor:
        times = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
        x0 = objective.x0(model(x_t, times), x_t, a[t], s[t])
        return x0 if bounds is None else torch.maximum(torch.minimum(x0, bounds[1]), bounds[0])

    return estimate


def guided(network: Callable[..., Tensor], layout: ConditionLayout, c: Tensor, guidance: float) -> Network:
    """The network for conditions c (B, Dc), led away from what it would do without them.

    (1 + w) f(x, c) - w f(x, c without what may be asked for): Ho & Salimans 2022 (arXiv 2207.12598), eq. 6. Both
    are one call of 2 B rows. With w = 0, and where nothing may be left out, it is the plain f(x, c).
    """
    if guidance == 0 or not layout.groups:
        return lambda x, t: network(x, t, c)
    both = torch.cat([c, layout.without(c)])

    def led(x: Tensor, t: Tensor) -> Tensor:
        asked, free = network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return (1 + guidance) * asked - guidance * free

    return led


def sample(sampler: str, estimate: Estimate, schedule: Schedule, steps: int, noise: Callable[[], Tensor]) -> Tensor:
    """(B, *shape) by the sampler of that name, `ddpm` in all steps of the schedule and the others in `steps`.

    Raises:
        ValueError: if there is no such sampler, or it cannot take so many steps.
    """
    return denoise(sampler, estimate, noise(), schedule, steps, noise, schedule.steps - 1)


def denoise(
    sampler: str,
    estimate: Estimate,
    x: Tensor,
    schedule: Schedule,
    steps: int,
    noise: Callable[[], Tensor],
    start: int,
) -> Tensor:
    """As `sample`, from x (B, *shape) with the noise of time `start` instead of from pure noise.

    Raises:
        ValueError: as `sample`; `steps` beyond 1 ... start + 1, the times that are left, are too many.
    """
    if sampler == "ddpm":
        return ddpm(estimate, x, schedule, noise, start)
    if sampler == "ddim":
        return ddim(estimate, x, schedule, steps, start)
    if sampler == "dpm++":
        return dpm_solver(estimate, x, schedule, steps, start)
    raise ValueError(f"no sampler {sampler!r}; there are {', '.join(SAMPLERS)}")


@torch.no_grad()
def ddpm(
    estimate: Estimate, x_T: Tensor, schedule: Schedule, noise: Callable[[], Tensor], start: int | None = None
) -> Tensor:
    """Ancestral sampling over all steps from `start` (the last if None): Ho et al. 2020 (arXiv 2006.11239), alg. 2."""
    beta, alpha_bar = schedule.beta.tolist(), schedule.alpha_bar.tolist()
    x = x_T
    for t in range(schedule.steps - 1 if start is None else start, 0, -1):
        before, remaining = alpha_bar[t - 1], 1 - alpha_bar[t]
        of_x0 = before**0.5 * beta[t] / remaining
        of_x = (1 - beta[t]) ** 0.5 * (1 - before) / remaining
        deviation = (beta[t] * (1 - before) / remaining) ** 0.5
        x = of_x0 * estimate(x, t) + of_x * x + deviation * noise()
    return estimate(x, 0)


@torch.no_grad()
def ddim(estimate: Estimate, x_T: Tensor, schedule: Schedule, steps: int, start: int | None = None) -> Tensor:
    """Deterministic sampling in `steps` evenly spaced steps: Song et al. 2020 (arXiv 2010.02502), eq. 12, eta = 0.

    Raises:
        ValueError: as `even_times`.
    """
    times = even_times(schedule, steps, start)
    alpha_bar = schedule.alpha_bar.tolist()
    x = x_T
    for t, u in pairwise(times):
        x0 = estimate(x, t)
        eps = (x - alpha_bar[t] ** 0.5 * x0) / (1 - alpha_bar[t]) ** 0.5
        x = alpha_bar[u] ** 0.5 * x0 + (1 - alpha_bar[u]) ** 0.5 * eps
    return estimate(x, times[-1])


@torch.no_grad()
def dpm_solver(estimate: Estimate, x_T: Tensor, schedule: Schedule, steps: int, start: int | None = None) -> Tensor:
    """DPM-Solver++(2M) in `steps` estimates: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.

    The first step is of first order, and so is the last, from the least noise of the schedule to none: there the
    solution is the estimate itself. Error in between: second order in the step of lambda.

    Raises:
        ValueError: as `log_snr_times`.
    """
    times = log_snr_times(schedule, steps, start)
    half_log_snr, alpha_bar = schedule.half_log_snr, schedule.alpha_bar
    a, s = alpha_bar.sqrt().tolist(), (1 - alpha_bar).sqrt().tolist()
    h = (half_log_snr[times[1:]] - half_log_snr[times[:-1]]).tolist()
    x, previous = x_T, None
    for i, (t, u) in enumerate(pairwise(times)):
        x0 = estimate(x, t)
        if previous is None:
            D = x0
        else:
            r = h[i - 1] / h[i]
            D = (1 + 0.5 / r) * x0 - 0.5 / r * previous
        x, previous = s[u] / s[t] * x - a[u] * math.expm1(-h[i]) * D, x0
    return estimate(x, times[-1])


def even_times(schedule: Schedule, steps: int, start: int | None = None) -> list[int]:
    """`steps` different times from `start` (None: T - 1) down, evenly spaced; all of them for steps = start + 1.

    Raises:
        ValueError: if `steps` is not in 1 ... start + 1.
    """
    total = _times(schedule, steps, start)
    return [total - 1 - i * total // steps for i in range(steps)]


def log_snr_times(schedule: Schedule, steps: int, start: int | None = None) -> list[int]:
    """`steps` different times, evenly spaced in lambda as far as whole numbers allow, from `LOWEST` to time 0.

    Args:
        schedule: of the model.
        steps: how many.
        start: the first of them, at which there is still signal; None: where lambda comes to `LOWEST`.

    Raises:
        ValueError: if `steps` is not in 1 ... start + 1.
    """
    total = _times(schedule, steps, start)
    half_log_snr = schedule.half_log_snr[:total]
    wanted = torch.linspace(max(LOWEST, float(half_log_snr[-1])), float(half_log_snr[0]), steps, dtype=torch.float64)
    # half_log_snr falls with time: the nearest time to each, searched for in the reverse
    after = torch.searchsorted(half_log_snr.flip(0), wanted).clamp(1, total - 1)
    rising = half_log_snr.flip(0)
    nearer = torch.where(wanted - rising[after - 1] < rising[after] - wanted, after - 1, after)
    times = [total - 1 - int(i) for i in nearer]
    for i in range(1, steps):  # where there are fewer times than steps
        times[i] = min(times[i], times[i - 1] - 1)
    for i in range(steps - 1, -1, -1):
        times[i] = max(times[i], steps - 1 - i)
    return times


def _times(schedule: Schedule, steps: int, start: int | None) -> int:
    """How many times there are from `start` (None: the last) down to 0."""
    total = schedule.steps if start is None else start + 1
    if not 1 <= total <= schedule.steps:
        raise ValueError(f"time {start} of a schedule with the times 0 to {schedule.steps - 1}")
    if not 1 <= steps <= total:
        raise ValueError(f"this model can be sampled in 1 to {total} steps, not {steps}")
    return total
