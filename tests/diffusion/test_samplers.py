"""Samplers against a distribution whose best denoiser is known."""

from __future__ import annotations

import pytest
import torch

from hpcgen.diffusion.objective import OBJECTIVES
from hpcgen.diffusion.samplers import ddim, ddim_times, ddpm, denoiser
from hpcgen.diffusion.schedules import Schedule

MEAN = torch.tensor([1.0, -0.5, 0.3])
SIGMA = torch.tensor([0.5, 1.2, 0.1])


def perfect_network(schedule, objective):
    """The best network for x0 ~ N(MEAN, SIGMA^2), of which the posterior mean of x0 is known."""

    def network(x_t, t):
        a, s = (v[t][:, None] for v in schedule.amplitudes())
        x0 = MEAN + a * SIGMA**2 / (a**2 * SIGMA**2 + s**2) * (x_t - a * MEAN)
        return OBJECTIVES[objective].target(x0, (x_t - a * x0) / s, a, s)

    return network


def draws(generator, n=20_000):
    return lambda: torch.randn(n, 3, generator=generator)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_ddpm_recovers_a_gaussian(objective):
    schedule = Schedule.of("cosine", 1000)  # with 200 steps the smallest sigma comes out 5 % low, as it should
    noise = draws(torch.Generator().manual_seed(0))
    # the noise objective's estimate at the last time is a float32 difference divided by 5e-5: bounds keep it
    bounds = MEAN - 6 * SIGMA, MEAN + 6 * SIGMA
    estimate = denoiser(perfect_network(schedule, objective), schedule, OBJECTIVES[objective], bounds)
    x = ddpm(estimate, noise(), schedule, noise)
    torch.testing.assert_close(x.mean(0), MEAN, atol=0.03, rtol=0)
    torch.testing.assert_close(x.std(0), SIGMA, atol=0.005, rtol=0.04)
    correlation = torch.corrcoef(x.T) - torch.eye(3)
    assert correlation.abs().max() < 0.03


@pytest.mark.parametrize("steps", [50, 200])
def test_ddim_recovers_a_gaussian(steps):
    schedule = Schedule.of("cosine", 200)
    noise = draws(torch.Generator().manual_seed(0))
    estimate = denoiser(perfect_network(schedule, "v"), schedule, OBJECTIVES["v"])
    x = ddim(estimate, noise(), schedule, steps)
    torch.testing.assert_close(x.mean(0), MEAN, atol=0.03, rtol=0)
    torch.testing.assert_close(x.std(0), SIGMA, atol=0.03, rtol=0.1)


def test_ddim_of_one_step_is_the_estimate_from_pure_noise():
    schedule = Schedule.of("cosine", 100)
    estimate = denoiser(perfect_network(schedule, "v"), schedule, OBJECTIVES["v"])
    x = torch.randn(4, 3)
    torch.testing.assert_close(ddim(estimate, x, schedule, 1), estimate(x, 99))


@pytest.mark.parametrize("steps", [0, 101])
def test_ddim_refuses_more_steps_than_the_model_has(steps):
    schedule = Schedule.of("cosine", 100)
    with pytest.raises(ValueError, match="1 to 100 steps"):
        ddim(lambda x, t: x, torch.zeros(1, 3), schedule, steps)


def test_ddim_times_fall_from_the_last_to_near_the_first():
    for total, steps in ((1000, 100), (1000, 1000), (7, 3), (5, 5)):
        times = ddim_times(total, steps)
        assert len(set(times)) == steps
        assert times == sorted(times, reverse=True)
        assert times[0] == total - 1
        assert times[-1] <= total / steps


def test_bounds_hold():
    schedule = Schedule.of("cosine", 50)
    low, high = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
    estimate = denoiser(lambda x, t: 100 * x, schedule, OBJECTIVES["v"], (low, high))
    x = ddpm(estimate, torch.randn(8, 3), schedule, lambda: torch.randn(8, 3))
    assert (x >= low).all()
    assert (x <= high).all()
