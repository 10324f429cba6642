"""Stage train with a toy family and the real store."""

from __future__ import annotations

import csv
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_family

from hpcgen import store
from hpcgen.errors import CheckpointError, ConfigError, DataError, StoreError, TrainingError
from hpcgen.family import FAMILIES
from hpcgen.stages import train
from hpcgen.stages.context import Balance
from hpcgen.train import checkpoint


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
    assert found.step == 6
    assert found.shape == [3]
    assert found.dataset_digest == store.content_digest(ctx.path("dataset.h5"))
    assert Balance.from_json(found.balance) == balance
    with store.open(ctx.path("dataset.h5")) as file:
        assert found.failures == [[file.ids[7], "train", "not-encoded", "carbon is not for toys"]]
    assert (found.lower < 0).all()
    assert (found.upper > 0).all()
    assert found.ema.keys() == found.weights.keys()
    assert any(not torch.equal(found.ema[k], found.weights[k]) for k in found.ema)
    rows = list(csv.DictReader(ctx.path("train.csv").open()))
    assert [row["step"] for row in rows] == ["3", "6"]
    files = {p.name for p in ctx.folder.iterdir()}
    assert files == {"config.yaml", "dataset.h5", "checkpoint.pt", "train.csv"}


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
    from hpcgen.train import loop

    original = loop.Batches.share

    def broken(self, step, procs):
        x0, t, eps = original(self, step, procs)
        return (x0 * float("nan") if step == 3 else x0), t, eps

    monkeypatch.setattr(loop.Batches, "share", broken)
    with pytest.raises(TrainingError, match="at step 4 "):
        train.run(ctx)
    assert not ctx.path("checkpoint.pt").exists()  # so that `hpcgen run` does not take the stage as done
    kept = checkpoint.load(ctx.path(train.PARTIAL))
    assert kept.step == 3
    assert not kept.finished
    assert all(w.isfinite().all() for w in kept.ema.values())


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
        "encode",
        lambda self, crystals: (torch.zeros(0, 3).numpy(), [(i, "too dull") for i in range(len(crystals))]),
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
    for name in a.ema:
        torch.testing.assert_close(a.ema[name], b.ema[name], atol=2e-4, rtol=2e-3, msg=name)


def test_a_failure_of_process_0_ends_all(tmp_path):
    ctx = toy_family.context(tmp_path / "run")
    ctx.path("dataset.h5").unlink()
    run = torchrun(ctx.folder)
    assert run.returncode != 0
    assert "StoreError" in run.stderr
    assert not ctx.path("checkpoint.pt").exists()
