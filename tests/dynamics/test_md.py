from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from hpcgen.crystal import Crystal, from_atoms, to_atoms
from hpcgen.dynamics import SimulationError, Trajectory, framework, simulate, supercell


@dataclass
class Result:
    energy: float
    forces: np.ndarray


def emt(crystal: Crystal) -> Result:
    """Copper by effective-medium theory: real forces that cost nothing."""
    atoms = to_atoms(crystal)
    atoms.calc = EMT()
    return Result(atoms.get_potential_energy(), atoms.get_forces())


COPPER = supercell(from_atoms(bulk("Cu", cubic=True)), 7.0)


def run(temperature: float, seed: int = 0, time: float = 300.0, **options) -> Trajectory:
    settings = {"equilibration": 200.0, "timestep": 5.0, "interval": 20.0} | options
    return simulate(emt, COPPER, temperature=temperature, time=time, seed=seed, **settings)


def test_temperature_and_frames_are_those_asked_for():
    t = run(500.0)
    assert t.positions.shape == (16, 32, 3)
    assert t.interval == 20.0
    assert t.mean_temperature == pytest.approx(500, rel=0.25)
    assert abs(t.energy_drift) < 0.3
    # equipartition: the vibrations have taken their half of the energy
    assert framework(t).vibration > 0.05


def test_the_same_seed_gives_the_same_trajectory():
    a, b, c = (run(500.0, s, 60.0, equilibration=20.0) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.positions, b.positions)
    assert abs(a.positions - c.positions).max() > 0.01


def test_cold_copper_stays_a_crystal_and_hot_copper_does_not():
    cold, hot = framework(run(300.0)), framework(run(8000.0, timestep=3.0, interval=12.0))
    assert cold.stays
    assert cold.lindemann < 0.1
    assert not hot.stays
    assert hot.displacement > 2 * cold.displacement


def test_displacements_are_not_wrapped():
    flying = COPPER.cart + np.arange(50)[:, None, None] * np.array([0.5, 0, 0])
    t = Trajectory(COPPER, flying, 20.0, 300.0, 300.0, 0.0)
    assert t.displacements[-1, :, 0] == pytest.approx(24.5)
    assert framework(t).stays  # drift of the whole is no melting
    assert framework(t).displacement == pytest.approx(0, abs=1e-9)


def test_a_potential_that_fails_ends_the_simulation_by_name():
    with pytest.raises(SimulationError, match="not finite") as error:
        simulate(
            lambda c: Result(float("nan"), np.zeros((len(c), 3))),
            COPPER, temperature=300, equilibration=10, time=10, timestep=1, interval=1, seed=0,
        )  # fmt: skip
    assert error.value.kind == "not-finite"

    def pushing(crystal: Crystal) -> Result:
        middle = crystal.cart - crystal.cart.mean(axis=0)
        return Result(0.0, 50.0 * middle)

    with pytest.raises(SimulationError) as error:
        simulate(pushing, COPPER, temperature=300, equilibration=1000, time=10, timestep=2, interval=10, seed=0)
    assert error.value.kind in ("exploded", "atoms-fused")


def test_supercells_are_wide_enough_and_no_larger():
    skew = Crystal(np.array([[3.0, 0, 0], [2.9, 3.0, 0], [0, 0, 12.0]]), np.zeros((1, 3)), np.array([29]))
    cell = supercell(skew, 9.0)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell.lattice), axis=0)
    assert (heights >= 9.0 - 1e-6).all()
    assert len(cell) == round(cell.volume / skew.volume)
    assert len(supercell(skew, 1.0)) == 1
