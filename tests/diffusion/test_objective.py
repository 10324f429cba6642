"""Objectives: what a perfect network means, and the loss."""

from __future__ import annotations

import pytest
import torch

from hpcgen.diffusion.objective import OBJECTIVES, draw_times, loss, q_sample
from hpcgen.diffusion.schedules import Schedule

SCHEDULE = Schedule.of("cosine", 1000)


def test_variance_of_x_t_stays_one_for_data_of_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 200_000, generator=generator)
    a, s = SCHEDULE.amplitudes()
    for t in (0, 300, 700, 999):
        x_t = q_sample(x0, eps, a[t], s[t])
        assert x_t.var().item() == pytest.approx(1.0, abs=0.02)
        assert (x_t * x0).mean().item() == pytest.approx(a[t].item(), abs=0.02)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("t", [0, 500, 900])
def test_a_perfect_prediction_gives_back_x0(name, t):
    x0, eps = torch.randn(2, 8, 5, dtype=torch.float64)
    a, s = (v.double() for v in (SCHEDULE.alpha_bar.sqrt(), (1 - SCHEDULE.alpha_bar).sqrt()))
    objective = OBJECTIVES[name]
    x_t = q_sample(x0, eps, a[t], s[t])
    estimate = objective.x0(objective.target(x0, eps, a[t], s[t]), x_t, float(a[t]), float(s[t]))
    torch.testing.assert_close(estimate, x0)


def test_an_error_of_v_and_of_noise_are_the_same_error_of_x0_in_different_units():
    # v = (eps - s x_t) / a ... so d(x0) = -s d(v) = -(s / a) d(eps)
    a, s = 0.6, 0.8
    x_t, output, error = torch.randn(3, 4)
    v, noise = OBJECTIVES["v"], OBJECTIVES["noise"]
    torch.testing.assert_close(v.x0(output + error, x_t, a, s) - v.x0(output, x_t, a, s), -s * error)
    torch.testing.assert_close(noise.x0(output + error, x_t, a, s) - noise.x0(output, x_t, a, s), -s / a * error)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_loss_is_zero_for_the_target_and_its_mean_square_for_zero(name):
    x0, eps = torch.randn(2, 16, 7)
    t = torch.arange(16) * 60
    a, s = (v[t][:, None] for v in SCHEDULE.amplitudes())
    target = OBJECTIVES[name].target(x0, eps, a, s)
    assert loss(lambda x, t: target, x0, t, eps, SCHEDULE, OBJECTIVES[name]).abs().max() == 0
    zero = loss(lambda x, t: torch.zeros_like(x), x0, t, eps, SCHEDULE, OBJECTIVES[name])
    torch.testing.assert_close(zero, target.square().mean(1))


def test_times_are_in_range_uniform_and_spread_over_the_batch():
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(10)
    for _ in range(400):
        t = draw_times(8, Schedule.of("linear", 10), generator)
        assert t.min() >= 0
        assert t.max() <= 9
        assert len(set(t.tolist())) >= 7  # eight even draws out of ten times
        counts += torch.bincount(t, minlength=10)
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()
