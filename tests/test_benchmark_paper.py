"""The benchmark of the paper's preset spends the paper's budget, and prints what every preset promises."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from hpcgen.crystal import Crystal

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CONTRACT = {"n", "match_rate", "rmse", "seconds_mean", "seconds_median", "converged", "threads"}


def test_the_whole_budget_is_spent_and_extrapolated_alone(monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import paper_preset

    settings = {"noise": 0.0, "lattice_noise": 0.0, "seed": 0, "threads": 2, "csv": Path("rows.csv")}
    crystals = [Crystal(np.eye(3) * a, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17]) for a in (6.5, 7.0)]
    paper_preset.run(argparse.Namespace(**settings), crystals)
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert set(figures) >= CONTRACT
    assert (figures["n"], figures["threads"], figures["steps"]) == (2, 2, 12_600)
    assert (figures["match_rate"], figures["stopped_match_rate"], figures["converged"]) == (1.0, 1.0, 1.0)
    assert figures["rmse"] <= figures["stopped_rmse"] < 0.05
    assert figures["stopped_steps_mean"] < 12_600
    assert figures["seconds_mean"] == pytest.approx(12.6 * figures["ms_per_step_batched"], rel=0.01)
    assert figures["seconds_full_single"] == pytest.approx(12.6 * figures["ms_per_step_single"], rel=0.01)
    assert figures["seconds_full_single_is"] == "extrapolated"
    assert [line.split()[0] for line in lines[:-1]] == ["CsCl", "CsCl"]


def test_no_crystal_is_an_error(monkeypatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import paper_preset

    with pytest.raises(SystemExit, match="no row of"):
        paper_preset.run(argparse.Namespace(csv=Path("rows.csv")), [])
