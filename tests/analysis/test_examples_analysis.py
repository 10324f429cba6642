"""The example scripts, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.db import connect

import hpcgen

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples/analysis"


def call(script: str, *arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chemical_systems(run_folder, tmp_path):
    out = call("chemical_systems.py", run_folder, cwd=tmp_path).splitlines()
    with hpcgen.open(run_folder) as run:
        systems = {"-".join(c.elements) for c in run.crystals()}
    assert {line.split()[0] for line in out[2:]} == systems


def test_residual_against_e_hull(run_folder, tmp_path):
    out = call("residual_against_e_hull.py", run_folder, "-o", "r.png", cwd=tmp_path)
    assert out.startswith("12 converged crystals")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_to_ase_database(run_folder, tmp_path):
    call("to_ase_database.py", run_folder, "-o", "s.db", "--stable", 0.1, cwd=tmp_path)
    with hpcgen.open(run_folder) as run, connect(tmp_path / "s.db") as database:
        stable = run.joined().query("unique and novel and e_hull <= 0.1")
        rows = list(database.select())
        assert [r.identity for r in rows] == [f"hpcgen-{i}" for i in stable.sort_values("e_hull").index]
        for row in rows:
            crystal = run.crystals()[row.identity.removeprefix("hpcgen-")]
            assert row.toatoms().get_chemical_formula(empirical=True)
            assert row.volume / row.natoms == pytest.approx(crystal.volume / len(crystal), rel=1e-3)
