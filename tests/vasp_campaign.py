"""A campaign that has come to its first hull, with binary metals that the stand-in for VASP can relax."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.flow import Entry, ReferenceEntry, Relaxation, Stability, make_id
from hpcgen.stages.context import Context
from hpcgen.thermo import ReferenceSet

STAND_IN = Path(__file__).resolve().parent / "fake_vasp" / "vasp_std.py"
METALS = {"Al": 13, "Ni": 28, "Cu": 29, "Pd": 46, "Ag": 47, "Pt": 78, "Au": 79}
PAIRS = [*combinations(METALS, 2)]


def cesium_chloride(pair: tuple[str, str], a: float = 3.0) -> Crystal:
    """Two metals in the structure of CsCl, off its minimum."""
    return Crystal(a * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([METALS[m] for m in pair]))


def settings(**vasp: Any) -> dict[str, Any]:
    """A configuration that relaxes with the stand-in. Keywords go to the section `vasp`, `slots` to that section."""
    slots = {"n": 2, "shortest": 0.0, "min_free": 0.0, "log_interval": 1000.0} | vasp.pop("slots", {})
    select = vasp.pop("select", {"max_e_hull": 10.0})
    command = [sys.executable, str(STAND_IN)]
    section = {"command": command, "potcars": False, "poll": 0.1, "relaxations": 1} | vasp
    reference = {"reference": "reference.h5", "elements": None}
    return {"hull": reference, "vasp": section, "slots": slots, "select": select}


def relaxed_by_ml(index: int, crystal: Crystal, energy: float = -8.0) -> Relaxation:
    forces, stress = np.zeros((len(crystal), 3)), np.zeros((3, 3))
    ids = make_id("t", "r", index), make_id("t", "c", index)
    rest = (energy, energy, 0.0, 0.0, 0.1, 3, True, "CHGNet", "chgnet-mp2020", "d", 0.1)
    return Relaxation(ids[0], crystal, ids[1], *rest, forces, stress)


def on_first_hull(relaxation: Relaxation, e_hull: float, *, unique: bool = True, novel: bool = True) -> Stability:
    return Stability(
        id=make_id("t", "h", int(relaxation.candidate_id, 16)),
        crystal=relaxation.crystal,
        candidate_id=relaxation.candidate_id,
        relaxation_id=relaxation.id,
        formula=relaxation.crystal.formula,
        spacegroup=221,
        energy_per_atom=-4.0,
        formation_energy=0.0,
        e_hull=e_hull,
        e_hull_self=e_hull,
        decomposition="",
        reference_entries=2,
        scale="chgnet-mp2020",
        reference_scale="mp2020-gga-u",
        reference_digest="d",
        label="screening",
        unique=unique,
        duplicate_of="",
        novel=novel,
    )


def fill(folder: Path, n: int, **vasp: Any) -> Context:
    """A run folder with `n` crystals on the first hull, the k-th lying 0.001 k eV/atom above it."""
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(Config.model_validate(settings(**vasp)), folder)
    relaxations = [relaxed_by_ml(i, cesium_chloride(PAIRS[i % len(PAIRS)], 3.0 + 0.01 * i)) for i in range(n)]
    store.write(folder / "relaxed-mlip.h5", Relaxation, relaxations, attrs={"scale": "chgnet-mp2020"})
    crystals = [on_first_hull(r, 0.001 * i) for i, r in enumerate(relaxations)]
    store.write(folder / "stability-mlip.h5", Stability, crystals)
    entries = tuple(ReferenceEntry(make_id("t", "e", i), f"mp-{i}", f"{m}1", -4.2, True) for i, m in enumerate(METALS))
    ReferenceSet(entries, "mp2020-gga-u", "GGA_GGA+U", "2023-02-07", "by hand").write(folder / "reference.h5")
    store.write(
        folder / "dataset.h5", Entry, [Entry(make_id("t", "d", 0), cesium_chloride(PAIRS[0]), "row:1", "train")]
    )
    (folder / "config.yaml").write_text(context.config.text(), encoding="utf-8")
    return context


def done(folder: Path, crystals: Sequence[Crystal], e_hull: Sequence[float] = (), **vasp: Any) -> Context:
    """A run folder whose campaign is done, with `crystals` near its hull. Keywords: `phonons` goes to that section."""
    folder.mkdir(parents=True, exist_ok=True)
    phonons = {"forces": "vasp", "supercell_length": 7.0, "displacement": 0.02, "max_e_hull": 0.2}
    phonons |= vasp.pop("phonons", {})
    context = Context(Config.model_validate(settings(compress=False, **vasp) | {"phonons": phonons}), folder)
    energies = e_hull or [0.01 * i for i in range(len(crystals))]
    rows = [on_first_hull(relaxed_by_ml(i, c), e) for i, (c, e) in enumerate(zip(crystals, energies, strict=True))]
    for name in ("stability-mlip.h5", "stability.h5"):
        store.write(folder / name, Stability, rows)
    (folder / "config.yaml").write_text(context.config.text(), encoding="utf-8")
    return context


def plan(folder: Path, monkeypatch: Any = None, **content: Any) -> dict[str, str]:
    """A plan for the stand-in (see there); the variable that names it, set if there is a monkeypatch."""
    file = folder / "plan.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    if monkeypatch is not None:
        monkeypatch.setenv("FAKE_VASP", str(file))
    return {"FAKE_VASP": str(file)}
