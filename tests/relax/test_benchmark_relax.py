"""benchmarks/relax.py and supercells.py run, and print what they promise, on two real rows (`-m slow`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("HPCGEN_DATA", "")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="HPCGEN_DATA is not set: it names the folder of the data sets")
def test_both_sides_relax_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    table = str(Path(DATA) / "mp_20_biternary_val.csv.gz")
    arguments = ["--csv", table, "--n", "2", "--max-atoms", "4", "--processes", "1", "--threads", "1"]
    cache = tmp_path / "one-by-one.jsonl"
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/relax.py"), *arguments, "--cache", str(cache)]

    def run() -> dict[str, Any]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    figures = run()
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert [row["met"] for row in rows] == [True, True]
    for row in rows:
        assert row["same"]["force"] <= 0.05
        assert row["same"]["stress"] <= 0.1
        assert row["same"]["energy"] <= row["as_it_is"]["energy"] + 1e-4
    again = run()
    assert len(cache.read_text().splitlines()) == 2, "nothing was computed twice"
    same = ("digest", "one_by_one_per_s", "within_2meV", "within_2meV_as_it_is")
    assert [figures[key] for key in same] == [again[key] for key in same]
    assert figures["compared"] == figures["n"] == 2
    assert figures["within_2meV"] == 1.0
    assert figures["worse_than_10meV"] == 0.0
    assert figures["max_force_eV_A"] <= 0.05
    assert figures["cpu_speedup"] > 1
    assert figures["structures_per_s"] > 0 < figures["one_by_one_per_s"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="HPCGEN_DATA is not set: it names the folder of the data sets")
def test_symmetry_saves_supercells() -> None:
    pytest.importorskip("chgnet")
    pytest.importorskip("phonopy")
    table = str(Path(DATA) / "mp_20_biternary_val.csv.gz")
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/supercells.py"), "--csv", table]
    done = subprocess.run([*command, "--n", "2", "--max-atoms", "4"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["converged"] == 2
    assert figures["row"] <= figures["tight"]["0.03"] < figures["loose"]["0.0"]
    assert len(figures["forces"]) == 2
