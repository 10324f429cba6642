"""The stages select, dft and stability, with a stand-in for VASP under real custodian."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vasp_campaign as campaign

from hpcgen import pipeline, store
from hpcgen.config import Config, loads
from hpcgen.errors import ConfigError, LaunchError, RunFolderError, UsageError
from hpcgen.flow import DftRelaxation, Stability
from hpcgen.stages import dft, select, stability
from hpcgen.stages.context import Context

pytest.importorskip("custodian")


def test_from_the_first_hull_to_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = campaign.fill(tmp_path / "run", 3, select={"max_e_hull": 0.0015}, relaxations=2)
    faults = [{"formula": "AlCu", "fault": "composition"}]
    campaign.plan(tmp_path, monkeypatch, faults=faults)
    balance = pipeline.run_stage(context, "select")
    assert str(balance) == "select: 3 in = 2 out + 1 e-hull-too-high"
    balance = pipeline.run_stage(context, "dft")
    assert str(balance) == "dft: 2 in = 1 out + 1 wrong-composition"
    with store.open(tmp_path / "run/relaxed-vasp.h5", DftRelaxation) as f:
        (record,), (failure,) = list(f), f.failures
        assert f.attrs["scale"] == "vasp-pbe-mp2020"
    assert failure.stage == "dft"
    assert record.candidate_id != failure.id
    assert record.crystal.formula == "AlNi"
    assert record.max_force < 0.1
    assert record.energy < record.energy_initial
    assert 0 < record.seconds < 600
    assert json.loads(record.potcars) == ["PAW_PBE Al 06Sep2000", "PAW_PBE Ni_pv 06Sep2000"]
    assert (record.run_type, record.attempts) == ("GGA", 1)
    assert (tmp_path / "run" / record.folder / "vasprun.xml.static.gz").exists()
    assert sorted(set(record.step_run.tolist())) == [1, 2]
    assert len(record.step_energy) == len(record.step_max_force) == record.steps
    assert record.step_energy[0] == pytest.approx(record.energy_initial / 2, abs=1e-5)
    assert record.step_max_force[0] == pytest.approx(record.max_force_initial, abs=1e-5)
    assert not (tmp_path / "run" / record.folder / "WAVECAR").exists()
    balance = pipeline.run_stage(context, "stability")
    assert str(balance) == "stability: 1 in = 1 out"
    with store.open(tmp_path / "run/stability.h5", Stability) as f:
        (verdict,) = list(f)
    assert verdict.energy_per_atom == pytest.approx(record.energy / 2)  # metals carry no MP2020 correction
    assert verdict.formation_energy == pytest.approx(record.energy / 2 + 4.2)
    assert (verdict.scale, verdict.label) == ("vasp-pbe-mp2020", "same-scale")


def test_selection_gives_every_reason(tmp_path: Path) -> None:
    relaxations = [campaign.relaxed_by_ml(i, campaign.cesium_chloride(campaign.PAIRS[i // 3])) for i in range(9)]
    e_hull = [0.0, 0.01, 0.02, -0.01, 0.3, 0.05, 0.03, 0.04, 0.06]
    crystals = [campaign.on_first_hull(r, e) for r, e in zip(relaxations, e_hull, strict=True)]
    crystals[7] = campaign.on_first_hull(relaxations[7], 0.04, unique=False)
    crystals[8] = campaign.on_first_hull(relaxations[8], 0.06, novel=False)
    converged = [i != 6 for i in range(9)]
    config = Config.model_validate(
        {"select": {"per_system": 2, "max_structures": 3, "require_novel": True, "require_converged": True}}
    )
    verdicts = select.judge(crystals, converged, config)
    of = {int(np.flatnonzero([v.candidate_id == c.candidate_id for c in crystals])[0]): v for v in verdicts}
    reasons = {i: of[i].reason for i in range(9)}
    assert reasons == {
        0: "", 1: "", 2: "system-full", 3: "", 4: "e-hull-too-high", 5: "budget-spent", 6: "not-relaxed",
        7: "not-unique", 8: "not-novel",
    }  # fmt: skip
    assert [of[i].rank for i in (3, 0, 1, 5)] == [1, 2, 3, 4]  # systems take turns, the most stable first
    assert [v.rank for v in verdicts][:4] == [1, 2, 3, 4]


def test_a_budget_of_node_hours(tmp_path: Path) -> None:
    relaxations = [campaign.relaxed_by_ml(i, campaign.cesium_chloride(campaign.PAIRS[i])) for i in range(3)]
    crystals = [campaign.on_first_hull(r, 0.0) for r in relaxations]
    config = Config.model_validate({"select": {"node_hours": 0.05, "hours_16_atoms": 1.28}})  # 0.02 h for 2 atoms
    verdicts = select.judge(crystals, [True] * 3, config)
    assert [v.kept for v in verdicts] == [True, True, False]
    assert verdicts[0].node_hours == pytest.approx(0.02)


def test_mp2020_is_applied_once_and_refusals_are_named() -> None:
    """An oxide gets its anion correction; another functional is refused."""
    oxide = campaign.cesium_chloride(("Ni", "Ni"))
    crystal = type(oxide)(4.2 * (np.ones((3, 3)) - np.eye(3)) / 2, oxide.frac, np.array([12, 8]))  # MgO
    record = DftRelaxation(
        "0" * 16, crystal, "1" * 16, -12.0, -11.0, 0.0, 0.0, 0.1, 3, True, "VASP", "vasp-pbe-mp2020", "d", 0.1,
        np.zeros((2, 3)), np.zeros((3, 3)), "2" * 16, "GGA", "{}",
        json.dumps(["PAW_PBE Mg_pv 06Sep2000", "PAW_PBE O 08Apr2002"]), "6.4.1", 0.0, "{}", 1, "",
    )  # fmt: skip
    (good,), refused, added = stability.correct([record], "vasp-pbe-mp2020")
    assert good.energy == pytest.approx(-12.0 - 0.687, abs=1e-3)
    assert added[record.id] == pytest.approx(-0.687, abs=1e-3)
    assert not refused
    (same,), _, _ = stability.correct([record], "my-own-scale")
    assert same.energy == -12.0
    other = type(record)(**{**record.__dict__, "run_type": "R2SCAN"})
    good_ones, (failure,), _ = stability.correct([other], "vasp-pbe-mp2020")
    assert not good_ones
    assert failure.kind == "wrong-functional"


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = campaign.fill(tmp_path / "run", 1, command=["no-such-vasp"])
    pipeline.run_stage(context, "select")
    with pytest.raises(LaunchError, match=r"no program 'no-such-vasp'"):
        dft.run(context)
    monkeypatch.setattr("pymatgen.core.SETTINGS", {})
    context = campaign.fill(tmp_path / "run2", 1, potcars=True)
    pipeline.run_stage(context, "select")
    with pytest.raises(LaunchError, match="PMG_VASP_PSP_DIR is not set"):
        dft.run(context)
    assert not (tmp_path / "run2/vasp").exists()
    with pytest.raises(UsageError, match="no section `vasp`"):
        pipeline.run_stage(Context(Config(), tmp_path / "other"), "dft")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vasp: {command: [vasp_std], incar: {ISPIN: 1}}", "vasp.incar.ISPIN would make energies"),
        ("vasp: {command: [vasp_std], incar: {ldauu: {Ni: 3}}}", "vasp.incar.LDAUU would make energies"),
        ("vasp: {command: [vasp_std], potcar: {W: W_sv}}", "vasp.potcar.W would make energies"),
        ("vasp: {command: [vasp_std], incar: {ENCUT: 400}, scale: vasp-pbe-mp2020}", "take another name"),
        ("vasp: {command: [vasp_std]}", "hull.reference is `self`"),
        ("vasp: {comand: [vasp_std]}", "did you mean `command`"),
    ],
)
def test_settings_that_make_energies_incomparable(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loads(text)


def test_vasp_can_be_added_to_a_campaign_that_has_come_to_its_end(tmp_path: Path) -> None:
    context = campaign.fill(tmp_path / "run", 1)
    folder = context.folder
    before = Context(context.config.model_copy(update={"vasp": None}), folder)
    (folder / "config.yaml").write_text(before.config.text())
    (folder / "stability-mlip.h5").rename(folder / "stability.h5")
    (folder / "report").mkdir()
    assert str(pipeline.run_stage(context, "select")) == "select: 1 in = 1 out"
    assert not (folder / "stability.h5").exists()
    assert (folder / "old/before-vasp/report").is_dir()
    with pytest.raises(RunFolderError, match="belongs to another configuration: vasp"):
        before.check()
    context.check()


def test_what_does_not_change_a_result_changes_no_digest() -> None:
    base, other = campaign.settings(), campaign.settings(poll=5.0, command=["srun", "vasp_std"], slots={"n": 64})
    assert Config.model_validate(base).digest() == Config.model_validate(other).digest()
    assert Config.model_validate(base).digest() != Config.model_validate(campaign.settings(relaxations=2)).digest()
