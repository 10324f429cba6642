"""The training loop: what it learns, says and refuses."""

from __future__ import annotations

import csv
import itertools
import logging

import pytest
import torch
from toy_part import ALONE, LENGTH, After, Denoise, configuration, keeper, run, toy_rows

from hpcgen.config import DiffusionConfig, ModelConfig, loads
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.errors import TrainingError
from hpcgen.train.ddp import Processes
from hpcgen.train.loop import train
from hpcgen.train.tally import BANDS, Tally
from hpcgen.train.trainer import Trainer, decay, learning_rate
from hpcgen.train.validation import validation_loss

CENTRE = torch.tensor([1.0, -1.0, 1.0, 0.0, 0.0, 0.5])
WIDTH = 0.1


def two_clusters(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two narrow clusters at +-CENTRE: far from Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (rows, 1), generator=generator) * 2.0 - 1
    return {"x": sign * CENTRE + WIDTH * torch.randn(rows, LENGTH, generator=generator)}


class Best(torch.nn.Module):
    """The best denoiser of `two_clusters`, v = a eps - s x0 at the posterior means."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t):
        a, s = (v[t][:, None] for v in self.schedule.amplitudes())
        variance = a**2 * WIDTH**2 + s**2
        mean = torch.tanh(a * (x * CENTRE).sum(1, keepdim=True) / variance) * CENTRE
        x0 = mean + a * WIDTH**2 / variance * (x - a * mean)
        return a * (x - a * x0) / s - s * x0


def table(folder):
    return list(csv.DictReader((folder / "train.csv").open(newline="")))


def test_a_diffusion_part_learns_a_bimodal_distribution():
    small = ModelConfig(name="resmlp", width=32, resnet_blocks=2)
    part = DiffusionPart("joint", small, DiffusionConfig(steps=100), (LENGTH,))
    config = loads("train: {steps: 500, batch: 64, learning_rate: 0.005, ema: 0.99, validate_every: 500}")
    held_out = two_clusters(64, 1)
    trainer = train(part, config, two_clusters(256), held_out, ALONE)
    best = validation_loss(part, Best(part.schedule), held_out, ALONE, config.seed)
    found = validation_loss(part, trainer.average, held_out, ALONE, config.seed)
    assert best.loss < found.loss < 1.15 * best.loss
    for ideal, band in zip(best.bands, found.bands, strict=True):  # at every noise level, not only on average
        assert 0.95 * ideal < band < 1.3 * ideal


def test_same_seed_same_weights_other_seed_others(tmp_path):
    def weights(name, **keys):
        config = configuration(steps=5).model_copy(update=keys)
        return torch.cat([p.flatten() for p in run(tmp_path / name, config, history=None).average.parameters()])

    assert torch.equal(weights("a"), weights("b"))
    assert not torch.equal(weights("a"), weights("c", seed=1))


def test_a_line_holds_losses_by_noise_level_and_what_the_sample_scored(tmp_path):
    scored = []

    def score(step, network):
        assert not network.training
        scored.append(step)
        return {"valid": 0.25 * step}

    run(tmp_path, configuration(score_every=2), score=score)
    lines = table(tmp_path)
    assert [line["step"] for line in lines] == ["7", "14", "21", "28", "30"]
    assert scored == [14, 28, 30]
    assert [line["valid"] for line in lines] == ["", "3.5", "", "7", "7.5"]
    for line in lines:
        assert line["part"] == "toy"
        for name in ("train_loss", "validation_loss"):
            bands = [float(line[f"{name}_{i + 1}"]) for i in range(BANDS)]
            assert min(bands) < float(line[name]) < max(bands)
        for name in ("learning_rate", "gradient_norm", "samples_per_s", "seconds"):
            assert float(line[name]) > 0, name


def test_scoring_does_not_change_the_training(tmp_path):
    def score(step, network):
        torch.manual_seed(step)
        return {"sample": torch.randn(3).sum().item()}

    weights = [run(tmp_path / n, score=s, history=None).network.state_dict() for n, s in (("a", None), ("b", score))]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_nan_stops_and_names_the_step_after_the_last_good_one_was_kept(tmp_path):
    rows, config = toy_rows(41), configuration(checkpoint_every=1)
    stream = Trainer(Denoise(), config, rows, ALONE).batches
    first = next(s for s in range(20) if 40 in stream.rows(s))
    assert first > 0
    rows["x"][40] = float("nan")
    with pytest.raises(TrainingError, match=f"not a finite number at step {first + 1} "):
        train(Denoise(), config, rows, toy_rows(0), ALONE, keeper=keeper(tmp_path))
    kept = keeper(tmp_path).newest()
    assert kept["step"] == first
    assert all(w.isfinite().all() for w in kept["weights"].values())


def test_between_two_looks_at_the_device_a_nan_changes_nothing():
    """As on a GPU, where looking at the gradient's norm in each step would wait for the device."""
    rows = toy_rows(41)
    trainer = Trainer(Denoise(), configuration(), rows, ALONE)
    trainer.look = 16
    first = next(s for s in range(20) if 40 in trainer.batches.rows(s))
    rows["x"][40] = float("nan")
    for _ in range(first):
        trainer.advance()
    trainer.check()
    good = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    for _ in range(4):
        trainer.advance()
    assert all(torch.equal(good[k], v) for k, v in trainer.network.state_dict().items())
    assert all(v.isfinite().all() for v in trainer.average.state_dict().values())
    with pytest.raises(TrainingError, match=f"not a finite number at step {first + 1} "):
        trainer.check()


