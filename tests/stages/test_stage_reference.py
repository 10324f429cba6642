"""The stage reference: by the own calculator, from a CSV, and from a reference.h5."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.data.prototypes import element_structures
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Candidate, Entry, ReferenceEntry, Relaxation, Survivor, make_id
from hpcgen.stages import reference
from hpcgen.stages.context import Balance, Context
from hpcgen.thermo import ReferenceSet

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2


def rocksalt(a: float, cation: int, anion: int) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([cation, anion]))


def context(folder: Path, **hull) -> Context:
    return Context(Config.model_validate({"relax": {"device": "cpu"}, "hull": hull}), folder, folder)


def fill(folder: Path) -> None:
    """One survivor, Mg-O; training structures in and outside its system, one in the test split, one that is broken."""
    crystal = rocksalt(4.3, 12, 8)
    none = np.zeros(1)
    one = Candidate(
        make_id("t", "c", 0), crystal, make_id("t", "s", 0), "x", 0.01, 1, "converged", 1.0, "", 0, "", 1, none, 0.1
    )
    survivor = Survivor(make_id("t", "v", 0), one.id, True, "", "MgO", 225, 2.0, 3.0, True, "", True)
    fused = Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.05, 0, 0]]), np.array([12, 8]))
    entries = [
        Entry(make_id("t", "d", i), c, f"row:{i}", split)
        for i, (c, split) in enumerate(
            [
                (rocksalt(4.2, 12, 8), "train"),
                (rocksalt(5.6, 11, 17), "train"),
                (fused, "train"),
                (rocksalt(4.1, 12, 8), "test"),
                (rocksalt(4.8, 20, 8), "train"),
            ]
        )
    ]
    store.write(folder / "candidates.h5", Candidate, [one])
    store.write(folder / "survivors.h5", Survivor, [survivor])
    store.write(folder / "dataset.h5", Entry, entries)


def test_self(tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    fill(tmp_path)
    ctx = context(tmp_path)
    balance = reference.run(ctx)
    assert balance is not None
    trials = len(element_structures("Mg")) + len(element_structures("O"))
    assert balance.entered == trials + 2
    assert balance.left == 3
    made = ReferenceSet.read(tmp_path / "reference.h5")
    assert sorted(e.formula for e in made.entries if e.element)[0].startswith("Mg")
    assert [e.formula for e in made.entries if not e.element] == ["Mg1 O1"]
    assert made.scale == "chgnet-mp2020"
    assert "NOT Materials Project" in made.source
    assert "2 elements and 1 training structures" in made.source
    with store.open(tmp_path / "reference.h5", ReferenceEntry) as f:
        kinds = {x.kind for x in f.failures}
        assert len(f.failures) == trials + 2 - 3
        assert Balance.from_json(f.attrs["balance"]) == balance
    assert {"higher-polymorph", "atoms-too-close"} <= kinds
    energies = {e.formula.split()[0][:2]: e.energy_per_atom for e in made.entries if e.element}
    mg, o = energies["Mg"], next(e.energy_per_atom for e in made.entries if e.element and e.formula.startswith("O"))
    mgo = next(e.energy_per_atom for e in made.entries if not e.element)
    assert mgo - (mg + o) / 2 == pytest.approx(-3.0, abs=0.25)  # Materials Project: -3.04 eV/atom
    again = reference.run(ctx)
    assert again == balance
    assert ReferenceSet.read(tmp_path / "reference.h5").digest == made.digest


def test_csv_and_then_its_h5(tmp_path: Path) -> None:
    (tmp_path / "ef.csv").write_text("material_id,formula,formation_energy_per_atom\nmp-1,Mg1 O1,-3.0\nmp-2,Xx,1\n")
    elements = {s: {"energy": e, "composition": {s: 1.0}, "correction": 0.0} for s, e in (("Mg", -1.5), ("O", -4.9))}
    (tmp_path / "elements.json.gz").write_bytes(gzip.compress(json.dumps(elements).encode()))
    balance = reference.run(context(tmp_path, reference="ef.csv", elements="elements.json.gz"))
    assert str(balance) == "reference: 4 in = 3 out + 1 bad-formula"
    made = ReferenceSet.read(tmp_path / "reference.h5")
    assert made.entries[-1].energy_per_atom == pytest.approx(-3.0 - 3.2)

    other = tmp_path / "other"
    other.mkdir()
    balance = reference.run(Context(context(other, reference="reference.h5").config, other, tmp_path))
    assert str(balance) == "reference: 3 in = 3 out"
    assert ReferenceSet.read(other / "reference.h5").digest == made.digest


@pytest.mark.parametrize(
    ("hull", "match"),
    [({"reference": "ef.csv"}, "hull.elements is not set"), ({"reference": "ef.txt"}, "'ef.txt'")],
)
def test_configuration_that_cannot_work(tmp_path: Path, hull: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        reference.run(context(tmp_path, **hull))


def named(*crystals: Crystal) -> list[tuple[str, Crystal]]:
    return [(f"{i}", c) for i, c in enumerate(crystals)]


def test_structures_are_spread_over_the_survivors_systems() -> None:
    entries = named(
        rocksalt(4.2, 12, 8),  # 0 MgO
        rocksalt(4.3, 12, 8),  # 1 MgO again
        rocksalt(5.6, 11, 17),  # 2 NaCl, no survivor
        rocksalt(4.8, 20, 8),  # 3 CaO
        Crystal(3 * FCC, np.zeros((1, 3)), np.array([12])),  # 4 Mg
        Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]), np.array([12, 8, 8])),  # 5 MgO2
        rocksalt(5.0, 20, 16),  # 6 CaS, of no single survivor
    )
    systems = [("Mg", "O"), ("Mg", "O"), ("Ca", "O"), ("Na", "S"), ("Ca", "Mg", "O")]
    chosen = [name for name, _ in reference.choose_structures(entries, systems, 100)]
    # Mg-O and Mg compete with three survivors, Ca-O with two; a second MgO comes after MgO2
    assert chosen == ["0", "4", "3", "5", "1"]
    assert [name for name, _ in reference.choose_structures(entries, systems, 2)] == ["0", "4"]
    assert reference.choose_structures(entries, systems, 0) == []
    assert reference.choose_structures(entries, [], 5) == []


def relaxation(index: int, z: int, energy: float) -> Relaxation:
    crystal = Crystal(3 * FCC, np.zeros((1, 3)), np.array([z]))
    zero = np.zeros((1, 3))
    i = make_id("t", "r", index)
    return Relaxation(i, crystal, i, energy, 0, 0, 0, 0, 1, True, "p", "s", "d", 0.0, zero, np.zeros((3, 3)))


def test_keeps_the_lowest_trial_of_each_element_and_every_structure() -> None:
    failure = Failure("x", "reference", "collapsed", "Mg sc")
    items = [relaxation(0, 12, -1.0), relaxation(1, 12, -1.5), failure, relaxation(3, 8, -4.0), relaxation(4, 12, -9.0)]
    kept, failures = reference.keep_lowest(["a", "b", "c", "d", "e"], items, 4)
    assert [name for name, _ in kept] == ["b", "d", "e"]
    assert [(f.id, f.kind) for f in failures] == [(items[0].id, "higher-polymorph"), ("x", "collapsed")]
    assert "0.5000 eV/atom above b" in failures[0].message
