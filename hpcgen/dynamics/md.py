"""Molecular dynamics at constant volume and temperature, by any potential.

Velocity Verlet with the stochastic velocity rescaling of Bussi, Donadio and Parrinello (J. Chem. Phys. 126, 014101,
2007), as ASE has it: it samples the canonical ensemble and leaves the motion of single ions nearly as it is, which a
Langevin thermostat does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

from hpcgen.crystal import Crystal, FloatArray, from_atoms, to_atoms

COUPLING = 100.0  # fs, of the thermostat
HOTTEST = 5.0  # times the temperature asked for, at which the simulation has exploded
NEAREST = 0.5  # angstrom, below which two atoms have fused


class SimulationError(Exception):
    """A simulation that left what the potential knows. `kind`: as in `Failure`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Evaluated(Protocol):
    """What a potential gives: energy (eV), forces (n, 3) in eV/angstrom."""

    @property
    def energy(self) -> float: ...
    @property
    def forces(self) -> FloatArray: ...


Potential = Callable[[Crystal], Evaluated]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Frames of one simulation, after equilibration.

    Attributes:
        crystal: the cell that was simulated, before the first step: atoms at their relaxed places.
        positions: (frames, n, 3) Cartesian, angstrom; never wrapped, so that displacements are differences.
        interval: fs between two frames.
        temperature: K, asked for.
        mean_temperature: K, found.
        energy_drift: eV/atom per ps, slope of the potential energy over the frames.
    """

    crystal: Crystal
    positions: FloatArray
    interval: float
    temperature: float
    mean_temperature: float
    energy_drift: float

    @property
    def displacements(self) -> FloatArray:
        """(frames, n, 3) from the start, angstrom."""
        return self.positions - self.crystal.cart


def simulate(
    potential: Potential,
    crystal: Crystal,
    *,
    temperature: float,
    equilibration: float,
    time: float,
    timestep: float,
    interval: float,
    seed: int,
) -> Trajectory:
    """Simulate a crystal in its cell.

    Args:
        potential: energy and forces of a crystal.
        crystal: the cell, large enough that an atom does not feel its own image; see `supercell`.
        temperature: K.
        equilibration: fs before the first frame.
        time: fs from the first frame to the last.
        timestep: fs.
        interval: fs between frames, a multiple of `timestep`.
        seed: of velocities and thermostat.

    Raises:
        SimulationError: `exploded`, `atoms-fused` or `not-finite`.
    """
    rng = np.random.default_rng(seed)
    atoms = to_atoms(crystal)
    atoms.positions = crystal.cart  # as they are, so that displacements start at zero
    atoms.calc = _Adapter(potential)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=rng)  # half of it becomes potential energy
    Stationary(atoms)
    dynamics = Bussi(atoms, timestep * units.fs, temperature_K=temperature, taut=COUPLING * units.fs, rng=rng)
    stride = max(1, round(interval / timestep))
    for _ in range(max(1, round(equilibration / (stride * timestep)))):
        dynamics.run(stride)
        _check(atoms, temperature)
    positions, energies, temperatures = [], [], []
    for _ in range(round(time / (stride * timestep)) + 1):
        positions.append(atoms.positions.copy())
        energies.append(atoms.get_potential_energy())
        temperatures.append(atoms.get_temperature())
        dynamics.run(stride)
        _check(atoms, temperature)
    ps = np.arange(len(energies)) * stride * timestep / 1000
    drift = float(np.polyfit(ps, energies, 1)[0]) / len(atoms) if len(energies) > 2 else 0.0
    return Trajectory(crystal, np.array(positions), stride * timestep, temperature, float(np.mean(temperatures)), drift)


def supercell(crystal: Crystal, width: float) -> Crystal:
    """The smallest repetition whose opposite faces are at least `width` angstrom apart."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    repeats = np.ceil(width / heights - 1e-6).astype(int).clip(1)
    return from_atoms(to_atoms(crystal).repeat(tuple(repeats.tolist())))


class _Adapter(Calculator):
    """A potential of hpcgen for ASE."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self._potential = potential

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if atoms is None or not np.isfinite(atoms.positions).all():
            raise SimulationError("not-finite", "positions are not finite")
        result = self._potential(from_atoms(atoms))
        if not (np.isfinite(result.energy) and np.isfinite(result.forces).all()):
            raise SimulationError("not-finite", "energy or forces are not finite")
        self.results = {"energy": result.energy, "forces": result.forces}


def _check(atoms: Atoms, temperature: float) -> None:
    found = atoms.get_temperature()
    if not found < HOTTEST * temperature:
        raise SimulationError("exploded", f"{found:.0f} K at a thermostat of {temperature:.0f} K")
    distance = atoms.get_all_distances(mic=True)
    np.fill_diagonal(distance, np.inf)
    if len(atoms) > 1 and distance.min() < NEAREST:
        raise SimulationError("atoms-fused", f"two atoms have come within {distance.min():.2f} angstrom")
