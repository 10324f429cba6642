"""The fault matrix: what goes wrong with VASP, through real custodian, with neighbours that must not notice.

The table of docs/vasp.md says the same. Each fault ends when INCAR holds the remedy, as with VASP itself; `stubborn`
ones never do. In every case a neighbour runs beside in a slot of its own and has to be done at its first attempt.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vasp_campaign as campaign

from hpcgen import slots
from hpcgen.slots import Control, Outcome
from hpcgen.stages import dft, select
from hpcgen.vasp.outputs import read_structure

pytest.importorskip("custodian")

CORRECTED = {
    "zbrent": ("relax", {"NELMIN": 8, "EDIFF": 1e-6}),
    "brmix": ("relax", {"IMIX": 1}),
    "edddav": ("relax", {"ALGO": "All", "ISEARCH": 1}),
    "zpotrf": ("relax", {"ISYM": 0}),
    "inv_rot_mat": ("relax", {"SYMPREC": 1e-4}),
    "tet": ("relax", {"ISMEAR": 0}),
    "scf": ("relax", {"ALGO": "Normal"}),
}
"""Fault, step and INCAR tags that custodian sets until VASP runs."""

ONCE = {
    "hang": "hung",
    "truncated": "truncated-output",
    "segv": "crashed",
    "never": "never-started",
    "refuse": "never-started",
    "softstop": "stopped-early",
    "disk": "disk-full",
}
"""Faults that another attempt gets past, and what the first is called."""

FOR_GOOD = {
    "zbrent": "zbrent",
    "brmix": "brmix",
    "edddav": "edddav",
    "zpotrf": "zpotrf",
    "inv_rot_mat": "inv-rot-mat",
    "tet": "tet",
    "scf": "scf-not-converged",
    "hang": "hung",
    "truncated": "truncated-output",
    "segv": "crashed",
    "softstop": "stopped-early",
    "composition": "wrong-composition",
}
"""Faults that never end, and the kind of the stored failure."""


def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **fault: Any) -> tuple[slots.Standing, Path]:
    """The victim's standing and folder, after both it and its neighbour came to an end."""
    hang = 4.0 if fault["fault"] == "hang" else 600.0
    context = campaign.fill(tmp_path / "run", 2, hang=hang, compress=False, max_corrections=4)
    select.run(context)
    campaign.plan(tmp_path, monkeypatch, faults=[{"formula": "AlCu", **fault}])
    balance = dft.run(context)
    assert balance.entered == 2
    root = tmp_path / "run/vasp"
    (neighbour, _, _), (victim, _, _) = dft._chosen(context)
    found = slots.standings(root)
    assert (found[neighbour].state, found[neighbour].last) == ("done", 1), "a neighbour was disturbed"
    return found[victim], root / victim


@pytest.mark.slow
@pytest.mark.parametrize("fault", CORRECTED)
def test_custodian_corrects(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, tags = CORRECTED[fault]
    standing, folder = compute(tmp_path, monkeypatch, fault=fault, step=step)
    assert (standing.state, standing.last, standing.attempts) == ("done", 1, 0)
    outcome = slots.read_outcome(folder / "01")
    assert outcome is not None
    found = outcome.result["corrections"]
    assert {key: found.get(key) for key in tags} == tags
    log = json.loads((folder / "01/custodian.json").read_text())
    assert log[0]["corrections"], "custodian had nothing to correct"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ONCE)
def test_another_attempt_gets_past(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = 3 if fault == "hang" else 1  # custodian restarts a hung VASP twice before it gives up
    standing, folder = compute(tmp_path, monkeypatch, fault=fault, times=times, step="relax")
    assert (standing.state, standing.last) == ("done", 2)
    first = slots.read_outcome(folder / "01")
    assert first is not None
    assert first.kind == ONCE[fault]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FOR_GOOD)
