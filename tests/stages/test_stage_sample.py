"""Stage sample with a toy family and the real store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import toy_family

from hpcgen import diffusion, store
from hpcgen.config import SampleConfig
from hpcgen.errors import CheckpointError, ConfigError
from hpcgen.family import FAMILIES
from hpcgen.flow import make_id
from hpcgen.stages import sample, train
from hpcgen.stages.context import Balance, Context
from hpcgen.train import checkpoint


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", "toy_family:ToyFamily")


@pytest.fixture
def ctx(tmp_path) -> Context:
    ctx = toy_family.context(tmp_path / "run")
    train.run(ctx)
    return ctx


def test_writes_samples_that_stand_alone(ctx):
    balance = sample.run(ctx)
    assert balance == Balance("sample", 5, 5, {})
    with store.open(ctx.path("samples.h5"), toy_family.EdgeSample) as file:
        assert file.ids == [make_id(ctx.config.identity("sample"), "sample", i) for i in range(5)]
        assert file.attrs["family"] == "toy"
        assert list(file.attrs["names"]) == ["a", "b", "c"]
        assert Balance.from_json(file.attrs["balance"]) == balance
        values = file.array("values")[...]
    assert values.shape == (5, 3)
    assert len(np.unique(values)) > 5
    # estimates are kept within the range of the training inputs (edges of 3 to 6 angstrom)
    assert values.min() >= 3
    assert values.max() <= 6


def test_a_larger_campaign_begins_with_the_samples_of_a_smaller_one(ctx, tmp_path):
    sample.run(ctx)
    larger = toy_family.context(tmp_path / "larger", ["sample.n=8"])
    train.run(larger)
    sample.run(larger)
    with store.open(ctx.path("samples.h5")) as one, store.open(larger.path("samples.h5")) as other:
        assert other.ids[:5] == one.ids
        np.testing.assert_array_equal(other.array("values")[:5], one.array("values")[...])


def test_values_that_are_not_finite_are_failures(ctx, monkeypatch):
    original = sample.draw

    def broken(*arguments, **keys):
        x = original(*arguments, **keys)
        x[2, 1] = np.nan
        return x

    monkeypatch.setattr(sample, "draw", broken)
    assert sample.run(ctx) == Balance("sample", 5, 4, {"not-finite": 1})
    with store.open(ctx.path("samples.h5")) as file:
        ids = [make_id(ctx.config.identity("sample"), "sample", i) for i in range(5)]
        assert file.ids == [*ids[:2], *ids[3:]]
        assert [(f.id, f.stage, f.kind) for f in file.failures] == [(ids[2], "sample", "not-finite")]


IDS = [f"{i:016x}" for i in range(9)]
SCHEDULE = diffusion.Schedule.of("cosine", 50)


def network(length: int = 37):
    """An untrained network whose last layer is not zero, and its estimate."""
    from hpcgen import models
    from hpcgen.config import ModelConfig

    torch.manual_seed(0)
    model = models.build(ModelConfig(width=16, attention_dim=32), (length,)).eval()
    torch.nn.init.normal_(model.last.weight)
    return diffusion.denoiser(model, SCHEDULE, diffusion.OBJECTIVES["v"])


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_sample_depends_on_its_id_alone(sampler):
    estimate = network()
    settings = SampleConfig(sampler=sampler, steps=10, micro_batch=4)

    def draw(ids, seed=1):
        return sample.draw(estimate, SCHEDULE, (37,), settings, ids, seed)

    nine = draw(IDS)
    assert np.isfinite(nine).all()
    assert np.array_equal(draw(IDS[:5]), nine[:5])  # another n
    assert np.array_equal(draw([IDS[0], *IDS[4:7]])[0], nine[0])  # other neighbours
    np.testing.assert_allclose(draw(IDS[::-1])[::-1], nine, atol=2e-4)  # other places: equal but for rounding
    assert not np.allclose(draw(IDS, seed=2), nine, atol=0.1)


def test_later_noise_is_the_samples_own_too():
    # a sampler that adds up all its noise: with one stream for the batch, padding or neighbours would show
    settings = SampleConfig(sampler="ddpm", micro_batch=4)

    def estimate(x, t):
        return torch.zeros_like(x)

    alone = sample.draw(estimate, SCHEDULE, (3,), settings, [IDS[6]], 1)
    together = sample.draw(estimate, SCHEDULE, (3,), settings, IDS, 1)
    assert np.array_equal(alone[0], together[6])


def test_model_and_diffusion_come_from_the_checkpoint(ctx, monkeypatch):
    monkeypatch.setattr(sample, "make_id", lambda digest, stage, index: make_id("", stage, index))
    sample.run(ctx)
    with store.open(ctx.path("samples.h5")) as file:
        expected = file.array("values")[...]
    # a configuration of another network and diffusion that passes for the one trained with
    model = ctx.config.model.model_copy(update={"width": 16})
    changed = ctx.config.diffusion.model_copy(update={"steps": 20, "objective": "noise", "schedule": "linear"})
    other = ctx.config.model_copy(update={"model": model, "diffusion": changed})
    path = ctx.path("checkpoint.pt")
    checkpoint.save(path, dataclasses.replace(checkpoint.load(path), config_digest=other.digest()))
    ctx.path("samples.h5").unlink()
    sample.run(Context(other, ctx.folder))
    with store.open(ctx.path("samples.h5")) as file:
        assert np.array_equal(file.array("values")[...], expected)


def test_more_steps_than_the_model_has(tmp_path):
    ctx = toy_family.context(tmp_path / "run", ["sample.steps=60"])
    train.run(ctx)
    with pytest.raises(ConfigError, match=r"sample.steps is 60.*50 noise levels"):
        sample.run(ctx)


def test_a_checkpoint_of_another_family(ctx):
    path = ctx.path("checkpoint.pt")
    checkpoint.save(path, dataclasses.replace(checkpoint.load(path), family="pointcloud"))
    with pytest.raises(CheckpointError, match="family 'pointcloud'"):
        sample.run(ctx)
    assert not ctx.path("samples.h5").exists()


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="hpcgen train"):
        sample.run(toy_family.context(tmp_path / "run"))
