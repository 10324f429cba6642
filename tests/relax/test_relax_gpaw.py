"""PBE by GPAW: what can be checked without it, and real calculations (`-m dft`)."""

from __future__ import annotations

import numpy as np
import pytest
from relax_crystals import FCC, diamond, rocksalt, strained

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import DependencyError, ThermoError
from hpcgen.relax import Relaxed, get_calculator
from hpcgen.relax.gpaw import magnetic_moments
from hpcgen.relax.minimise import GPA
from hpcgen.thermo import compare

FAST = {"cutoff": 300.0, "k_density": 1.5}


def config(**settings) -> RelaxConfig:
    return RelaxConfig.model_validate({"calculator": "gpaw", "gpaw": FAST, **settings})


def test_spin_where_magnetic_elements_are() -> None:
    assert magnetic_moments(rocksalt(4.2, 28, 8), 3.0) == [3.0, 0.0]
    assert magnetic_moments(rocksalt(4.2, 64, 7), 5.0) == [5.0, 0.0]
    assert magnetic_moments(rocksalt(4.2, 30, 8), 3.0) == [0.0, 0.0]
    assert magnetic_moments(rocksalt(4.2, 28, 8), 0.0) == [0.0, 0.0]


def test_without_gpaw_or_its_setups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcgen.relax.gpaw.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="gpaw is not installed") as error:
        get_calculator(config())
    assert "libxc" in error.value.remedy
    monkeypatch.setattr("hpcgen.relax.gpaw.find_spec", lambda name: name == "gpaw" or None)
    monkeypatch.delenv("GPAW_SETUP_PATH", raising=False)
    with pytest.raises(DependencyError, match="PBE setups"):
        get_calculator(config())


@pytest.mark.dft
def test_scale_is_that_of_the_settings() -> None:
    pytest.importorskip("gpaw")
    one, tight = get_calculator(config()), get_calculator(config(max_force=0.01))
    other = get_calculator(config(gpaw={"cutoff": 400.0}))
    assert one.scale == tight.scale != other.scale
    assert len({one.settings_digest, tight.settings_digest, other.settings_digest}) == 3
    with pytest.raises(ThermoError):
        compare(one.scale, "mp2020-gga-u")
    magnetic, other = rocksalt(4.2, 28, 8), rocksalt(4.2, 12, 8)
    assert one.parameters(magnetic, one.grid(magnetic))["spinpol"]
    assert not one.parameters(other, one.grid(other))["spinpol"]
    assert one.grid(other) == (4, 4, 4)  # 1.5 points per 1/angstrom on 2.59 of them


@pytest.mark.dft
def test_forces_and_stress_are_the_gradient_of_the_energy() -> None:
    pytest.importorskip("gpaw")
    # forces are those of the free energy, from which the energy differs by the entropy of the smearing
    calculator = get_calculator(config(gpaw={"cutoff": 400.0, "smearing": 0.02}))
    crystal = Crystal(5.40 * FCC, np.array([[0, 0, 0], [0.27, 0.25, 0.25]]), np.array([14, 14]))

    def energy(cart: np.ndarray, lattice: np.ndarray) -> float:
        moved = Crystal(lattice, cart @ np.linalg.inv(lattice), crystal.numbers)
        return calculator.evaluate(moved, (3, 3, 3)).energy

    here = calculator.evaluate(crystal, (3, 3, 3))
    h = 0.01
    moved = [crystal.cart + sign * h * np.array([[0, 0, 0], [0, 1, 0]]) for sign in (1, -1)]
    slope = (energy(moved[0], crystal.lattice) - energy(moved[1], crystal.lattice)) / (2 * h)
    assert here.forces[1, 1] == pytest.approx(-slope, rel=0.03, abs=0.01)
    swollen = [energy(crystal.cart * s, crystal.lattice * s) for s in (1.01, 0.99)]
    pressure = (swollen[0] - swollen[1]) / 0.02 / (3 * crystal.volume)
    assert np.trace(here.stress) / 3 * GPA == pytest.approx(pressure * GPA, abs=1.0)


@pytest.mark.dft
def test_silicon_relaxes_to_the_lattice_constant_of_pbe() -> None:
    pytest.importorskip("gpaw")
    calculator = get_calculator(config(gpaw={"cutoff": 350.0, "k_density": 2.0}, max_stress=0.3))
    (result,) = calculator.relax(["Si"], [strained(diamond(5.35), 0.01, 0.05)])
    assert isinstance(result, Relaxed)
    assert result.converged
    assert (4 * result.crystal.volume) ** (1 / 3) == pytest.approx(5.47, rel=0.01)
