"""The whole chain, as a user runs it, on a campaign small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcgen import pipeline, store
from hpcgen.stages.context import Balance

CAMPAIGN = """
name: tiny
seed: 3
data:
  max_atoms: 8
  max_elements: 2
  builtin: {cations: [Na, Mg, Ca], anions: [O, Cl]}
model: {name: resmlp, width: 64, resnet_blocks: 2}
train: {steps: 400, batch: 32, learning_rate: 0.003, ema: 0.98, validate_every: 200}
sample: {n: 10, steps: 20}
screen: {require_valid_composition: false}
relax: {max_steps: 60}
hull: {max_structures: 4}
farm: {ranks: 2}
"""

EAD = """
representation: {descriptor: ead, ead: {cutoff: 5.0, eta: [1.0, 4.0], centres: 12}}
reconstruct: {basin_hopping: {trials: 2, hops: 2, iterations: 40}}
"""


@pytest.mark.mpi
def test_from_nothing_to_a_report_and_again(hpcgen_command, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CAMPAIGN)
    run = tmp_path / "run"
    arguments = ("run", tmp_path / "tiny.yaml", "--run-dir", run)
    first = hpcgen_command(*arguments, "--until", "candidates")
    assert first.returncode == 2  # a stage, not a file
    first = hpcgen_command(*arguments, "--until", "reconstruct")
    assert first.returncode == 0, first.stdout + first.stderr
    assert not (run / "survivors.h5").exists()
    second = hpcgen_command(*arguments)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "reused" in second.stdout
    assert (run / "report/index.html").exists()

    stages = json.loads((run / "stages.json").read_text())
    assert [s["stage"] for s in stages] == [s.name for s in pipeline.STAGES]
    balances = {s["stage"]: Balance(**s["balance"]) for s in stages}  # refuses books that do not add up
    assert balances["sample"].left == balances["reconstruct"].entered == 10
    assert balances["reconstruct"].left == balances["screen"].entered
    assert balances["screen"].left == balances["relax"].entered > 0
    assert balances["relax"].left == balances["hull"].entered
    for name in ("dataset", "samples", "candidates", "survivors", "relaxed-mlip", "reference", "stability"):
        with store.open(run / f"{name}.h5") as f:
            f.verify()
            assert Balance.from_json(f.attrs["balance"])

    third = hpcgen_command(*arguments)
    assert third.returncode == 0
    assert third.stdout.count("reused") == len(pipeline.STAGES)
    inspected = hpcgen_command("inspect", "--verify", *sorted(run.glob("*.h5")))
    assert inspected.returncode == 0, inspected.stderr
    assert "hpcgen.stability" in inspected.stdout


def test_the_papers_descriptor_runs_too(hpcgen_command, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CAMPAIGN.replace("ranks: 2", "ranks: 1") + EAD)
    run = tmp_path / "run"
    result = hpcgen_command("run", tmp_path / "tiny.yaml", "--run-dir", run, "--until", "screen")
    assert result.returncode == 0, result.stdout + result.stderr
    with store.open(run / "samples.h5") as f:
        assert f.attrs["descriptor"] == "ead"
    with store.open(run / "candidates.h5") as f:
        assert len(f) + len(f.failures) == 10
        assert len(f) > 0
