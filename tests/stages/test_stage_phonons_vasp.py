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
from hpcgen.dynamics.phonons import spectrum, symmetrised
from hpcgen.errors import EXIT_REQUEUE, ConfigError, RunFolderError, UsageError
from hpcgen.flow import Phonons, Stability, make_id
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
PHONONS: dict[str, Any] = {"forces": "vasp", "supercell_length": 7.0, "displacement": 0.02, "max_e_hull": 0.2}


def fill(folder: Path, crystals: Sequence[Crystal], e_hull: Sequence[float] = (), **vasp: Any) -> Context:
    """A run folder whose campaign is done, with `crystals` near its hull. `phonons`: of that section."""
    folder.mkdir(parents=True, exist_ok=True)
    phonons = PHONONS | vasp.pop("phonons", {})
    settings = campaign.settings(compress=False, **vasp) | {"phonons": phonons}
    context = Context(Config.model_validate(settings), folder)
    rows = []
    for i, crystal in enumerate(crystals):
        row = campaign.on_first_hull(campaign.relaxed_by_ml(i, crystal), e_hull[i] if e_hull else 0.01 * i)
        rows.append(row)
    for name in ("stability-mlip.h5", "stability.h5"):
        store.write(folder / name, Stability, rows)
    (folder / "config.yaml").write_text(context.config.text(), encoding="utf-8")
    return context


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
    context = fill(tmp_path, [COPPER, CUBIC, ALUMINIUM], [0.0, 0.1, 0.5])
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
