"""The benchmark of decoding prints what it promises, and its figures hold on rows of the real file."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hpcgen.crystal import Crystal

ROOT = Path(__file__).resolve().parent.parent.parent
CONTRACT = {
    "n", "skipped", "count_exact", "position_error_max_A", "position_error_rms_A", "clouds_per_s", "naive_clouds_per_s"
}  # fmt: skip


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_decode", ROOT / "benchmarks/decode.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # as for a program that is started there
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows of the real file: all of it takes seconds to read."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with gzip.open(data_folder / "mp_20_biternary_val.csv.gz", "rt", newline="") as whole, path.open("w") as part:
        csv.writer(part).writerows(islice(csv.reader(whole), 61))
    return path


def test_exact_and_noisy_clouds_of_real_crystals(
    benchmark: ModuleType, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(*options: str) -> dict[str, Any]:
        benchmark.main(["--csv", str(rows), "--split", "tune", "--n", "30", *options])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    exact = figures("--naive", "3")
    assert set(exact) >= CONTRACT
    assert (exact["n"], exact["count_exact"], exact["rejected"]) == (30, 1.0, 0)
    assert exact["position_error_max_A"] <= 1e-4
    assert exact["clouds_per_s"] > exact["naive_clouds_per_s"] > 0
    noisy = figures("--naive", "0", "--noise", "0.05", "--seeds", "2", "--threads", "2", "--polish")
    assert noisy["naive_clouds_per_s"] is None
    assert noisy["count_exact"] >= 0.95
    of = noisy["exact_by_separation"].values()  # every row is in one of the ranges
    assert sum(n for n, _ in of) == 30
    assert sum(n * share for n, share in of) / 30 == pytest.approx(noisy["count_exact"], abs=1e-4)
    # The oracle has the least expected error, no least error on every draw: where the decoder leaves a far point of an
    # atom to none, its mean may by chance be nearer. Both see the same noise, so the difference is far below 1 %.
    oracle = noisy["oracle_error_rms_A"]
    assert 0.02 < 0.99 * oracle <= noisy["position_error_rms_A"] < 1.5 * oracle
    assert noisy["polished_error_rms_A"] < noisy["position_error_rms_A"]
    assert noisy["symmetric"] > 0.5


def test_separation_is_of_like_atoms_across_faces(benchmark: ModuleType) -> None:
    frac = np.array([[0.95, 0, 0], [0.05, 0, 0], [0.95, 0.01, 0], [0.5, 0.5, 0.5]])
    numbers = np.array([8, 8, 22, 38])
    assert benchmark.separation(Crystal(np.eye(3) * 5.0, frac, numbers)) == pytest.approx(0.1)
    assert benchmark.separation(Crystal(np.eye(3) * 5.0, frac[1:], numbers[1:])) == np.inf


@pytest.mark.parametrize("options", [("--seeds", "0"), ("--noise", "-1"), ("--n", "0")])
def test_impossible_options(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--csv", str(tmp_path), *options])
    assert stop.value.code == 2
    assert "must be at least" in capsys.readouterr().err
