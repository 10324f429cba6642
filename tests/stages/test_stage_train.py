"""Stage train with a toy family and the real store."""

from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_family

from hpcgen import pipeline, store
from hpcgen.errors import EXIT_REQUEUE, CheckpointError, ConfigError, DataError, StoreError, TrainingError
from hpcgen.family import FAMILIES
from hpcgen.stages import train
from hpcgen.stages.context import Balance
from hpcgen.train import checkpoint, loop
from hpcgen.train.batches import Batches
from hpcgen.train.plain import digest
from hpcgen.train.tally import Mean


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", "toy_family:ToyFamily")


def test_trains_and_balances(tmp_path):
    ctx = toy_family.context(tmp_path / "run")
    balance = train.run(ctx)
    # 20 entries: 12 training, 4 validation, 4 test; row 7 (training) is carbon
    assert balance == Balance("train", 20, 15, {"held-out-test": 4, "not-encoded": 1})
    found = checkpoint.load(ctx.path("checkpoint.pt"), family="toy", config_digest=ctx.config.digest())
    assert found.finished
    part = found.parts["joint"]
    assert (part.step, part.ema_step, part.shape) == (6, 6, [3])
    assert found.dataset_digest == store.content_digest(ctx.path("dataset.h5"))
    assert Balance.from_json(found.balance) == balance
    with store.open(ctx.path("dataset.h5")) as file:
        assert found.failures == [[file.ids[7], "train", "not-encoded", "carbon is not for toys"]]
    assert (part.lower < 0).all()
    assert (part.upper > 0).all()
    assert part.ema.keys() == part.weights.keys()
    assert any(not torch.equal(part.ema[k], part.weights[k]) for k in part.ema)
    rows = list(csv.DictReader(ctx.path("train.csv").open()))
    assert [row["step"] for row in rows] == ["3", "6"]
    files = {p.name for p in ctx.folder.iterdir()} - {"tensorboard"}
    assert files == {"config.yaml", "dataset.h5", "checkpoint.pt", "train.csv", "checkpoints"}
    kept = sorted(p.name for p in ctx.path("checkpoints/joint").iterdir())
    assert kept == ["best.pt", "step-000000004.pt", "step-000000006.pt"]


def test_a_finished_checkpoint_is_left_alone(tmp_path, caplog):
    ctx = toy_family.context(tmp_path / "run")
    balance = train.run(ctx)
    before = ctx.path("checkpoint.pt").read_bytes()
    with caplog.at_level(logging.INFO, "hpcgen"):
        assert train.run(ctx) == balance
    assert "nothing to do" in caplog.text
    assert ctx.path("checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_other_data_or_of_another_run_is_refused_and_kept(tmp_path):
    ctx = toy_family.context(tmp_path / "run")
    train.run(ctx)
    before = ctx.path("checkpoint.pt").read_bytes()
    toy_family.write_dataset(ctx.folder, ctx.config, rows=15)
    with pytest.raises(CheckpointError, match="was trained on other data"):
        train.run(ctx)
    other = toy_family.context(tmp_path / "other", ["seed=6"])
    other.path("checkpoint.pt").write_bytes(before)
    with pytest.raises(CheckpointError, match="another run folder"):
        train.run(other)
    assert ctx.path("checkpoint.pt").read_bytes() == other.path("checkpoint.pt").read_bytes() == before


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state_apart(tmp_path, monkeypatch):
    ctx = toy_family.context(tmp_path / "run", ["train.checkpoint_every=1"])
    original = Batches.share

    def broken(self, step, procs):
        rows, drawn = original(self, step, procs)
        return ({"x": rows["x"] * float("nan")} if step == 3 else rows), drawn

    monkeypatch.setattr(Batches, "share", broken)
    with pytest.raises(TrainingError, match="at step 4 "):
        train.run(ctx)
    assert not ctx.path("checkpoint.pt").exists()  # so that `hpcgen run` does not take the stage as done
    names = sorted(p.name for p in ctx.path("checkpoints/joint").iterdir())
    assert names == ["best.pt", "step-000000002.pt", "step-000000003.pt"]


def told_to_stop(monkeypatch, after: int) -> None:
    """This process gets SIGUSR1 in the step after so many."""
    original = Batches.share

    def share(self, step, procs):
        if step == after:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, step, procs)

    monkeypatch.setattr(Batches, "share", share)


