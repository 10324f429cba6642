"""benchmarks/train.py measures what it says, on a network of its own size."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "benchmarks/train.py"
KEYS = ("samples_per_s", "loop_samples_per_s", "overhead_fraction", "fraction_of_peak_flops", "step_ms")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("benchmark_train", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_train", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.PRESETS, "tiny", module.Preset(12, 16, "model: {name: resmlp, width: 8}"))
    return module


def test_the_last_line_has_the_figures(benchmark, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--preset", "tiny", "--seconds", "0.5", "--device", "cpu"])
    threads = torch.get_num_threads()
    try:
        benchmark.main()
    finally:
        torch.set_num_threads(threads)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(KEYS) <= figures.keys()
    assert figures["batch"] == 16
    assert figures["samples_per_s"] == pytest.approx(16_000 / figures["step_ms"], rel=0.01)
    assert figures["loop_samples_per_s"] > 0
    assert 0 < figures["fraction_of_peak_flops"] < 1
    assert figures["overhead_fraction"] < 1


def test_operations_are_counted(benchmark) -> None:
    layer = torch.nn.Linear(32, 64)
    x = torch.randn(16, 32, requires_grad=True)
    # forward, gradient of the weights, gradient of the input: a product of 16 x 32 x 64 each
    assert benchmark.count_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 16 * 32 * 64
