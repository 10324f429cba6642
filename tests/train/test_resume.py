"""Interrupted and resumed is the same as never interrupted, bit by bit."""

from __future__ import annotations

import csv
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_part import ORIGIN, After, configuration, keeper, run

from hpcgen.errors import CheckpointError
from hpcgen.train.checkpoint import Origin
from hpcgen.train.plain import digest
from hpcgen.train.trainer import Trainer


def table(folder: Path) -> list[dict[str, str]]:
    """train.csv without the columns that say how fast it was."""
    lines = list(csv.DictReader((folder / "train.csv").open(newline="")))
    return [{k: v for k, v in line.items() if k not in ("seconds", "samples_per_s")} for line in lines]


def everything(trainer: Trainer) -> str:
    """Digest of weights, averaged weights and the optimiser's state."""
    return digest({k: v for k, v in trainer.state().items() if k != "tally"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return everything(run(folder)), table(folder)


@pytest.mark.parametrize("steps", [1, 10, 13, 14, 29])  # 10: a checkpoint; 14: a line; 13: neither
def test_stopped_and_resumed(tmp_path: Path, undisturbed, steps: int) -> None:
    first = run(tmp_path, stop=After(steps))
    assert first.step == steps
    second = run(tmp_path)
    assert (everything(second), table(tmp_path)) == undisturbed


def test_stopped_again_and_again(tmp_path: Path, undisturbed) -> None:
    for _ in range(10):
        assert run(tmp_path, stop=After(3)).step <= 30
    assert (everything(run(tmp_path)), table(tmp_path)) == undisturbed
    assert [line["step"] for line in table(tmp_path)] == ["7", "14", "21", "28", "30"]


def test_killed_between_two_steps(tmp_path: Path, undisturbed) -> None:
    program = [sys.executable, str(Path(__file__).with_name("toy_part.py")), str(tmp_path), "17"]
    assert subprocess.run(program, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    lines = (tmp_path / "train.csv").read_text().splitlines()
    assert len(lines) == 1 + 2
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\ntoy,16,0.5")  # the kill may tear a line
    assert (everything(run(tmp_path)), table(tmp_path)) == undisturbed


def test_another_number_of_processes_goes_on_with_the_same_batches(tmp_path: Path, undisturbed) -> None:
    """Here of the two processes' state only; test_ddp.py compares the batches and gradients."""
    stopped = run(tmp_path, stop=After(13))
    whole = stopped.tally.sums.clone()
    assert whole[1] == 6 * 16  # rows since the line of step 7
    resumed = run(tmp_path, stop=After(1))
    assert resumed.tally.sums[1] == 0  # step 14 has a line
    assert table(tmp_path)[1] == undisturbed[1][1]


def test_the_last_checkpoints_and_the_best_stay(tmp_path: Path) -> None:
    run(tmp_path, configuration(checkpoint_every=4))
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pt", "step-000000028.pt", "step-000000030.pt"]
    losses = {line["step"]: float(line["validation_loss"]) for line in table(tmp_path)}
    best = keeper(tmp_path).best()
    assert losses[str(best["step"])] == min(losses.values())
    assert best["validation_loss"] == pytest.approx(min(losses.values()), rel=1e-5)


def test_the_best_is_not_the_last_where_the_loss_rises_again(tmp_path: Path) -> None:
    trainer = run(tmp_path, configuration(learning_rate=0.03, ema=0.5, validate_every=5), shift=3.0)
    losses = [float(line["validation_loss"]) for line in table(tmp_path)]
    best = keeper(tmp_path).best()
    assert best["step"] == 5 * (1 + losses.index(min(losses))) < 30
    assert digest(best["ema"]) != digest(trainer.average.state_dict())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, undisturbed, caplog, damage: str) -> None:
    run(tmp_path, stop=After(23))
    newest = tmp_path / "checkpoints/step-000000023.pt"
    whole = bytearray(newest.read_bytes())
    if damage == "flipped":
        weights = torch.load(newest, weights_only=True)["content"]["state"]["weights"]["0.weight"]
        whole[whole.find(weights.numpy().tobytes())] ^= 1
    newest.write_bytes({"truncated": whole[: len(whole) // 2], "flipped": whole, "empty": b""}[damage])
    with caplog.at_level(logging.INFO, "hpcgen"):
        trainer = run(tmp_path)
    assert "step-000000023.damaged, the one before is taken" in caplog.text
    assert "goes on after step 20 of 30" in caplog.text
    assert (everything(trainer), table(tmp_path)) == undisturbed


def test_with_all_checkpoints_damaged_training_starts_over(tmp_path: Path, undisturbed) -> None:
    run(tmp_path, stop=After(12))
    for path in (tmp_path / "checkpoints").glob("step-*"):
        path.write_bytes(b"nothing")
    assert (everything(run(tmp_path)), table(tmp_path)) == undisturbed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "other"}, "family 'toy'"),
        ({"config_digest": "other"}, "configuration digest configuration"),
        ({"dataset_digest": "other"}, "trained on other data: content digest data"),
    ],
)
def test_checkpoints_of_another_run_are_refused_and_kept(tmp_path: Path, change: dict[str, str], said: str) -> None:
    run(tmp_path, stop=After(3))
    with pytest.raises(CheckpointError, match=said):
        run(tmp_path, keeper=keeper(tmp_path, origin=Origin(**vars(ORIGIN) | change)))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000003.pt"]


def test_a_finished_training_is_not_trained_further(tmp_path: Path, undisturbed) -> None:
    run(tmp_path)
    again = run(tmp_path, stop=After(1, lambda: pytest.fail("a step was done")))
    assert (everything(again), table(tmp_path)) == undisturbed