class Crowded(Denoise):
    """Memory for so many rows at a time."""

    def __init__(self, room: int) -> None:
        self.room = room

    def losses(self, network, rows, drawn):
        if len(rows["x"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore advice of torch's")
        return super().losses(network, rows, drawn)


@pytest.mark.parametrize(("room", "said"), [(5, "set train.batch to 4, which fits"), (0, "not even one row fits")])
def test_a_batch_that_does_not_fit_names_one_that_does(room, said):
    with pytest.raises(TrainingError, match=rf"batch of 16 does not fit .*Tried to allocate 20.*\n.*{said}"):
        train(Crowded(room), configuration(), toy_rows(50), toy_rows(0), ALONE)


def test_no_data():
    with pytest.raises(TrainingError, match="no training vectors"):
        train(Denoise(), configuration(), toy_rows(0), toy_rows(0), ALONE)


def test_batch_larger_than_the_data_is_cut_and_said(caplog):
    with caplog.at_level(logging.WARNING, "hpcgen"):
        trainer = train(Denoise(), configuration(batch=64, steps=3), toy_rows(5), toy_rows(0), ALONE)
    assert "train.batch is 64 and there are 5 training vectors" in caplog.text
    assert trainer.batch == 5


def test_without_validation_rows_there_is_no_validation_loss_and_no_best(tmp_path):
    train(Denoise(), configuration(steps=8), toy_rows(20), toy_rows(0), ALONE, keeper=keeper(tmp_path))
    assert keeper(tmp_path).best() is None
    assert keeper(tmp_path).newest()["step"] == 8


def test_told_to_stop_before_the_first_checkpoint_it_keeps_one(tmp_path):
    assert run(tmp_path, stop=After(2)).step == 2
    assert keeper(tmp_path).newest()["step"] == 2


def test_bf16_computes_in_bf16_and_keeps_fp32_weights(tmp_path):
    seen = []

    class Spy(Denoise):
        def losses(self, network, rows, drawn):
            seen.append(network(torch.zeros(1, LENGTH + 1)).dtype)
            return super().losses(network, rows, drawn)

    trainer = train(Spy(), configuration(steps=2, precision="bf16"), toy_rows(50), toy_rows(5), ALONE)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}


def test_every_row_is_used_equally_often():
    batches = Trainer(Denoise(), configuration(batch=4), toy_rows(10), ALONE).batches
    used = torch.cat([batches.rows(step) for step in range(10)])
    assert torch.bincount(used, minlength=10).tolist() == [4] * 10
    assert sorted(used[:10].tolist()) == list(range(10))
    assert used[:10].tolist() != used[10:20].tolist()
    # a batch is the same whatever was asked for before
    fresh = Trainer(Denoise(), configuration(batch=4), toy_rows(10), ALONE).batches
    assert torch.equal(fresh.rows(7), batches.rows(7))


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_rows_and_random_numbers_of_one(size):
    batches = Trainer(Denoise(), configuration(), toy_rows(50), ALONE).batches
    rows, drawn = batches.share(5, ALONE)
    parts = [batches.share(5, Processes(rank, size, ALONE.device)) for rank in range(size)]
    assert torch.equal(torch.cat([p[0]["x"] for p in parts]), rows["x"])
    for name in drawn:
        assert torch.equal(torch.cat([p[1][name] for p in parts]), drawn[name])


def test_validation_uses_the_same_noise_every_time_and_for_any_number_of_processes():
    part, rows = Denoise(), toy_rows(50, 1)
    network = part.network().eval()
    alone = validation_loss(part, network, rows, ALONE, 0)
    assert validation_loss(part, network, rows, ALONE, 0) == alone
    assert validation_loss(part, network, rows, ALONE, 1) != alone
    sums = []

    class Share(Processes):
        def total(self, value):
            sums.append(value)
            return value

    for rank in range(2):
        validation_loss(part, network, rows, Share(rank, 2, ALONE.device), 0)
    both = Tally(ALONE.device)
    both.sums += sums[0] + sums[1]
    together = both.mean(ALONE)
    assert together.loss == pytest.approx(alone.loss, rel=1e-6)
    assert together.bands == pytest.approx(alone.bands, rel=1e-6)


def test_losses_are_filed_by_noise_level():
    tally = Tally(ALONE.device)
    tally.add(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0.0, 0.3, 0.49, 1.0]))
    mean = tally.mean(ALONE)
    assert mean.loss == 15 / 4
    assert mean.bands[:2] == (1.0, 3.0)
    assert mean.bands[2] != mean.bands[2]  # no row: not a number
    assert mean.bands[3] == 8.0
    tally.clear()
    tally.add(torch.ones(2), None)
    assert tally.mean(ALONE).loss == 1.0


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 1000, 1e-3, 100) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == rates[99] == pytest.approx(1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[99:]))
    assert rates[-1] == pytest.approx(1e-5)
    assert learning_rate(1, 5, 1e-3, 100) < 1.01e-3  # a short run warms up for a tenth of its steps at most
    assert learning_rate(3, 5, 1e-3, 100) > 1e-4


