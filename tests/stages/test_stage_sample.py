"""Stage sample with a toy family and the real store."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import toy_family

from hpcgen import store
from hpcgen.diffusion.sampling import PartSampler
from hpcgen.errors import EXIT_REQUEUE, CheckpointError, ConfigError
from hpcgen.family import FAMILIES
from hpcgen.flow import make_id
from hpcgen.stages import sample, train
from hpcgen.stages.context import Balance, Context
from hpcgen.train import checkpoint

PROGRAM = Path(__file__).with_name("sample_driver.py")


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
    original = PartSampler.draw

    def broken(self, ids, *arguments):
        x = original(self, ids, *arguments)
        if IDS[2] in ids:
            x[list(ids).index(IDS[2]), 1] = np.nan
        return x

    IDS = [make_id(ctx.config.identity("sample"), "sample", i) for i in range(5)]
    monkeypatch.setattr(PartSampler, "draw", broken)
    assert sample.run(ctx) == Balance("sample", 5, 4, {"not-finite": 1})
    with store.open(ctx.path("samples.h5")) as file:
        assert file.ids == [*IDS[:2], *IDS[3:]]
        assert [(f.id, f.stage, f.kind) for f in file.failures] == [(IDS[2], "sample", "not-finite")]


@pytest.mark.mpi
@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_any_number_of_ranks_gives_the_same_samples(tmp_path, mpiexec, sampler):
    overrides = ["sample.n=13", f"sample.sampler={sampler}"]
    ctx = toy_family.context(tmp_path / "run", overrides)
    train.run(ctx)
    sample.run(ctx)
    alone = store.content_digest(ctx.path("samples.h5"))
    ctx.path("samples.h5").unlink()
    for ranks in (2, 3):
        result = mpiexec(ranks, str(PROGRAM), str(ctx.folder))
        assert result.returncode == 0, result.stdout + result.stderr
        assert store.content_digest(ctx.path("samples.h5")) == alone
        ctx.path("samples.h5").unlink()


def test_an_interrupted_run_goes_on_where_it_was(ctx, monkeypatch):
    """Stopped by a signal in the second of its two micro-batches."""
    sample.run(ctx)
    whole = store.content_digest(ctx.path("samples.h5"))
    ctx.path("samples.h5").unlink()
    original, drawn = PartSampler.draw, []

    def interrupted(self, ids, *arguments):
        drawn.append(len(ids))
        if len(drawn) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, ids, *arguments)

    monkeypatch.setattr(PartSampler, "draw", interrupted)
    with pytest.raises(SystemExit) as stop:
        sample.run(ctx)
    assert stop.value.code == EXIT_REQUEUE
    assert drawn == [4]
    assert sample.run(ctx) == Balance("sample", 5, 5, {})
    assert drawn == [4, 1]  # the first micro-batch was kept
    assert store.content_digest(ctx.path("samples.h5")) == whole


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


def test_guidance_towards_nothing(tmp_path):
    ctx = toy_family.context(tmp_path / "run", ["sample.guidance=1.0"])
    train.run(ctx)
    with pytest.raises(ConfigError, match="nothing is asked for"):
        sample.run(ctx)


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
