"""`hpcgen phonons` by VASP: a stand-in with EMT inside, real custodian and the real controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vasp_campaign as campaign

from hpcgen import pipeline, slots, store
from hpcgen.cli import main
from hpcgen.config import Config, PhononsConfig, loads
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.dynamics.phonons import Displaced, displaced, spectrum, symmetrised
from hpcgen.errors import EXIT_REQUEUE, ConfigError, RunFolderError, UsageError
from hpcgen.flow import Phonons
from hpcgen.relax.minimise import Evaluation
from hpcgen.slots.ledger import events
from hpcgen.stages import phonons_vasp
from hpcgen.stages.context import Context

pytest.importorskip("custodian")
pytest.importorskip("phonopy")

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
COPPER = Crystal(3.62 * FCC, np.zeros((1, 3)), np.array([29]))
CUBIC = Crystal(2.42 * np.eye(3), np.zeros((1, 3)), np.array([29]))  # a saddle point
ALUMINIUM = Crystal(4.0 * FCC, np.zeros((1, 3)), np.array([13]))


def by_emt(crystals: Sequence[Crystal]) -> list[Evaluation]:
    """The potential inside the stand-in, asked directly."""
    from ase.calculators.emt import EMT

    out = []
    for crystal in crystals:
        atoms = to_atoms(crystal)
        atoms.calc = EMT()
        out.append(Evaluation(float(atoms.get_potential_energy()), atoms.get_forces(), np.zeros((3, 3))))
    return out


def ended(root: Path, state: str = "done") -> Counter[str]:
    return Counter(e["task"] for e in events(root) if e["event"] == "end" and e["state"] == state)


def test_modes_are_those_of_the_potential_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Copper: fcc is a minimum, the simple cubic crystal is not. The third lies too high to be looked at."""
    context = campaign.done(tmp_path, [COPPER, CUBIC, ALUMINIUM], [0.0, 0.1, 0.5], slots={"n": 1})
    with caplog.at_level("INFO", logger="hpcgen"):
        balance = pipeline.run_stage(context, "phonons")
    assert str(balance) == "phonons: 3 in = 2 out + 1 above-limit"
    assert "2 crystals, 2 relaxations, about 2 supercells of 27 to 64 atoms" in caplog.text
    with store.open(tmp_path / "phonons.h5", Phonons) as f:
        fcc, cubic = f
    for record, imaginary in ((fcc, False), (cubic, True)):
        direct = spectrum(by_emt, record.crystal, context.config.phonons)
        assert record.lowest_frequency == pytest.approx(direct.lowest()[0], abs=0.01)
        np.testing.assert_allclose(record.gamma.ravel(), direct.frequencies[0], atol=0.01)
        assert record.imaginary is imaginary
        assert (record.forces, record.scale, record.calculator) == ("vasp", "vasp-pbe-mp2020", "VASP 6.4.1, mp")
        assert record.max_force < context.config.phonons.max_force
        assert record.displacements == 1
    assert fcc.lowest_frequency > 1
    assert cubic.lowest_frequency < -1
    assert fcc.crystal.volume != pytest.approx(COPPER.volume, rel=1e-4), "VASP relaxed it first"
    assert set(ended(tmp_path / "vasp-phonons").values()) == {1}
    folder = next((tmp_path / "vasp-phonons").glob(f"{fcc.candidate_id}-d001-*/01"))
    incar = (folder / "INCAR.forces").read_text()
    for line in ("NSW = 0", "IBRION = -1", "EDIFF = 1e-08", "LREAL = False", "ISMEAR = 0", "LWAVE = False"):
        assert line in incar
    again = pipeline.run_stage(context, "phonons", redo=True)
    assert again == balance
    assert set(ended(tmp_path / "vasp-phonons").values()) == {1}, "what was computed is used again"


def with_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, str]:
    """Two atoms of aluminium and copper need two supercells, whose VASP crashes; the balance."""
    pair = campaign.cesium_chloride(("Al", "Cu"))
    context = campaign.done(tmp_path / "run", [pair, CUBIC], slots={"n": 1, "attempts": 1}, max_corrections=1)
    faults = [{"formula": "Al27Cu27", "fault": "segv", "step": "static"}]
    campaign.plan(tmp_path, monkeypatch, faults=faults, moments={"Al": 0.123, "Cu": -1.21})
    return context, str(pipeline.run_stage(context, "phonons"))


