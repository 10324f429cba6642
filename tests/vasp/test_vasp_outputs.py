"""Real outputs of VASP: the good ones give the energies in their files, the failed ones the right names."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("custodian")

from hpcgen.vasp.outputs import UnreadableOutputError, read_output
from hpcgen.vasp.verdict import Expected, diagnose, explain, problem

NAMES = {
    "vasp.amin": "amin",
    "vasp.read_error": "read_error",
    "std_err.oom": "out_of_memory",
    "vasp.zbrent": "zbrent",
    "vasp.ibzkpt": "mesh_symmetry",
    "vasp.too_few_bands_round_error": "too_few_bands",
    "vasp.edddav": "edddav",
    "vasp.brmix": "brmix",
    "vasp.point_group": "point_group",
    "std_err.kpoints_trans": "kpoints_trans",
    "vasp.subspace": "subspacematrix",
    "vasp.set_core_wf": "set_core_wf",
    "vasp.posmap": "posmap",
    "vasp.rhosyg": "rhosyg",
}


@pytest.mark.parametrize(("run", "elements"), [("mp_run", ["Ni", "O"]), ("nonmetallic", ["Si", "Si"])])
def test_good_runs_give_the_energies_in_their_files(data_folder: Path, run: str, elements: list[str]) -> None:
    folder = data_folder / "vasp_runs/ok" / run
    output = read_output(folder)
    with gzip.open(folder / "OUTCAR.gz", "rt") as outcar:
        text = outcar.read()
    assert output.energy == pytest.approx(float(re.findall(r"energy\(sigma->0\) =\s+(\S+)", text)[-1]), abs=1e-6)
    assert [s.symbol for s in output.final.species] == elements
    assert (output.electronic, output.ionic, output.stopped) == (True, True, False)
    assert np.isfinite(output.stress).all()
    steps = [float(e) for e in re.findall(r"energy\(sigma->0\) =\s+(\S+)", text)]
    assert len(output.step_energy) == len(output.step_max_force) == output.steps == text.count("TOTAL-FORCE")
    assert all(any(abs(e - known) < 1e-5 for known in steps) for e in output.step_energy)
    assert output.step_max_force[-1] == pytest.approx(np.linalg.norm(output.forces, axis=1).max())
    u = {"mp_run": {"Ni": 6.2}, "nonmetallic": {}}[run]
    expected = Expected(elements, output.initial.volume, output.tags["ENCUT"], 2, u, [])
    assert problem("static", output, expected, 3.0) is None
    assert {"mp_run": "GGA+U", "nonmetallic": "GGA"}[run] == output.run_type


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"symbols": ["Ni", "Ni"]}, "wrong-composition"),
        ({"volume": 100.0}, "volume-changed"),
        ({"encut": 680.0}, "incomparable-settings"),
        ({"ispin": 1}, "incomparable-settings"),
        ({"hubbards": {}}, "incomparable-settings"),
        ({"potcars": ["Ni", "O"]}, "incomparable-settings"),
        ({"potcars": ["Ni_pv", "O"]}, ""),
    ],
)
def test_a_good_run_that_is_not_what_was_asked_for(data_folder: Path, change: dict, kind: str) -> None:
    output = read_output(data_folder / "vasp_runs/ok/mp_run")
    asked = {"symbols": ["Ni", "O"], "volume": 21.8, "encut": 520.0, "ispin": 2, "hubbards": {"Ni": 6.2}, "potcars": []}
    found = problem("static", output, Expected(**(asked | change)), 3.0)
    assert (found[0] if found else "") == kind


@pytest.mark.parametrize("file", NAMES)
def test_failed_runs_are_named(data_folder: Path, tmp_path: Path, file: str) -> None:
    source = data_folder / "vasp_runs/failed/stdout" / file
    shutil.copy(source, tmp_path / ("vasp.out" if file.startswith("vasp") else "std_err.txt"))
    assert NAMES[file] in diagnose(tmp_path)


def test_failed_folders_lead_to_a_verdict(data_folder: Path, tmp_path: Path) -> None:
    """Through custodian's handlers themselves, as after the end of a job."""
    from custodian.vasp import handlers as mp

    failed = data_folder / "vasp_runs/failed"
    expected = {
        "large_cell_real_optlay": (mp.VaspErrorHandler(), {"real_optlay"}),
        "positive_energy": (mp.PositiveEnergyErrorHandler(), set()),
        "nonconv": (mp.NonConvergingErrorHandler(nionic_steps=2), set()),
    }
    for name, (handler, errors) in expected.items():
        folder = tmp_path / name
        shutil.copytree(failed / name, folder)
        for file in folder.iterdir():
            file.chmod(0o644)
        assert handler.check(str(folder)), name
        assert errors <= set(getattr(handler, "errors", set()))
    shutil.copytree(failed / "poscar_error", tmp_path / "poscar_error")
    verdict = explain(tmp_path / "poscar_error", None, [], 1)
    assert (verdict.state, verdict.kind) == ("again", "rot-matrix")
    with pytest.raises(UnreadableOutputError):
        read_output(tmp_path / "poscar_error")
    with pytest.raises(UnreadableOutputError, match=r"vasprun\.xml"):
        read_output(tmp_path / "nonconv")


def test_memory_is_named(data_folder: Path, tmp_path: Path) -> None:
    shutil.copy(data_folder / "vasp_runs/failed/stdout/std_err.oom", tmp_path / "std_err.txt")
    (tmp_path / "OUTCAR").write_text("began\n")
    verdict = explain(tmp_path, None, [], 1)
    assert (verdict.state, verdict.kind) == ("again", "out-of-memory")


def test_a_cut_file_is_no_result(data_folder: Path, tmp_path: Path) -> None:
    with gzip.open(data_folder / "vasp_runs/ok/mp_run/vasprun.xml.gz", "rt") as vasprun:
        text = vasprun.read()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "vasprun.xml").write_text(text[: int(share * len(text))])
        with pytest.raises(UnreadableOutputError):
            read_output(tmp_path)
