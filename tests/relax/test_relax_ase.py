"""Any calculator of ASE, by import path: the optimiser is the same, the energy scale is its own."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT
from relax_crystals import FCC, rocksalt, strained

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.errors import ConfigError, DependencyError, DeviceFailure, Failure, ThermoError
from hpcgen.relax import Relaxed, get_calculator
from hpcgen.relax import ase as module
from hpcgen.thermo import compare

EMT_PATH = "ase.calculators.emt:EMT"
CUBIC = Crystal(
    3.7 * np.eye(3), np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), np.array([29, 79, 29, 29])
)


def config(path: str = EMT_PATH, **settings) -> RelaxConfig:
    ase = {"path": path, **{k: settings.pop(k) for k in ("arguments", "scale") if k in settings}}
    return RelaxConfig.model_validate({"calculator": "ase", "ase": ase, **settings})


def test_relaxes_by_emt_to_the_minimum_of_ase() -> None:
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    calculator = get_calculator(config(max_force=1e-3, max_stress=1e-2))
    start = strained(CUBIC, 0.03, 0.1)
    results = calculator.relax(["a", "b"], [start, Crystal(3.9 * FCC, np.zeros((1, 3)), np.array([29]))])
    assert all(isinstance(r, Relaxed) and r.converged for r in results)
    atoms = to_atoms(start)
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=500)
    assert results[0].energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert (4 * results[1].crystal.volume) ** (1 / 3) == pytest.approx(3.59, abs=0.02)  # copper by EMT
    assert "EMT of ase.calculators.emt (ase " in calculator.title


def test_what_the_calculator_cannot_do_is_a_failure_of_that_crystal() -> None:
    copper = Crystal(3.7 * FCC, np.zeros((1, 3)), np.array([29]))
    bad, good = get_calculator(config()).relax(["a", "b"], [rocksalt(5.6), copper])
    assert isinstance(bad, Failure)
    assert (bad.id, bad.kind) == ("a", "calculator-error")
    assert "NaCl" in bad.message
    assert isinstance(good, Relaxed)


def test_its_scale_meets_itself_only_unless_one_is_declared() -> None:
    mine = get_calculator(config()).scale
    assert mine == get_calculator(config(max_force=0.01)).scale  # criteria are no other method
    other = get_calculator(config(arguments={"asap_cutoff": True})).scale
    assert compare(mine, mine).label == "same-scale"
    for reference in (other, "mp2020-gga-u", "chgnet-mp2020"):
        with pytest.raises(ThermoError, match=r"hull\.reference=self"):
            compare(mine, reference)
    declared = get_calculator(config(scale="chgnet-mp2020")).scale
    assert compare(declared, "mp2020-gga-u").label == "screening"


def test_digest_follows_what_determines_the_energy() -> None:
    digests = {
        get_calculator(c).settings_digest
        for c in (config(), config(max_force=0.01), config(arguments={"asap_cutoff": True}), config(scale="x"))
    }
    assert len(digests) == 4
    assert get_calculator(config()).settings_digest == get_calculator(config(batch=3, device="cpu")).settings_digest


@pytest.mark.parametrize(
    ("path", "error", "match"),
    [
        ("", ConfigError, "relax.ase.path is ''"),
        ("ase.calculators.emt", ConfigError, "module:attribute"),
        ("ase.calculators.emt:EMTT", ConfigError, "nothing of the name 'EMTT'"),
        ("no_such_potential.calculators:make", DependencyError, "no_such_potential is not installed"),
    ],
)
def test_paths_that_lead_nowhere(path: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        get_calculator(config(path))


def test_arguments_that_do_not_fit() -> None:
    calculator = get_calculator(config("ase.calculators.lj:LennardJones", arguments={"epsilon": 0.01, "sigma": 3.4}))
    assert isinstance(calculator.relax(["a"], [Crystal(5.4 * FCC, np.zeros((1, 3)), np.array([18]))])[0], Relaxed)
    with pytest.raises(ConfigError, match="cannot be called with"):
        get_calculator(config("ase.calculators.mixing:SumCalculator", arguments={"wrong": 1})).relax(["a"], [CUBIC])


def test_a_gpu_that_is_lost_takes_the_rank_out() -> None:
    class Lost(EMT):
        def calculate(self, *args, **kwargs):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceFailure):
        module.evaluate(Lost(), CUBIC)
