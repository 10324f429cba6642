"""The benchmark of decoding prints what it promises, and its figures hold on rows of the real file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CONTRACT = {
    "n", "skipped", "count_exact", "position_error_max_A", "position_error_rms_A", "clouds_per_s", "naive_clouds_per_s"
}  # fmt: skip


def benchmark(file: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks/decode.py"), "--csv", str(file), "--split", "tune", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_exact_and_noisy_clouds_of_real_crystals(data_folder: Path) -> None:
    file = data_folder / "mp_20_biternary_val.csv.gz"
    exact = benchmark(file, "--n", "40", "--naive", "5")
    assert set(exact) >= CONTRACT
    assert (exact["n"], exact["count_exact"], exact["rejected"]) == (40, 1.0, 0)
    assert exact["position_error_max_A"] <= 1e-4
    assert exact["clouds_per_s"] > exact["naive_clouds_per_s"] > 0
    noisy = benchmark(file, "--n", "40", "--naive", "0", "--noise", "0.05", "--seeds", "2", "--threads", "2")
    assert noisy["naive_clouds_per_s"] is None
    assert noisy["count_exact"] >= 0.975
    assert 0.02 < noisy["oracle_error_rms_A"] <= noisy["position_error_rms_A"] < 1.5 * noisy["oracle_error_rms_A"]


@pytest.mark.parametrize("options", [("--seeds", "0"), ("--noise", "-1"), ("--n", "0")])
def test_impossible_options(tmp_path: Path, options: tuple[str, str]) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/decode.py"), "--csv", str(tmp_path), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert "must be at least" in result.stderr
