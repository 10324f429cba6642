"""The benchmark that compares networks runs from a table of CIFs to the figures it promises."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from hpcgen.crystal import Crystal, to_structure

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [(11, 17), (3, 9), (12, 8), (20, 16)]


def test_a_network_is_trained_and_judged_by_crystals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["cif"])
        for i in range(60):
            a = 5 + 0.2 * rng.random()
            crystal = Crystal(a / 2 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.5] * 3], PAIRS[i % len(PAIRS)])
            rows.writerow([to_structure(crystal).to(fmt="cif")])
    model = "{name: resmlp, width: 16, resnet_blocks: 1}"
    command = [sys.executable, str(ROOT / "benchmarks/networks.py"), "--csv", str(tmp_path / "rows.csv")]
    command += ["--steps", "3", "--n", "3", "--model", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["steps"] == 3
    assert 0 <= figures["match_rate"] <= 1
    assert figures["residual"] > 0