def test_one_supercell_that_fails_is_its_crystals_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, balance = with_a_fault(tmp_path, monkeypatch)
    assert balance == "phonons: 2 in = 1 out + 1 crashed"
    with store.open(context.path("phonons.h5"), Phonons) as f:
        (neighbour,), (failure,) = list(f), f.failures
    assert neighbour.crystal.formula == "Cu"
    assert failure.kind == "crashed"
    assert "AlCu: displaced supercell 1 of 2: VASP was killed by SIGSEGV" in failure.message
    begun = [*context.path("vasp-phonons").glob(f"{failure.id}-d*")]
    assert len(begun) == 1, "the other supercell would have been in vain"
    assert "MAGMOM = 27*0.1 27*-1.2" in (begun[0] / "01/INCAR").read_text(), "it begins with its cell's moments"


@pytest.mark.slow
def test_another_attempt_goes_on_where_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site is mended, and another attempt is allowed."""
    context, _ = with_a_fault(tmp_path, monkeypatch)
    campaign.plan(tmp_path, monkeypatch)
    settings = {"slots": {**context.config.slots.model_dump(), "attempts": 2}}
    more = Context(Config.model_validate(context.config.model_dump() | settings), context.folder)
    assert str(pipeline.run_stage(more, "phonons", redo=True)) == "phonons: 2 in = 2 out"
    assert set(ended(context.path("vasp-phonons")).values()) == {1}


def test_what_cannot_be_computed_costs_nothing(tmp_path: Path) -> None:
    """Too large, or beyond the budget: known before VASP is started."""
    large = Crystal(5.0 * np.eye(3), np.random.default_rng(1).random((8, 3)), np.full(8, 29))
    context = campaign.done(
        tmp_path, [large, COPPER, CUBIC], phonons={"n": 2, "max_atoms": 50, "supercell_length": 9.0}
    )
    work = phonons_vasp.Work(context)
    assert work.rows == []
    *refused, total = work.costs()
    assert total == "0 crystals, 0 relaxations, about 0 supercells"
    assert len(refused) == 2
    assert all("more than phonons.max_atoms (50)" in line for line in refused)
    balance = pipeline.run_stage(context, "phonons")
    assert str(balance) == "phonons: 3 in = 0 out + 2 supercell-too-large + 1 budget-spent"
    assert not list((tmp_path / "vasp-phonons").glob("*-relax-*"))


def test_names_of_tasks_say_what_is_computed(tmp_path: Path) -> None:
    def name(**settings: Any) -> str:
        (task,) = phonons_vasp.Work(campaign.done(tmp_path, [settings.pop("crystal", COPPER)], **settings))._relaxations
        return task

    noise = Crystal(COPPER.lattice * (1 + 1e-13), COPPER.frac - 1e-13, COPPER.numbers)
    same = [name(), name(poll=5.0, slots={"n": 7}), name(phonons={"tolerance": 1.0, "n": 3}), name(crystal=noise)]
    assert len(set(same)) == 1
    moved = Crystal(COPPER.lattice * 1.001, COPPER.frac, COPPER.numbers)
    other = [name(incar={"NCORE": 4}), name(phonons={"max_force": 0.01}), name(phonons={"incar": {"ediff": 1e-7}})]
    assert len({same[0], name(crystal=moved), *other}) == 5


def test_a_symmetry_that_is_almost_there_saves_supercells(tmp_path: Path) -> None:
    """Perovskite with the noise that a potential leaves, and with a distortion that is real."""
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    ideal = Crystal(3.9 * np.eye(3), frac, np.array([38, 22, 8, 8, 8]))
    rng = np.random.default_rng(0)
    noise = Crystal(
        ideal.lattice @ (np.eye(3) + 3e-4 * rng.standard_normal((3, 3))),
        frac + 3e-4 * rng.standard_normal((5, 3)),
        ideal.numbers,
    )
    config = PhononsConfig(supercell_length=7.0)
    assert len(displaced(noise, config).cells) == 30
    found = symmetrised(noise, config.symmetry)
    assert len(displaced(found, config).cells) == len(displaced(ideal, config).cells) == 3
    np.testing.assert_allclose(found.parameters[3:], 90.0, atol=1e-9)
    away = found.frac - ideal.frac
    assert abs(away - np.rint(away)).max() < 1e-3
    polar = Crystal(
        ideal.lattice, frac + np.array([[0, 0, 0], [0, 0, 0.01], [0, 0, 0], [0, 0, 0], [0, 0, 0]]), ideal.numbers
    )
    kept = symmetrised(polar, config.symmetry)  # titanium is off centre by 0.04 angstrom
    assert kept.frac[1, 2] - kept.frac[0, 2] == pytest.approx(0.51, abs=1e-6)
    assert symmetrised(noise, 0.0) is noise


def test_moments_that_differ_make_atoms_differ() -> None:
    """Iron in a cell of two: one displacement if its atoms are alike, two if their moments are not."""
    iron = Crystal(2.87 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 26]))
    config = PhononsConfig(supercell_length=5.0)
    counts = [len(displaced(iron, config, moments).cells) for moments in (None, [2.2, 2.2], [2.2, 0.5])]
    assert counts == [1, 1, 2]
    np.testing.assert_array_equal(displaced(iron, config).origin, np.repeat([0, 1], 8))


def test_a_hull_of_the_potential_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` says what it will cost; stability-mlip.h5 is taken where VASP has not relaxed anything yet."""
    context = campaign.done(tmp_path / "run", [COPPER])
    (tmp_path / "run/stability.h5").unlink()
    command = ["phonons", str(tmp_path / "run/config.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "Cu: a relaxation; supercells: 1 of 64 atoms (4x4x4 cells)" in out
    assert not (tmp_path / "run/vasp-phonons").exists()
    assert phonons_vasp.Work(context).source == "stability-mlip.h5"
    (tmp_path / "run/stability-mlip.h5").unlink()
    assert main(command) == RunFolderError.exit_code
    assert main([*command, "--dry-run"]) == RunFolderError.exit_code


def test_settings_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"phonons\.forces is `vasp`, and there is no section `vasp`"):
        loads("phonons: {forces: vasp}")
    context = campaign.done(tmp_path / "run", [COPPER], phonons={"forces": "mlip"})
    with pytest.raises(UsageError, match="ranks share that work"):
        pipeline.run_part(context, "phonons", 0, 2)
    store.write(tmp_path / "run/phonons.h5", Phonons, [], attrs={"identity": "another"})
    command = ["phonons", str(tmp_path / "run/config.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main(command) == RunFolderError.exit_code
    assert "was made with other settings of `phonons`" in capsys.readouterr().err


def start(run: Path, *more: str) -> subprocess.Popen[bytes]:
    """`hpcgen phonons` as a program of its own."""
    command = [sys.executable, "-m", "hpcgen", "phonons", str(run / "config.yaml"), "--run-dir", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def await_done(run: Path, count: int, *programs: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while sum(ended(run / "vasp-phonons").values()) < count:
        assert all(program.poll() is None for program in programs), "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_and_stopped_it_goes_on_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [campaign.cesium_chloride(pair) for pair in (("Al", "Cu"), ("Ag", "Cu"))] + [COPPER, CUBIC]
    calm = campaign.done(tmp_path / "calm", crystals)
    assert str(pipeline.run_stage(calm, "phonons")) == "phonons: 4 in = 4 out"
    run = tmp_path / "run"
    campaign.done(run, crystals)
    campaign.plan(tmp_path, monkeypatch, seconds=0.4)
    for count, number, code in ((2, signal.SIGKILL, -signal.SIGKILL), (6, signal.SIGTERM, EXIT_REQUEUE)):
        program = start(run)
        await_done(run, count, program)
        os.kill(program.pid, number)
        assert program.wait(timeout=60) == code
        assert not (run / "phonons.h5").exists()
    assert start(run).wait(timeout=120) == 0
    found = ended(run / "vasp-phonons")
    assert set(found.values()) == {1}
    # digests are others: a relaxation that goes on from where it was stopped ends elsewhere within its criterion
    jobs, calm_jobs = (sorted(task[:-11] for task in tasks) for tasks in (found, ended(calm.path("vasp-phonons"))))
    assert jobs == calm_jobs
    assert all(s.state == "done" for s in slots.standings(run / "vasp-phonons").values())
    with store.open(run / "phonons.h5", Phonons) as f, store.open(calm.folder / "phonons.h5", Phonons) as g:
        assert [r.id for r in f] == [r.id for r in g]
        for a, b in zip(f, g, strict=True):
            assert a.lowest_frequency == pytest.approx(b.lowest_frequency, abs=1e-2)


@pytest.mark.slow
def test_parts_share_the_crystals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = campaign.done(tmp_path / "run", [COPPER, CUBIC])
    programs = [start(context.folder, "--shard", f"{k}/2") for k in range(2)]
    assert [program.wait(timeout=120) for program in programs] == [0, 0]
    assert not (context.folder / "phonons.h5").exists()
    assert len(list((context.folder / "vasp-phonons").glob("ledger-*-of-2.jsonl"))) == 2
    assert str(pipeline.run_stage(context, "phonons")) == "phonons: 2 in = 2 out"
    assert set(ended(context.folder / "vasp-phonons").values()) == {1}

    def broken(self: Displaced, forces: Sequence[np.ndarray]) -> None:
        raise ArithmeticError("a bug")

    monkeypatch.setattr(Displaced, "spectrum", broken)
    assert str(pipeline.run_stage(context, "phonons", redo=True)) == "phonons: 2 in = 0 out + 2 internal-error"