def test_the_average_starts_quickly_and_ends_at_its_decay():
    assert decay(0.9, 1) == 0  # the first weights are not averaged in
    assert decay(0.9, 2) == 2 / 11
    assert decay(0.9, 10_000) == 0.9
    trainer = Trainer(Denoise(), configuration(ema=0.9), toy_rows(20), ALONE)
    average, current = trainer._averaged[0], trainer._parameters[0]
    # every fourth step counts for four, an odd end for what is left
    for step, left in ((4, 0), (1000, 0.9**4), (1002, 0.9**2)):
        before = average.clone()
        with torch.no_grad():
            current += 1.0
        trainer._update_average(step)
        torch.testing.assert_close(average, left * before + (1 - left) * current.detach())


def test_gradients_are_clipped():
    def moved(clip):
        trainer = Trainer(Denoise(), configuration(grad_clip=clip), toy_rows(20), ALONE)
        trainer.optimiser = torch.optim.AdamW(trainer._parameters, 0.1, betas=(0.0, 0.99), eps=1.0, fused=True)
        trainer.advance()
        moments = [trainer.optimiser.state[p]["exp_avg"] for p in trainer._parameters]
        return torch.cat([m.flatten() for m in moments]).norm().item(), trainer.tally.mean(ALONE).norm

    free, norm = moved(1e9)
    assert free == pytest.approx(norm, rel=1e-5)
    clipped, before = moved(0.1 * norm)
    assert clipped == pytest.approx(0.1 * norm, rel=1e-5)
    assert before == pytest.approx(norm, rel=1e-5)  # what is written down is the norm before
