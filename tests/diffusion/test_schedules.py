"""Noise schedules."""

from __future__ import annotations

import math

import pytest
import torch

from hpcgen.diffusion.schedules import SCHEDULES, Schedule


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 1000, 2000])
def test_signal_falls_from_nearly_all_to_nearly_nothing(name, steps):
    schedule = Schedule.of(name, steps)
    alpha_bar = schedule.alpha_bar
    assert schedule.steps == steps
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()
    assert ((schedule.beta > 0) & (schedule.beta < 1)).all()
    assert alpha_bar[-1] < 1e-4
    if steps >= 1000:
        assert alpha_bar[0] > 0.999


def test_cosine_is_the_closed_form_of_the_paper():
    # Nichol & Dhariwal, eq. 17: alpha_bar_t = f(t) / f(0), away from the clipped end
    steps, s = 1000, 0.008
    alpha_bar = Schedule.of("cosine", steps).alpha_bar

    def f(t):
        return math.cos((t / steps + s) / (1 + s) * math.pi / 2) ** 2

    for t in (1, 250, 500, 900, 990):
        assert alpha_bar[t - 1].item() == pytest.approx(f(t) / f(0), rel=1e-9)


def test_linear_has_the_betas_of_ddpm():
    beta = Schedule.of("linear", 1000).beta
    assert beta[0].item() == pytest.approx(1e-4)
    assert beta[-1].item() == pytest.approx(0.02)


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="no schedule 'quadratic'"):
        Schedule.of("quadratic", 10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_amplitudes_keep_unit_variance(name):
    a, s = Schedule.of(name, 500).amplitudes()
    torch.testing.assert_close(a**2 + s**2, torch.ones(500))
