from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from ase.build import bulk

from hpcgen.crystal import from_atoms, to_structure

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks/evaluate.py"
KEYS = {
    *("n", "seconds", "cpu_s_per_structure", "seconds_reference", "processes", "validity_structure"),
    *("validity_composition", "cov_r", "cov_p", "cov_r_structrepdiff", "cov_p_structrepdiff"),
    *("emd_density", "emd_elements", "ceiling"),
}


def test_the_last_line_holds_the_contract(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    table = tmp_path / "perov.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cif"])
        for i in range(10):
            crystal = from_atoms(bulk("NaCl", "rocksalt", a=5.4 + 0.05 * i))
            writer.writerow([to_structure(crystal).to(fmt="cif")])
    spec = importlib.util.spec_from_file_location("benchmark_evaluate", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--csv", str(table), "--n", "3", "--processes", "1"])
    program.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == KEYS
    assert (found["n"], found["validity_structure"], found["cov_r_structrepdiff"]) == (3, 1.0, 1.0)
    assert found["ceiling"]["n"] == 3
    assert found["ceiling"]["cov_p"] == 1.0  # the training rows are the same salt, a little larger or smaller
    assert found["ceiling"]["emd_density"] > 0
