"""The benchmark of reconstruction prints what it promises, for the rows that are asked for."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcgen.crystal import Crystal, to_structure

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ("n", "match_rate", "rmse", "seconds_mean", "seconds_median", "converged", "threads")  # of every preset


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows: CsCl in nine sizes, of which row 9 is a supercell of two, and row 4 that is no crystal."""
    texts = []
    for i in range(10):
        crystal = Crystal(np.eye(3) * (3.8 + 0.1 * i), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
        structure = to_structure(crystal)
        texts.append("nothing" if i == 4 else str((structure * (2, 1, 1) if i == 9 else structure).to(fmt="cif")))
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["cif"], *([text] for text in texts)])
    return file


def benchmark(*arguments: str | Path) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks/reconstruct.py"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, json.loads(result.stdout.splitlines()[-1])


def test_threads_change_no_bit(table: Path) -> None:
    text, one = benchmark("--csv", table, "--noise", "0.02", "--curve")
    _, two = benchmark("--csv", table, "--noise", "0.02", "--threads", "2")
    assert set(CONTRACT) <= set(one)
    assert (one["n"], one["match_rate"], one["threads"], two["threads"]) == (10, 0.9, 1, 2)
    assert one["digest"] == two["digest"]
    assert 0 < one["seconds_median"] <= one["seconds_max"]
    assert "no crystal: 1 rows, broken-cif" in text
    curve = [line.split()[:3] for line in text.splitlines() if line.split()[0] in ("2", "3-4", "all")]
    assert curve == [["2", "8", "100.00"], ["3-4", "1", "100.00"], ["all", "9", "100.00"]]


def rows(table: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the rows that the options select."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import reconstruct

    monkeypatch.setattr(sys, "argv", ["reconstruct.py", "--csv", str(table), *options])
    return [row.number for row in reconstruct.read(reconstruct._arguments())]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ((), list(range(10))),
        (("--split", "test"), [4, 9]),
        (("--split", "tune"), [0, 1, 2, 3, 5, 6, 7, 8]),
        (("--min-atoms", "3"), [4, 9]),  # what cannot be read counts as a miss
        (("--max-atoms", "3"), list(range(9))),
        (("--max-elements", "1"), [4]),
    ],
)
def test_rows_asked_for(table: Path, options: tuple[str, ...], numbers: list[int], monkeypatch) -> None:
    assert rows(table, *options, monkeypatch=monkeypatch) == numbers


def test_rows_are_drawn_by_the_seed(table: Path, monkeypatch) -> None:
    draws = [rows(table, "--n", "4", "--seed", str(seed), monkeypatch=monkeypatch) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 4
    assert rows(table, "--n", "6", monkeypatch=monkeypatch)[:4] == draws[0]


def test_a_misspelt_key_is_an_error(table: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/reconstruct.py"), "--csv", str(table), "--set", "seeed=1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "did you mean `seed`" in result.stderr
    assert "Traceback" not in result.stderr
