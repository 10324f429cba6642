"""The training loop on toy vectors."""

from __future__ import annotations

import csv
import itertools
import logging
import math

import pytest
import torch

from hpcgen import diffusion
from hpcgen.config import loads
from hpcgen.diffusion.samplers import ddim, denoiser
from hpcgen.errors import TrainingError
from hpcgen.train.ddp import Processes
from hpcgen.train.loop import Batches, learning_rate, moving_average, train, validation_loss

ALONE = Processes(0, 1, torch.device("cpu"))
LENGTH = 6


CENTRE = torch.tensor([1.0, -1.0, 1.0, 0.0, 0.0, 0.5])
WIDTH = 0.1


def toy(rows: int, seed: int = 0) -> torch.Tensor:
    """Two narrow clusters at +-CENTRE: far from Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (rows, 1), generator=generator) * 2.0 - 1
    return sign * CENTRE + WIDTH * torch.randn(rows, LENGTH, generator=generator)


class Best(torch.nn.Module):
    """The best denoiser of `toy`, v = a eps - s x0 at the posterior means."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t):
        a, s = (v[t][:, None] for v in self.schedule.amplitudes())
        variance = a**2 * WIDTH**2 + s**2
        mean = torch.tanh(a * (x * CENTRE).sum(1, keepdim=True) / variance) * CENTRE
        x0 = mean + a * WIDTH**2 / variance * (x - a * mean)
        return a * (x - a * x0) / s - s * x0


def configuration(**train_keys):
    keys = {"steps": 20, "batch": 16, "validate_every": 10, "checkpoint_every": 10, "warmup": 5} | train_keys
    inside = ", ".join(f"{k}: {v}" for k, v in keys.items())
    return loads(f"""
model: {{width: 8, attention_dim: 16, attention_heads: 2, resnet_blocks: 1}}
diffusion: {{steps: 100}}
train: {{{inside}}}
""")


def test_training_learns_a_bimodal_distribution(tmp_path):
    config = configuration(steps=300, batch=64, validate_every=100, learning_rate=0.003, ema=0.99)
    path = tmp_path / "train.csv"
    model = train(config, toy(256), toy(64, 1), ALONE, keep=lambda weights: None, csv_path=path)
    rows = list(csv.DictReader(path.open()))
    assert [int(row["step"]) for row in rows] == [100, 200, 300]
    schedule, objective = diffusion.Schedule.of("cosine", 100), diffusion.OBJECTIVES["v"]
    best = validation_loss(Best(schedule), toy(64, 1), ALONE, schedule, objective, config.seed)
    assert best < float(rows[-1]["validation_loss"]) < 1.3 * best
    assert float(rows[0]["train_loss"]) > 1.5 * best
    assert float(rows[-1]["samples_per_s"]) > 0
    x_T = torch.randn(200, LENGTH, generator=torch.Generator().manual_seed(5))
    x = ddim(denoiser(model, schedule, objective), x_T, schedule, 20)
    assert ((x[:, 0] > 0).float().mean() - 0.5).abs() < 0.2  # both clusters
    assert (x[:, 0].abs() - 1).abs().median() < 0.15  # and nothing between
    assert (x[:, 0] + x[:, 1]).abs().median() < 0.15  # with the right correlations


def test_same_seed_same_weights_other_seed_others():
    def weights(**keys):
        config = configuration().model_copy(update=keys)
        model = train(config, toy(40), toy(8, 1), ALONE, keep=lambda weights: None)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights(seed=1))


def test_keeps_weights_at_the_steps_asked_for():
    kept = []
    train(
        configuration(steps=25, checkpoint_every=10),
        toy(40),
        toy(0),
        ALONE,
        keep=lambda weights: kept.append((weights.step, weights.ema["last.bias"].clone())),
    )
    assert [step for step, _ in kept] == [10, 20, 25]
    assert not torch.equal(kept[0][1], kept[2][1])


