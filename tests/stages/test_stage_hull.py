"""The stage hull: verdicts, uniqueness and novelty after relaxation, scales that may not meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpcgen import cli, store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import EXIT_OK, RunFolderError, ThermoError
from hpcgen.flow import Entry, ReferenceEntry, Relaxation, Stability, make_id
from hpcgen.stages import hull
from hpcgen.stages.context import Balance, Context
from hpcgen.thermo import ReferenceSet

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2


def rocksalt(a: float, cation: int, anion: int) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([cation, anion]))


def relaxation(index: int, crystal: Crystal, per_atom: float, scale: str) -> Relaxation:
    n = len(crystal)
    energy = per_atom * n
    ids = make_id("t", "r", index), make_id("t", "c", index)
    arrays = np.zeros((n, 3)), np.zeros((3, 3))
    return Relaxation(ids[0], crystal, ids[1], energy, energy, 0.0, 0.0, 0.1, 3, True, "p 1", scale, "d", 0.1, *arrays)


CSCL = Crystal(3.5 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))
CRYSTALS = [
    (rocksalt(5.7, 11, 17), -3.5),  # NaCl, new and stable, known from the training data
    (CSCL, -3.3),  # another structure of it, novel
    (rocksalt(5.75, 11, 17), -3.45),  # the first again
    (rocksalt(4.2, 12, 8), -6.0),  # Mg is not in the reference
]
REFERENCE = {"Na1": -1.3, "Cl2": -1.8, "Na1 Cl1": -3.4, "Na1 Cl3": -2.5}


def fill(folder: Path, scale: str = "chgnet-mp2020", reference_scale: str = "mp2020-gga-u") -> Context:
    items = [relaxation(i, c, e, scale) for i, (c, e) in enumerate(CRYSTALS)]
    store.write(folder / "relaxed-mlip.h5", Relaxation, items, attrs={"scale": scale})
    entries = tuple(
        ReferenceEntry(make_id("t", "e", i), f"mp-{i}", formula, energy, i < 2)
        for i, (formula, energy) in enumerate(REFERENCE.items())
    )
    ReferenceSet(entries, reference_scale, "GGA_GGA+U", "2023-02-07", "by hand").write(folder / "reference.h5")
    training = [Entry(make_id("t", "d", 0), rocksalt(5.6, 11, 17), "row:1", "train")]
    training += [Entry(make_id("t", "d", 1), CSCL, "row:2", "test")]
    store.write(folder / "dataset.h5", Entry, training)
    return Context(Config(), folder)


def test_verdicts(tmp_path: Path) -> None:
    balance = hull.run(fill(tmp_path))
    assert str(balance) == "hull: 4 in = 3 out + 1 no-element-reference"
    with store.open(tmp_path / "stability.h5", Stability) as f:
        records, failures, attrs = list(f), f.failures, f.attrs
    first, second, third = records
    assert first.e_hull == pytest.approx(-0.1)
    assert first.e_hull_self == 0
    assert second.e_hull == pytest.approx(0.1)
    assert second.e_hull_self == pytest.approx(0.2)
    assert third.e_hull == pytest.approx(-0.05)
    assert third.e_hull_self == pytest.approx(0.05)
    assert first.formation_energy == pytest.approx(-3.5 + (1.3 + 1.8) / 2)
    assert first.energy_per_atom == pytest.approx(-3.5)
    assert first.decomposition == "1.00 NaCl"
    assert first.reference_entries == 4
    assert [r.spacegroup for r in records] == [225, 221, 225]
    assert [r.unique for r in records] == [True, True, False]
    assert [r.duplicate_of for r in records] == ["", "", make_id("t", "r", 0)]
    assert [r.novel for r in records] == [False, True, False]
    assert {r.label for r in records} == {"screening"}
    assert {(r.scale, r.reference_scale) for r in records} == {("chgnet-mp2020", "mp2020-gga-u")}
    assert {r.reference_digest for r in records} == {ReferenceSet.read(tmp_path / "reference.h5").digest}
    assert [(f.id, f.kind) for f in failures] == [(make_id("t", "c", 3), "no-element-reference")]
    assert "Mg" in failures[0].message
    assert Balance.from_json(attrs["balance"]) == balance
    assert attrs["label"] == "screening"
    assert [r.new_stable for r in records] == [True, False, True]
    assert [r.sun for r in records] == [False, True, False]  # known; stable within 0.1, unique, novel; a duplicate
    assert (attrs["sun"], attrs["new_stable"], attrs["submitted"]) == (1, 2, Config().sample.n)
    assert [r.competitors for r in records] == ["mp-2"] * 3
    assert {r.correction for r in records} == {0.0}
    assert attrs["uniqueness"].startswith("2 comparisons instead of 6")


def test_verify_by_linear_programmes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ctx = fill(tmp_path)
    hull.run(ctx)
    assert "3 energies above the hull agree" in hull.verify(ctx)
    (tmp_path / "config.yaml").write_text(Config().text())
    command = ["hull", str(tmp_path / "config.yaml"), "--run-dir", str(tmp_path), "--verify"]
    assert cli.main(command) == EXIT_OK
    assert "stability.h5: 3 energies" in capsys.readouterr().out
    with store.open(tmp_path / "stability.h5", Stability) as f:
        records, attrs = list(f), {"reference_digest": f.attrs["reference_digest"]}
    records[1] = replace(records[1], e_hull=records[1].e_hull + 1e-7)
    store.write(tmp_path / "stability.h5", Stability, records, attrs=attrs)
    with pytest.raises(ThermoError, match=f"NaCl .{records[1].id}"):
        hull.verify(ctx)
    store.write(tmp_path / "stability.h5", Stability, records, attrs={"reference_digest": "another"})
    with pytest.raises(RunFolderError, match="another reference"):
        hull.verify(ctx)


def test_corrections_are_told(tmp_path: Path) -> None:
    """As the DFT stage calls it: energies corrected already, and by how much."""
    fill(tmp_path)
    reference = ReferenceSet.read(tmp_path / "reference.h5")
    items = [relaxation(i, c, e, "vasp-pbe-mp2020") for i, (c, e) in enumerate(CRYSTALS[:2])]
    found = hull.judge(items, reference, [], "same-scale", "x", corrections={items[0].id: -1.0})
    assert [r.correction for r in found if isinstance(r, Stability)] == [-0.5, 0.0]
    assert found[0].energy_per_atom == -3.5


def test_same_scale(tmp_path: Path) -> None:
    hull.run(fill(tmp_path, reference_scale="chgnet-mp2020"))
    with store.open(tmp_path / "stability.h5", Stability) as f:
        assert set(f.column("label")) == {"same-scale"}


def test_scales_that_may_not_meet(tmp_path: Path) -> None:
    with pytest.raises(ThermoError, match="may not meet") as error:
        hull.run(fill(tmp_path, scale="ase:mace"))
    assert "ase:mace" in error.value.found
    assert "mp2020-gga-u" in error.value.found
    assert not (tmp_path / "stability.h5").exists()


def test_nothing_relaxed(tmp_path: Path) -> None:
    ctx = fill(tmp_path)
    store.write(tmp_path / "relaxed-mlip.h5", Relaxation, [], attrs={"scale": "chgnet-mp2020"})
    assert str(hull.run(ctx)) == "hull: 0 in = 0 out"
