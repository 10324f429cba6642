"""Sampling from a time in the middle, and the absolute error as a loss."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from hpcgen.config import DiffusionConfig, ModelConfig, SampleConfig
from hpcgen.diffusion import DiffusionPart, Schedule
from hpcgen.diffusion.samplers import denoise, even_times, log_snr_times, sample
from hpcgen.diffusion.sampling import PartSampler

SAMPLERS = ["ddpm", "ddim", "dpm++"]
SCHEDULE = Schedule.of("cosine", 100)


class Wiener(torch.nn.Module):
    """The best estimate of x0 for normal data of the given width: what a perfect network returns."""

    def __init__(self, schedule: Schedule, width: float) -> None:
        super().__init__()
        a, s = schedule.amplitudes()
        self.gain = a * width**2 / (a**2 * width**2 + s**2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.gain[t].reshape(-1, *(1,) * (x.ndim - 1)) * x


@pytest.mark.parametrize("name", SAMPLERS)
def test_less_noise_leaves_more_of_what_there_was(name: str) -> None:
    part = DiffusionPart("cloud", ModelConfig(), DiffusionConfig(steps=100, objective="x0"), (3, 40, 2))
    settings = SampleConfig(sampler=name, steps=20, micro_batch=8)
    sampler = PartSampler(part, Wiener(part.schedule, 1.0), settings, 1)
    x0 = torch.randn(8, 3, 40, 2, generator=torch.Generator().manual_seed(0))
    ids = [str(i) for i in range(8)]

    def likeness(start: int) -> float:
        x = sampler.redraw(ids, x0, start)
        assert x.std().item() == pytest.approx(1.0, abs=0.25)  # still of the data's width
        return float(torch.corrcoef(torch.stack([x.flatten(), x0.flatten()]))[0, 1])

    found = [likeness(start) for start in (5, 40, 70, 99)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.98
    assert abs(found[-1]) < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_from_the_last_time_it_is_sampling(name: str) -> None:
    noise = torch.randn(30, 4, 7, generator=torch.Generator().manual_seed(0))
    streams = [iter(noise), iter(noise)]
    wiener = Wiener(Schedule.of("cosine", 30), 1.0)
    schedule = Schedule.of("cosine", 30)

    def estimate(x: torch.Tensor, t: int) -> torch.Tensor:
        return wiener(x, torch.full((len(x),), t))

    usual = sample(name, estimate, schedule, 10, lambda: next(streams[0]))
    ours = denoise(name, estimate, next(streams[1]), schedule, 10, lambda: next(streams[1]), 29)
    assert torch.equal(usual, ours)


def test_redrawn_samples_do_not_depend_on_their_neighbours() -> None:
    part = DiffusionPart("cloud", ModelConfig(), DiffusionConfig(steps=100, objective="x0"), (3, 4, 2))
    sampler = PartSampler(part, Wiener(part.schedule, 1.0), SampleConfig(sampler="ddpm", micro_batch=4), 1)
    x0 = torch.randn(3, 3, 4, 2)
    together = sampler.redraw(["a", "b", "c"], x0, 60)
    torch.testing.assert_close(sampler.redraw(["x", "b"], x0[:2], 60)[1], together[1])


@pytest.mark.parametrize("times", [even_times, log_snr_times])
def test_times_begin_at_the_start_and_end_at_0(times) -> None:
    for start, steps in ((99, 20), (50, 20), (50, 51), (3, 4), (0, 1)):
        found = times(SCHEDULE, steps, start)
        assert len(set(found)) == steps
        assert found == sorted(found, reverse=True)
        assert found[0] == start or (start == 99 and found[0] > 90)
    with pytest.raises(ValueError, match="1 to 4 steps, not 5"):
        times(SCHEDULE, 5, 3)
    with pytest.raises(ValueError, match="time 100"):
        times(SCHEDULE, 5, 100)


def test_the_absolute_error_is_what_it_says_and_takes_no_weights_of_squares() -> None:
    x, drawn = torch.randn(4, 6), {"t": torch.tensor([3, 30, 60, 90]), "eps": torch.randn(4, 6)}
    network = lambda x_t, t: torch.zeros_like(x_t)  # noqa: E731
    losses = {
        loss: DiffusionPart("a", ModelConfig(), DiffusionConfig(steps=100, objective="noise", loss=loss), (6,)).losses(
            network, {"x": x}, drawn
        )
        for loss in ("l1", "l2")
    }
    torch.testing.assert_close(losses["l1"], drawn["eps"].abs().mean(1))
    torch.testing.assert_close(losses["l2"], drawn["eps"].square().mean(1))
    with pytest.raises(ValidationError, match="weights squared errors"):
        DiffusionConfig(loss="l1", weighting="min-snr")
