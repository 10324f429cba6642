"""benchmarks/relax.py runs, and prints what it promises, on two real rows (`-m slow`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("HPCGEN_DATA", "")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="HPCGEN_DATA is not set: it names the folder of the data sets")
def test_both_sides_relax_the_same_rows() -> None:
    pytest.importorskip("chgnet")
    table = str(Path(DATA) / "mp_20_biternary_val.csv.gz")
    arguments = ["--csv", table, "--n", "2", "--max-atoms", "4", "--processes", "1", "--threads", "1"]
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/relax.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["compared"] == figures["n"] == 2
    assert figures["within_2meV"] == 1.0
    assert figures["worse_than_10meV"] == 0.0
    assert figures["max_force_eV_A"] <= 0.05
    assert figures["cpu_speedup"] > 1
    assert figures["structures_per_s"] > 0 < figures["one_by_one_per_s"]
