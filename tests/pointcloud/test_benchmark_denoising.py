"""The benchmarks of a trained model of clouds print what they promise: denoising trains it, guidance takes it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = """
name: tiny
pointcloud: {points: 48, max_elements: 3, max_sites: 8}
conditions: {n_atoms: false}
data:
  builtin: {cations: [Li, Na, K], anions: [O, Cl, S], max_structures: 40}
  max_atoms: 8
  max_elements: 3
model: {name: transformer, width: 16, resnet_blocks: 1, attention_heads: 2, patch: 8}
diffusion: {steps: 1000, objective: x0}
train: {family: pointcloud, steps: 8, batch: 8, validate_every: 4, checkpoint_every: 8, device: cpu}
sample: {n: 6, sampler: dpm++, steps: 4, micro_batch: 4, device: cpu}
"""


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / f"benchmarks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    benchmark(name).main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_denoising_and_guidance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    run = ["--run-dir", str(tmp_path / "run"), "--n", "6"]
    found = printed("denoising", [str(tmp_path / "tiny.yaml"), *run], monkeypatch, capsys)
    assert found["test"]["n"] == found["train"]["n"] == 6
    kinds = found["by_formula"]
    assert sum(kinds[kind]["n"] for kind in kinds) == 6
    for name in ("atoms_right", "matched"):  # the two kinds together are all rows
        for start, whole in found["test"]["curve"].items():
            step = "0" if start == "condition_alone" else start
            parts = sum(of["n"] * of[name].get(step, 0) for of in kinds.values())
            assert parts / 6 == pytest.approx(whole[name], abs=1e-3)

    told = printed(
        "guidance",
        ["--model", str(tmp_path / "run"), "--n", "4", "--guidance", "3", "--seeds", "2"],
        monkeypatch,
        capsys,
    )
    assert (told["n"], told["seeds"]) == (4, 2)
    shares = told["3"]
    assert shares["untold_identical"] == 1.0  # nothing but the condition tells two sets apart
    assert shares["pairs"] >= 2
    assert 0 <= shares["all_elements"] <= 1
