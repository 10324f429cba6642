"""From survivors to energies above the hull by real DFT: relaxation, references by the same code, hull (`-m dft`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.flow import Candidate, Entry, Relaxation, Stability, Survivor, make_id
from hpcgen.stages import hull, reference, relax
from hpcgen.stages.context import Context
from hpcgen.thermo import ReferenceSet

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
SETTINGS = {
    "relax": {
        "calculator": "gpaw",
        "gpaw": {"cutoff": 250.0, "k_density": 1.2},
        "max_force": 0.1,
        "max_stress": 1.0,
        "max_steps": 25,
    },
    "hull": {"max_structures": 1},
}


def fill(folder: Path) -> None:
    """One survivor, a strained silicon, and one training structure, silicon of another volume."""
    strained = Crystal(5.3 * FCC, np.array([[0, 0, 0], [0.26, 0.25, 0.25]]), np.array([14, 14]))
    known = Crystal(5.5 * FCC, np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), np.array([14, 14]))
    none = np.zeros(1)
    one = Candidate(
        make_id("t", "c", 0), strained, make_id("t", "s", 0), "x", 0.01, 1, "converged", 1.0, "", 0, "", 1, none, 0.1
    )
    survivor = Survivor(make_id("t", "v", 0), one.id, True, "", "Si", 227, 2.0, 3.0, True, "", True)
    store.write(folder / "candidates.h5", Candidate, [one])
    store.write(folder / "survivors.h5", Survivor, [survivor])
    store.write(folder / "dataset.h5", Entry, [Entry(make_id("t", "d", 0), known, "row:0", "train")])


@pytest.mark.dft
def test_silicon_by_gpaw_from_survivor_to_hull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gpaw")
    fill(tmp_path)
    diamond = Crystal(5.4 * FCC, np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), np.array([14, 14]))
    monkeypatch.setattr(reference, "element_structures", lambda symbol: [("diamond", diamond)])  # others take minutes
    ctx = Context(Config.model_validate(SETTINGS), tmp_path, tmp_path)
    assert str(relax.run(ctx)) == "relax: 1 in = 1 out"
    assert str(reference.run(ctx)) == "reference: 2 in = 2 out"
    assert str(hull.run(ctx)) == "hull: 1 in = 1 out"
    with store.open(tmp_path / "relaxed-mlip.h5", Relaxation) as f:
        relaxed = f[0]
    assert relaxed.converged
    assert relaxed.calculator.startswith("GPAW")
    assert ReferenceSet.read(tmp_path / "reference.h5").scale == relaxed.scale
    with store.open(tmp_path / "stability.h5", Stability) as f:
        verdict = f[0]
    assert verdict.label == "same-scale"
    assert verdict.e_hull == pytest.approx(0.0, abs=0.02)  # it relaxes to the diamond that the reference has
    assert not verdict.novel