def test_what_cannot_be_mended_is_a_failure_with_its_name(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing, _ = compute(tmp_path, monkeypatch, fault=fault, stubborn=True)
    assert (standing.kind, standing.message != "") == (FOR_GOOD[fault], True)
    assert standing.state == "failed" or standing.attempts == 3


# --- one attempt at a time, in this process ---


def order(folder: Path, **more: Any) -> dict[str, Any]:
    crystal = campaign.cesium_chloride(("Al", "Ni"))
    folder.mkdir(parents=True)
    geometry = {"lattice": crystal.lattice.tolist(), "frac": crystal.frac.tolist(), "numbers": crystal.numbers.tolist()}
    section = campaign.settings(compress=False)["vasp"] | more.pop("vasp", {})
    return {"task": "a", "attempt": 1, "folder": str(folder), "vasp": section, "counted": 0, **geometry, **more}


def attempt(folder: Path, control: Control | None = None, **more: Any) -> Outcome:
    from hpcgen.vasp import task

    return task.run(order(folder, **more), control or Control())


def test_stale_outputs_are_not_taken_for_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of a good run lie in the folder, and VASP does not start."""
    good = attempt(tmp_path / "a/01")
    assert good.state == "done"
    from hpcgen.vasp import task

    campaign.plan(tmp_path, monkeypatch, faults=[{"fault": "never"}])
    what = order(tmp_path / "b/01")
    for name in ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR"):
        (tmp_path / "b/01" / name).write_bytes((tmp_path / "a/01" / f"{name}.static").read_bytes())
    outcome = task.run(what, Control())
    assert (outcome.state, outcome.kind) == ("sick", "never-started")


def test_a_stop_goes_on_from_contcar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot is told to stop in the middle of the relaxation; the next attempt goes on, to the same result."""
    import threading

    calm = attempt(tmp_path / "calm/01")
    campaign.plan(tmp_path, monkeypatch, seconds=0.5)
    control = Control()
    folder = tmp_path / "a/01"

    def stop() -> None:
        # the second ionic step is of a cell that has moved
        while not (folder / "OSZICAR").exists() or (folder / "OSZICAR").read_text().count(" F= ") < 2:
            pass
        control.stop(20.0)

    watcher = threading.Thread(target=stop)
    watcher.start()
    stopped = attempt(folder, control)
    watcher.join()
    assert (stopped.state, stopped.kind, stopped.progress) == ("stopped", "out-of-time", True)
    assert not (folder / "vasprun.xml.relax1").exists()
    done = attempt(tmp_path / "a/02")
    assert done.state == "done"
    left, begun = read_structure(folder / "CONTCAR"), read_structure(tmp_path / "a/02/POSCAR.relax1")
    assert left is not None
    assert begun is not None
    assert np.allclose(left.lattice.matrix, begun.lattice.matrix, atol=1e-6)
    assert left.volume != pytest.approx(27.0, abs=1e-3), "it did not begin at the start again"
    assert done.result["energy"] == pytest.approx(calm.result["energy"], abs=2e-3)
    third = attempt(tmp_path / "a/03", vasp={"relaxations": 2})  # relax1 is taken over, relax2 done
    assert third.state == "done"


@pytest.mark.slow
def test_atoms_come_back_in_their_order_and_outputs_are_compressed(tmp_path: Path) -> None:
    outcome = attempt(tmp_path / "a/01", vasp={"compress": True})
    assert outcome.result["numbers"] == [13, 28]
    names = {p.name for p in (tmp_path / "a/01").iterdir()}
    assert {"vasprun.xml.relax1.gz", "vasprun.xml.static.gz", "OUTCAR.static.gz", "custodian.json"} <= names
    assert not any(name.startswith(("WAVECAR", "CHGCAR")) for name in names)
    with gzip.open(tmp_path / "a/01/INCAR.relax1.gz", "rt") as incar:
        assert "ISIF = 3" in incar.read()


def test_corrections_go_on_to_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign.plan(tmp_path, monkeypatch, faults=[{"fault": "zpotrf", "times": 1, "stubborn": True}])
    outcome = attempt(tmp_path / "a/01")
    assert outcome.state == "done"
    for step in ("relax1", "static"):
        assert "ISYM = 0" in (tmp_path / f"a/01/INCAR.{step}").read_text()
    log = json.loads((tmp_path / "a/01/custodian.json").read_text())
    assert [len(entry["corrections"]) > 0 for entry in log] == [True, False]


def test_forces_by_other_settings_than_the_neighbours_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Custodian's remedy is another smearing: fine for an energy, but not for one of several supercells."""
    from hpcgen.vasp import inputs

    campaign.plan(tmp_path, monkeypatch, faults=[{"fault": "tet"}])
    plan = inputs.forces({"ISMEAR": -5}, carry={}, mesh=[2, 2, 2], repeats=[1, 1, 1], moments=None)
    outcome = attempt(tmp_path / "a/01", plan=plan.to_json())
    assert (outcome.state, outcome.kind) == ("failed", "incomparable-settings")
    assert "ISMEAR 0 instead of -5" in outcome.message
    symmetry = inputs.forces({}, carry={}, mesh=None, repeats=[1, 1, 1], moments=None)
    campaign.plan(tmp_path, monkeypatch, faults=[{"fault": "zpotrf"}])
    harmless = attempt(tmp_path / "b/01", plan=symmetry.to_json())
    assert (harmless.state, harmless.result["corrections"]) == ("done", {"ISYM": 0})
    assert np.array(harmless.result["forces"]).shape == (2, 3)


@pytest.mark.slow
def test_ions_that_do_not_converge_go_on_from_contcar(tmp_path: Path) -> None:
    """Few ionic steps at a time: custodian goes on until it is done, or gives up where it may correct but once."""
    outcome = attempt(tmp_path / "a/01", vasp={"incar": {"NSW": 3}})
    assert outcome.state == "done"
    log = json.loads((tmp_path / "a/01/custodian.json").read_text())
    corrections = log[0]["corrections"]
    assert corrections
    assert {c["handler"]["@class"] for c in corrections} == {"UnconvergedErrorHandler"}
    outcome = attempt(tmp_path / "b/01", vasp={"incar": {"NSW": 2}, "max_corrections": 1})
    assert (outcome.state, outcome.kind) == ("failed", "not-converged")
