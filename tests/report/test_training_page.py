"""`hpcgen inspect RUN`: the curves of a training, also one that is not done."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from hpcgen import cli
from hpcgen.report import svg, training
from hpcgen.train.history import History


def line(step: int, **more: float) -> dict[str, float]:
    losses = {f"{name}{band}": 1 / step for name in ("train_loss", "validation_loss") for band in ("", "_1", "_2")}
    rest = {"learning_rate": 1e-3, "gradient_norm": 0.5, "samples_per_s": 1000.0, "seconds": 2.0 * step}
    return losses | rest | more


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a <run>"
    folder.mkdir()
    for part, steps in (("composition", 12), ("lattice", 3)):
        history = History(folder / "train.csv", part)
        history.begin(0)
        for step in range(1, steps + 1):
            history.write(step, line(step, **({"valid": 0.0 if step < 6 else 0.5} if step % 3 == 0 else {})))
    return folder


def test_inspect_plots_every_part(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(run)]) == 0
    said = capsys.readouterr().out
    assert "composition: 12 lines, 24 s of training" in said
    assert "lattice: 3 lines, 6 s of training" in said
    assert "validation_loss" in said
    assert str(run / "training.html") in said
    page = (run / "training.html").read_text(encoding="utf-8")
    assert "a &lt;run&gt;" in page
    assert "<h2>composition</h2>" in page
    for label in (
        "training loss",
        "validation loss",
        "learning rate",
        "norm of the gradient",
        "samples per s",
        "valid",
    ):
        assert page.count(f'aria-label="{label} over optimiser step"') == 2, label
    assert page.count("least noise") == page.count("less noise") == 4
    assert "more noise" not in page  # no such column
    start = page.index("<svg")
    ElementTree.fromstring(page[start : page.index("</svg>") + 6])


def test_a_score_of_zero_is_shown() -> None:
    steps, zeros = np.arange(1.0, 4.0), np.array([0.0, 0.0, 0.5])
    assert svg.curves(steps, {"valid": zeros}, "step", "valid", log=False).count(",") > svg.curves(
        steps, {"valid": zeros}, "step", "valid"
    ).count(",")


def test_a_folder_without_a_training_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "has no line of a train.csv yet" in capsys.readouterr().err
    (tmp_path / "train.csv").write_text("part,step\n")
    assert training.read(tmp_path / "train.csv") == {}