def test_a_signal_stops_it_with_everything_saved_and_the_next_start_goes_on(tmp_path, monkeypatch, caplog):
    alone, ctx = (toy_family.context(tmp_path / name, ["train.steps=9"]) for name in ("alone", "run"))
    train.run(alone)
    with monkeypatch.context() as patch:
        told_to_stop(patch, 4)
        with pytest.raises(SystemExit) as stopped, caplog.at_level(logging.WARNING, "hpcgen"):
            train.run(ctx)
    assert stopped.value.code == EXIT_REQUEUE
    assert "stopped by a signal after step 5, everything done is saved" in caplog.text
    assert not ctx.path("checkpoint.pt").exists()
    assert train.run(ctx) is not None
    a, b = (checkpoint.load(c.path("checkpoint.pt")) for c in (alone, ctx))
    assert digest(vars(a.parts["joint"])) == digest(vars(b.parts["joint"]))


def test_the_best_weights_sample_if_asked_for(tmp_path, monkeypatch):
    ctx = toy_family.context(tmp_path / "run", ["train.select=best", "train.validate_every=1"])
    losses = iter([3.0, 2.0, 1.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(loop, "validation_loss", lambda *_: Mean(next(losses), (), 0.0))
    train.run(ctx)
    part = checkpoint.load(ctx.path("checkpoint.pt")).parts["joint"]
    assert (part.step, part.ema_step) == (6, 3)


def test_redo_trains_again_from_the_start(tmp_path):
    ctx = toy_family.context(tmp_path / "run")
    train.run(ctx)
    pipeline.set_aside(ctx, pipeline.stage("train"))
    assert {p.name for p in ctx.folder.iterdir()} == {"config.yaml", "dataset.h5", "old"}
    train.run(ctx)
    assert len(ctx.path("train.csv").read_text().splitlines()) == 3


def test_missing_data_set(tmp_path):
    with pytest.raises(StoreError):
        train.run(toy_family.context(tmp_path / "run", rows=0))


def test_unknown_family(tmp_path):
    with pytest.raises(ConfigError, match="'cubes'"):
        train.run(toy_family.context(tmp_path / "run", ["train.family=cubes"]))


def test_nothing_to_train_on(tmp_path, monkeypatch):
    ctx = toy_family.context(tmp_path / "run")
    monkeypatch.setattr(
        toy_family.ToyFamily,
        "misfits",
        lambda self, crystals: [(i, "too dull") for i in range(len(crystals))],
    )
    with pytest.raises(DataError, match="none of the 12 training structures can be encoded: too dull"):
        train.run(ctx)


def torchrun(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*command, toy_family.__file__, str(folder)], capture_output=True, text=True, timeout=180, env=environment
    )


def test_under_torchrun_process_0_alone_writes(tmp_path):
    alone = toy_family.context(tmp_path / "alone")
    train.run(alone)
    two = toy_family.context(tmp_path / "two")
    run = torchrun(two.folder)
    assert run.returncode == 0, run.stderr[-3000:]
    words = "train: 20 in = 15 out + 4 held-out-test + 1 not-encoded"
    assert sorted(line for line in run.stdout.splitlines() if "balance" in line) == [
        "balance None",
        f"balance {words}",
    ]
    a, b = (checkpoint.load(ctx.path("checkpoint.pt")) for ctx in (alone, two))
    a, b = a.parts["joint"].ema, b.parts["joint"].ema
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=2e-3, msg=name)


def test_a_failure_of_process_0_ends_all(tmp_path):
    ctx = toy_family.context(tmp_path / "run")
    ctx.path("dataset.h5").unlink()
    run = torchrun(ctx.folder)
    assert run.returncode != 0
    assert "StoreError" in run.stderr
    assert not ctx.path("checkpoint.pt").exists()
