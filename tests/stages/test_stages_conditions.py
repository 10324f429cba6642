"""Data, training and sampling in stages with the real family: what is asked for in the configuration comes out."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import loads
from hpcgen.errors import CheckpointError, ConfigError
from hpcgen.stages import data, sample, train
from hpcgen.stages.context import Balance, Context
from hpcgen.train import checkpoint

CONFIG = """
name: asked
seed: 3
data: {max_atoms: 6, max_elements: 3, builtin: {cations: [Na, K, Ca, Sr, Ti], anions: [O, F], max_structures: 80}}
conditions: {categories: [crystal_system]}
model: {name: resmlp, width: 16, resnet_blocks: 1, lattice_width: 16, lattice_blocks: 1, composition_width: 16}
diffusion: {steps: 50}
train: {steps: 8, batch: 16, validate_every: 4, score_every: 1, device: cpu, parts: {composition: {steps: 4}}}
sample: {n: 6, steps: 4, micro_batch: 8, device: cpu}
reconstruct: {anneal: {starts: 1, sweeps: 2, polish: 2}}
"""


def context(folder: Path, *overrides: str) -> Context:
    ctx = Context(loads(CONFIG, overrides=list(overrides)), folder)
    ctx.claim()
    data.run(ctx)
    return ctx


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of its own."""
    ctx = context(tmp_path_factory.mktemp("trained") / "run")
    train.run(ctx)
    return ctx.path("checkpoint.pt")


def drawn(folder: Path, trained: Path, *overrides: str) -> store.File:
    ctx = context(folder, f"train.checkpoint={trained}", *overrides)
    train.run(ctx)
    sample.run(ctx)
    return store.open(ctx.path("samples.h5"))


def test_every_part_is_trained_for_its_own_steps_and_scored(trained: Path) -> None:
    found = checkpoint.load(trained)
    assert {name: part.step for name, part in found.parts.items()} == {"composition": 4, "lattice": 8, "descriptor": 8}
    assert {name: part.steps for name, part in found.parts.items()} == {"composition": 4, "lattice": 8, "descriptor": 8}
    with (trained.parent / "train.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["part"], line["step"]) for line in lines] == [
        ("composition", "4"),
        *((part, step) for part in ("lattice", "descriptor") for step in ("4", "8")),
    ]
    for line in lines:
        scored = {
            "composition": ["valid_composition", "unique_composition"],
            "lattice": ["density_distance"],
            "descriptor": ["rebuilt", "valid_structure"],
        }[line["part"]]
        assert all(float(line[name]) >= 0 for name in scored), line


def test_a_formula_and_a_cell_are_met_exactly(tmp_path: Path, trained: Path) -> None:
    asked = "sample.conditions={formula: SrTiO3, lattice: {a: 3.9, alpha: 90, beta: 90}}"
    with drawn(tmp_path / "run", trained, asked) as file:
        assert len(file) == 6
        elements, compositions = list(file.attrs["elements"]), file.array("composition")[...]
        for symbol, n in (("Sr", 1), ("Ti", 1), ("O", 3)):
            assert (compositions[:, elements.index(symbol)] == n).all()
        assert (compositions.sum(1) == 5).all()
        cells = file.array("lattice")[...]
        np.testing.assert_allclose(cells[:, [0, 3, 4]], [[3.9, 90, 90]] * 6, rtol=1e-6)
        assert len(np.unique(cells[:, 1])) == 6  # what was not given is drawn


def test_elements_and_columns_are_asked_for_and_guided(tmp_path: Path, trained: Path) -> None:
    asked = "sample.conditions={elements: [Ca, F], crystal_system: cubic}"
    with (
        drawn(tmp_path / "one", trained, asked) as one,
        drawn(tmp_path / "two", trained, asked, "sample.guidance=2.0") as two,
    ):
        for file in (one, two):
            present = file.array("composition")[...] > 0
            assert [set(np.array(file.attrs["elements"])[row]) for row in present] == [{"Ca", "F"}] * 6
        assert not np.allclose(one.array("lattice")[...], two.array("lattice")[...])


def test_a_checkpoint_taken_over_is_not_trained_and_says_so(tmp_path: Path, trained: Path) -> None:
    ctx = context(tmp_path / "run", f"train.checkpoint={trained}")
    balance = train.run(ctx)
    with store.open(ctx.path("dataset.h5")) as file:
        n = len(file)
    assert balance == Balance("train", n, 0, {"trained-elsewhere": n})
    assert train.run(ctx) == balance
    assert not ctx.path("train.csv").exists()
    mine, theirs = checkpoint.load(ctx.path("checkpoint.pt")), checkpoint.load(trained)
    assert all((mine.parts[p].ema[k] == v).all() for p in theirs.parts for k, v in theirs.parts[p].ema.items())


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        train.run(context(tmp_path / "run", f"train.checkpoint={tmp_path / 'nowhere.pt'}"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("{elements: [Fe]}", "Fe not in the training data"),
        ("{band_gap: 1.0}", "`band_gap`"),
        ("{crystal_system: round}", "crystal_system.*round"),
        ("{formula: Sr9Ti9O27}", "45 atoms"),
        ("{lattice: {a: -1}}", r"lattice\.a"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, trained: Path, asked: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawn(tmp_path / "run", trained, f"sample.conditions={asked}")


def test_the_benchmark_of_prediction_counts_every_row(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    monkeypatch.setenv("HPCGEN_CACHE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["predict.py", "--run", str(trained.parent), "--n", "4", "--attempts", "2"])
    runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "predict.py"), run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == 4 == found["formula_in_training"]["rows"] + found["formula_new"]["rows"]
    assert 0 <= found["match_rate_valid_only"] <= found["match_rate_all"] <= 1
    assert found["residual"] > 0