def test_a_nan_stops_and_names_the_step_after_the_last_good_one_was_kept():
    data = toy(40)
    # row 16 * 13 of the stream of batches comes at step 14
    rows = Batches(data, 16, 0, diffusion.Schedule.of("cosine", 100))
    data = torch.cat([data, data[:1]])
    stream = Batches(data, 16, 0, rows.schedule)
    first = next(s for s in range(20) if 40 in stream.rows(s))
    data[40] = float("nan")
    kept = []
    with pytest.raises(TrainingError, match=f"not a finite number at step {first + 1} "):
        train(configuration(checkpoint_every=1), data, toy(0), ALONE, keep=lambda w: kept.append(w))
    assert [w.step for w in kept] == list(range(1, first + 1))
    assert all(p.isfinite().all() for w in kept for p in w.ema.values())


def test_no_data():
    with pytest.raises(TrainingError, match="no training vectors"):
        train(configuration(), toy(0), toy(0), ALONE, keep=lambda weights: None)


def test_batch_larger_than_the_data_is_cut_and_said(caplog):
    kept = []
    with caplog.at_level(logging.WARNING, "hpcgen"):
        train(configuration(batch=64, steps=3), toy(5), toy(0), ALONE, keep=kept.append)
    assert "train.batch is 64 and there are 5 training vectors" in caplog.text
    assert len(kept) == 1


def test_without_validation_rows_the_loss_is_not_a_number(tmp_path):
    path = tmp_path / "train.csv"
    train(configuration(), toy(20), toy(0), ALONE, keep=lambda weights: None, csv_path=path)
    assert {row["validation_loss"] for row in csv.DictReader(path.open())} == {"nan"}


def test_every_row_is_used_equally_often():
    batches = Batches(toy(10), 4, 0, diffusion.Schedule.of("cosine", 10))
    used = torch.cat([batches.rows(step) for step in range(10)])
    assert torch.bincount(used, minlength=10).tolist() == [4] * 10
    assert sorted(used[:10].tolist()) == list(range(10))
    assert used[:10].tolist() != used[10:20].tolist()
    # a batch is the same whatever was asked for before
    fresh = Batches(toy(10), 4, 0, diffusion.Schedule.of("cosine", 10))
    assert torch.equal(fresh.rows(7), batches.rows(7))


def test_validation_uses_the_same_noise_every_time_and_for_any_number_of_processes():
    schedule, objective = diffusion.Schedule.of("cosine", 100), diffusion.OBJECTIVES["v"]
    model = torch.nn.Linear(LENGTH, LENGTH)

    class Line(torch.nn.Module):
        def forward(self, x, t):
            return model(x)

    data = toy(50, 1)
    alone = validation_loss(Line(), data, ALONE, schedule, objective, 0)
    assert validation_loss(Line(), data, ALONE, schedule, objective, 0) == alone
    assert validation_loss(Line(), data, ALONE, schedule, objective, 1) != alone

    class Part(Processes):
        def total(self, value):
            return value

    parts = [validation_loss(Line(), data, Part(r, 2, ALONE.device), schedule, objective, 0) for r in range(2)]
    assert sum(parts) == pytest.approx(alone, rel=1e-6)


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 1000, 1e-3, 100) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == rates[99] == pytest.approx(1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[99:]))
    assert rates[-1] == pytest.approx(1e-5)
    assert learning_rate(1, 5, 1e-3, 100) < 1.01e-3  # a short run warms up for a tenth of its steps at most
    assert learning_rate(3, 5, 1e-3, 100) > 1e-4


def test_moving_average_starts_quickly_and_ends_at_its_decay():
    update = moving_average(0.9)
    averaged, current = [torch.zeros(1)], [torch.ones(1)]
    update(averaged, current, 1)
    assert averaged[0].item() == pytest.approx(1 - 2 / 11)
    averaged[0].zero_()
    update(averaged, current, torch.tensor(10_000))
    assert averaged[0].item() == pytest.approx(0.1)
    assert not math.isnan(averaged[0].item())
