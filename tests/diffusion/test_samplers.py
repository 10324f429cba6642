"""Samplers against distributions whose best denoiser is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.diffusion.objective import OBJECTIVES
from hpcgen.diffusion.samplers import (
    LOWEST,
    ddim,
    ddpm,
    denoiser,
    dpm_solver,
    even_times,
    guided,
    log_snr_times,
    sample,
)
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


def exact_estimate(schedule):
    """The same posterior mean as an estimate, in the precision of x."""

    def estimate(x, t):
        a2 = float(schedule.alpha_bar[t])
        return MEAN + a2**0.5 * SIGMA**2 / (a2 * SIGMA**2 + 1 - a2) * (x - a2**0.5 * MEAN)

    return estimate


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


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [50, 200])
def test_few_steps_recover_a_gaussian(sampler, steps):
    schedule = Schedule.of("cosine", 200)
    noise = draws(torch.Generator().manual_seed(0))
    estimate = denoiser(perfect_network(schedule, "v"), schedule, OBJECTIVES["v"])
    x = sample(sampler, estimate, schedule, steps, noise)
    torch.testing.assert_close(x.mean(0), MEAN, atol=0.03, rtol=0)
    torch.testing.assert_close(x.std(0), SIGMA, atol=0.03, rtol=0.1)


def solved_exactly(x, schedule, begin, estimate):
    """The end of the probability-flow ODE from time `begin` to time 0, and the estimate there.

    For Gaussian data x_t - a m moves in proportion to its standard deviation (arXiv 2206.00364, appendix B).
    """

    def spread(t):
        a2 = float(schedule.alpha_bar[t])
        return (a2 * SIGMA.double() ** 2 + 1 - a2).sqrt(), a2**0.5

    (before, a_before), (after, a_after) = spread(begin), spread(0)
    return estimate(a_after * MEAN + after / before * (x - a_before * MEAN), 0)


def error_of(solver, times, schedule, steps):
    x = torch.randn(256, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    estimate = exact_estimate(schedule)
    wanted = solved_exactly(x, schedule, times(schedule, steps)[0], estimate)
    return (solver(estimate, x, schedule, steps) - wanted).square().mean().sqrt().item()


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_solver_is_of_second_order(name):
    schedule = Schedule.of(name, 100_000)  # so many times that rounding to them does not matter
    errors = [error_of(dpm_solver, log_snr_times, schedule, steps) for steps in (20, 40, 80, 160)]
    orders = [math.log2(before / after) for before, after in pairwise(errors)]
    assert all(1.7 < order < 2.6 for order in orders), orders
    assert errors[0] < 0.02


def test_ddim_is_of_first_order_and_the_solver_ahead_of_it():
    schedule = Schedule.of("cosine", 100_000)
    errors = [error_of(ddim, even_times, schedule, steps) for steps in (20, 40, 80, 160)]
    orders = [math.log2(before / after) for before, after in pairwise(errors)]
    assert all(0.7 < order < 1.4 for order in orders), orders
    for steps, error in zip((20, 40, 80, 160), errors, strict=True):
        assert error_of(dpm_solver, log_snr_times, schedule, steps) < error / 2


@pytest.mark.parametrize("solver", [ddim, dpm_solver])
def test_the_solution_of_a_point_is_exact_in_any_number_of_steps(solver):
    # where all data are one point the estimate is constant, and first and second order alike are exact
    schedule = Schedule.of("cosine", 1000)
    point = torch.tensor([0.3, -2.0])
    for steps in (1, 2, 7, 1000):
        x = solver(lambda x, t: point.expand_as(x), torch.randn(4, 2), schedule, steps)
        assert torch.equal(x, point.expand(4, 2))


@pytest.mark.parametrize("solver", [ddim, dpm_solver])
def test_one_step_is_the_estimate_from_pure_noise(solver):
    schedule = Schedule.of("cosine", 100)
    seen = []

    def estimate(x, t):
        seen.append(t)
        return 2 * x

    x = torch.randn(4, 3)
    assert torch.equal(solver(estimate, x, schedule, 1), 2 * x)
    assert len(seen) == 1
    assert float(schedule.half_log_snr[seen[0]]) <= -4


@pytest.mark.parametrize("solver", [ddim, dpm_solver])
@pytest.mark.parametrize("steps", [0, 101])
def test_more_steps_than_the_model_has_are_refused(solver, steps):
    schedule = Schedule.of("cosine", 100)
    with pytest.raises(ValueError, match="1 to 100 steps"):
        solver(lambda x, t: x, torch.zeros(1, 3), schedule, steps)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="no sampler 'heun'; there are ddpm, ddim"):
        sample("heun", lambda x, t: x, Schedule.of("cosine", 9), 3, lambda: torch.zeros(1, 3))


@pytest.mark.parametrize("times", [even_times, log_snr_times])
@pytest.mark.parametrize(("total", "steps"), [(1000, 100), (1000, 1000), (7, 3), (5, 5), (20, 19), (1, 1)])
@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_times_fall_and_are_different(times, total, steps, name):
    chosen = times(Schedule.of(name, total), steps)
    assert len(set(chosen)) == steps
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] < total
    assert chosen[-1] >= 0


def test_even_times_begin_at_the_last():
    assert even_times(Schedule.of("cosine", 1000), 4) == [999, 749, 499, 249]


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_solver_times_are_even_in_the_logarithm_of_the_signal_to_noise_ratio(name):
    schedule = Schedule.of(name, 1000)
    times = log_snr_times(schedule, 10)
    assert times[-1] == 0
    half_log_snr = schedule.half_log_snr[times]
    assert half_log_snr[0] == pytest.approx(max(LOWEST, float(schedule.half_log_snr[-1])), abs=0.05)
    steps = half_log_snr.diff()
    assert steps.max() < 1.35 * steps.min()


def test_bounds_hold():
    schedule = Schedule.of("cosine", 50)
    low, high = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
    estimate = denoiser(lambda x, t: 100 * x, schedule, OBJECTIVES["v"], (low, high))
    for sampler in ("ddpm", "ddim", "dpm++"):
        x = sample(sampler, estimate, schedule, 10, lambda: torch.randn(8, 3))
        assert (x >= low).all()
        assert (x <= high).all()


def test_guidance_leads_away_from_the_estimate_without_conditions():
    # one droppable group of two numbers and its flag, then one that is always there
    layout = ConditionLayout(4, (slice(0, 3),))
    c = torch.tensor([[1.0, 2.0, 1.0, 5.0], [3.0, 4.0, 1.0, 6.0]])
    calls = []

    def network(x, t, c):
        calls.append(len(x))
        return c.sum(1, keepdim=True) * x + t[:, None]

    x, t = torch.ones(2, 3), torch.tensor([7, 7])
    with_c = network(x, t, c)
    without = network(x, t, torch.tensor([[0.0, 0, 0, 5], [0, 0, 0, 6]]))
    calls.clear()
    torch.testing.assert_close(guided(network, layout, c, 0.0)(x, t), with_c)
    assert calls == [2]  # guidance 0 costs nothing
    torch.testing.assert_close(guided(network, layout, c, 1.5)(x, t), 2.5 * with_c - 1.5 * without)
    assert calls == [2, 4]
    nothing_to_drop = ConditionLayout(4)
    torch.testing.assert_close(guided(network, nothing_to_drop, c, 1.5)(x, t), with_c)


def test_guidance_moves_samples_beyond_their_condition():
    """p(x | c) = N(c, 1) and p(x) = N(0, 2), of which the best estimates are known."""
    schedule, w = Schedule.of("cosine", 1000), 2.0
    layout = ConditionLayout(2, (slice(0, 2),))

    def network(x, t, c):  # predicts x0: the posterior mean given c, or without it
        a, s = (v[t][:, None] for v in schedule.amplitudes())
        asked = c[:, :1] + a / (a**2 + s**2) * (x - a * c[:, :1])
        free = 2 * a / (2 * a**2 + s**2) * x
        return torch.where(c[:, 1:] > 0, asked, free)

    means = []
    for guidance in (0.0, w):
        c = torch.tensor([[1.0, 1.0]]).expand(4000, 2)
        estimate = denoiser(guided(network, layout, c, guidance), schedule, OBJECTIVES["x0"])
        x = dpm_solver(estimate, torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)), schedule, 50)
        means.append((x.mean().item(), x.std().item()))
    assert means[0] == (pytest.approx(1.0, abs=0.05), pytest.approx(1.0, abs=0.05))
    # p(x | c)^(1 + w) / p(x)^w has mean 1.5 and deviation 0.71; guidance at every level only leads that way
    assert means[1][0] > 1.2
    assert means[1][1] < 0.95
