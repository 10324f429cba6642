"""A calculator of ASE through the stages: relaxation, references by itself, hull on its own scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import ThermoError
from hpcgen.flow import Candidate, Entry, Relaxation, Stability, Survivor, make_id
from hpcgen.stages import hull, reference, relax
from hpcgen.stages.context import Context
from hpcgen.thermo import ReferenceSet

ALLOY = Crystal(
    3.8 * np.eye(3), np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.48], [0.5, 0.5, 0]]), np.array([79, 29, 29, 29])
)
SALT = Crystal(4.0 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))  # EMT knows neither
EMT = {"calculator": "ase", "max_steps": 60, "ase": {"path": "ase.calculators.emt:EMT"}, "device": "cpu"}


def fill(folder: Path, crystals: list[Crystal]) -> list[Candidate]:
    none = np.zeros(1)
    candidates = [
        Candidate(make_id("t", "c", i), c, make_id("t", "s", i), "x", 0.01, 1, "converged", 1, "", 0, "", 1, none, 0.1)
        for i, c in enumerate(crystals)
    ]
    survivors = [
        Survivor(make_id("t", "v", i), c.id, True, "", c.crystal.formula, 1, 2.0, 3.0, True, "", True)
        for i, c in enumerate(candidates)
    ]
    store.write(folder / "candidates.h5", Candidate, candidates)
    store.write(folder / "survivors.h5", Survivor, survivors)
    store.write(folder / "dataset.h5", Entry, [Entry(make_id("t", "d", 0), ALLOY, "row:0", "train")])
    return candidates


def test_from_survivors_to_the_hull_by_emt(tmp_path: Path) -> None:
    candidates = fill(tmp_path, [ALLOY, SALT])
    ctx = Context(Config.model_validate({"relax": EMT}), tmp_path, tmp_path)
    assert str(relax.run(ctx)) == "relax: 2 in = 1 out + 1 calculator-error"
    with store.open(tmp_path / "relaxed-mlip.h5", Relaxation) as f:
        (relaxed,), (failure,) = list(f), f.failures
    assert relaxed.converged
    assert relaxed.scale.startswith("ase-")
    assert failure.id == candidates[1].id
    fill(tmp_path, [ALLOY])
    balance = reference.run(ctx)
    assert balance is not None
    made = ReferenceSet.read(tmp_path / "reference.h5")
    assert made.scale == relaxed.scale
    assert {e.formula.rstrip("0123456789") for e in made.entries if e.element} == {"Au", "Cu"}
    assert str(hull.run(ctx)) == "hull: 1 in = 1 out"
    with store.open(tmp_path / "stability.h5", Stability) as f:
        verdict = f[0]
    assert verdict.label == "same-scale"
    assert verdict.e_hull == pytest.approx(0.0, abs=0.005)  # the training structure is the same alloy


def test_its_energies_do_not_meet_those_of_another_calculator(tmp_path: Path) -> None:
    fill(tmp_path, [ALLOY])
    relax.run(Context(Config.model_validate({"relax": EMT}), tmp_path, tmp_path))
    other = {**EMT, "ase": {**EMT["ase"], "arguments": {"asap_cutoff": True}}}
    reference.run(Context(Config.model_validate({"relax": other}), tmp_path, tmp_path))
    with pytest.raises(ThermoError, match="may not meet"):
        hull.run(Context(Config.model_validate({"relax": EMT}), tmp_path, tmp_path))
