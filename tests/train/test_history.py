"""train.csv and TensorBoard's events: nothing twice, nothing lost."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpcgen.train.history import NAMES, History


def line(step: int, **more: float) -> dict[str, float]:
    return {name: float(step) for name in NAMES if name not in ("part", "step")} | more


def begun(path: Path, part: str = "joint", step: int = 0, **options) -> History:
    history = History(path, part, **options)
    history.begin(step)
    return history


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def test_a_line_is_on_disk_when_it_is_written(tmp_path: Path) -> None:
    history = begun(tmp_path / "train.csv")
    history.write(5, line(5))
    assert rows(tmp_path / "train.csv")[0]["step"] == "5"
    assert rows(tmp_path / "train.csv")[0]["train_loss"] == "5"


def test_going_on_drops_the_lines_of_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    first = begun(path)
    for step in (5, 10, 15):
        first.write(step, line(step, valid=0.5))
    second = History(path, "joint")
    assert second.begin(10) == 10.0  # seconds of the line kept
    second.write(15, line(15))
    assert [(r["step"], r["valid"]) for r in rows(path)] == [("5", "0.5"), ("10", "0.5"), ("15", "")]


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    begun(path).write(5, line(5))
    with path.open("a") as file:
        file.write("joint,7,0.")
    begun(path, step=9).write(9, line(9))
    assert [r["step"] for r in rows(path)] == ["5", "9"]


def test_a_new_column_is_added_to_the_lines_before(tmp_path: Path) -> None:
    history = begun(tmp_path / "train.csv")
    history.write(5, line(5))
    history.write(10, line(10, density=0.25))
    assert [r["density"] for r in rows(tmp_path / "train.csv")] == ["", "0.25"]


def test_parts_do_not_touch_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    begun(path, "composition").write(50, line(50))
    begun(path, "lattice").write(5, line(5))
    begun(path, "lattice", 0)
    assert [(r["part"], r["step"]) for r in rows(path)] == [("composition", "50")]


def test_another_file_of_that_name_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("step,loss\n1,2\n")
    begun(path).write(5, line(5))
    assert [r["step"] for r in rows(path)] == ["5"]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    if find_spec("tensorboard") is None:
        history = begun(tmp_path / "train.csv", events=tmp_path / "tensorboard")
        history.write(5, line(5))
        assert not (tmp_path / "tensorboard").exists()  # an optional package
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = begun(tmp_path / "train.csv", events=tmp_path / "tensorboard")
    for step in (5, 10):
        history.write(step, line(step, validation_loss=float("nan")))
    history.close()
    history = begun(tmp_path / "train.csv", step=5, events=tmp_path / "tensorboard")
    history.write(10, line(11))
    history.close()
    events = EventAccumulator(str(tmp_path / "tensorboard/joint")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(5, 5.0), (10, 11.0)]
    assert [(e.step, e.value) for e in events.Scalars("validation_loss")] == [(10, 11.0)]
