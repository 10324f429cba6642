"""The records of what runs beside the chain: round trips, phonons, molecular dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.flow.columns import array, column, per_atom


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """A real structure rebuilt from its own descriptor (`roundtrip.h5`); structures.h5 holds it under the same id."""

    id: str
    crystal: Crystal
    source: str = column("text", "where the real structure came from, as in structures.h5")
    matched: bool = column("?", "StructureMatcher (stol 0.5, ltol 0.3, angle_tol 10) takes both for the same crystal")
    rms: float = column(
        "f8", "root mean square displacement over (V/N)^(1/3), as StructureMatcher gives it; NaN without a match"
    )
    residual: float = column("f8", "relative amplitude |descriptor of the crystal - target| / |target|", unit="1")
    iterations: int = column("i8", "work spent: sweeps plus local iterations")
    stop_reason: str = column("text", "why the solver stopped: `converged`, `noise-floor` or `budget`")
    confidence: float = column("f8", "share of the independent starts whose residual agrees with the best", unit="1")
    cell_strain: float = column(
        "f8", "largest principal strain by which refinement changed the cell that was given; 0 if it was kept", unit="1"
    )
    symmetry: str = column("text", "space group that cell and positions were given; empty if none was imposed")
    residual_blocks: FloatArray = array(
        "f8",
        "share of each block of the descriptor in the residual; the attribute `names_residual_blocks` names them",
        shape=("B",),
        unit="1",
    )
    seconds: float = column("f8", "CPU time of solver and refinement", unit="s", volatile=True)


@dataclass(frozen=True, eq=False)
class Phonons:
    """The harmonic modes of one crystal near the hull (`phonons.h5`)."""

    id: str
    crystal: Crystal
    candidate_id: str = column("id", "the candidate it came from")
    formula: str = column("text", "reduced formula")
    imaginary: bool = column("?", "whether a mode lies below zero by more than `phonons.tolerance`: no minimum")
    lowest_frequency: float = column(
        "f8",
        "lowest mode at the wave vectors of the supercell, translations left out; imaginary ones negative",
        unit="THz",
    )
    displacements: int = column("i4", "displaced supercells evaluated")
    supercell_atoms: int = column("i4", "atoms of the supercell")
    calculator: str = column("text", "name and version of the calculator")
    settings_digest: str = column("text", "digest of everything that determines energies and the relaxation before")
    seconds: float = column("f8", "wall time of relaxation and modes", unit="s", volatile=True)
    gamma: FloatArray = per_atom(
        "f8", "the 3 n modes at Gamma, ascending, three in the row of each atom", shape=(3,), unit="THz"
    )
    lowest_q: FloatArray = array(
        "f8", "wave vector of the lowest mode, in reciprocal lattice vectors", shape=(3,), unit="1"
    )
    supercell: NDArray[np.int64] = array("i8", "repetitions of the cell along its vectors", shape=(3,), unit="1")
    forces: str = column(
        "text",
        "what the forces are by: `mlip` (a potential, or what else `relax` names) or `vasp`",
        default="mlip",
        since=2,
    )
    scale: str = column(
        "text", "energy scale that the forces belong to; empty in files older than the column", default="", since=2
    )
    max_force: float = column(
        "f8",
        "largest force that relaxation left; NaN in files older than the column",
        unit="eV/angstrom",
        default=float("nan"),
        since=2,
    )


@dataclass(frozen=True, eq=False)
class Simulation:
    """What one simulation of one crystal at one temperature came to (shards of `hpcgen dynamics`)."""

    id: str
    candidate_id: str = column("id", "the candidate it came from")
    temperature: float = column("f8", "of the thermostat", unit="K")
    mean_temperature: float = column("f8", "found in the simulation", unit="K")
    displacement: float = column("f8", "largest distance of a framework atom from its start", unit="angstrom")
    shift: float = column(
        "f8", "largest distance of the mean place of a framework atom from its start", unit="angstrom"
    )
    lindemann: float = column("f8", "vibration of the framework over nearest-neighbour distance", unit="1")
    stays: bool = column("?", "the framework is still the crystal it was")
    diffusivity: float = column("f8", "of the mobile ion; NaN if there is none", unit="cm^2/s")
    diffusivity_error: float = column("f8", "standard error of it", unit="cm^2/s")
    hops: float = column("f8", "hops of all mobile ions together, of 2.5 angstrom", unit="1")
    measured: bool = column("?", "hops enough for a diffusivity")
    seconds: float = column("f8", "wall time", unit="s", volatile=True)


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What molecular dynamics says of one crystal (`dynamics.h5`)."""

    id: str
    crystal: Crystal
    candidate_id: str = column("id", "the candidate it came from")
    stability_id: str = column("id", "the record of stability.h5 that was simulated")
    formula: str = column("text", "reduced formula")
    atoms: int = column("i4", "atoms of the repeated cell")
    stays: bool = column("?", "the framework is a crystal at every temperature simulated")
    stays_up_to: float = column("f8", "highest temperature up to which it stays one; 0 if at none", unit="K")
    displacement: float = column(
        "f8", "largest distance of a framework atom from its start, at any temperature", unit="angstrom"
    )
    ion: str = column("text", "the ion whose motion was measured; empty if none")
    path: float = column("f8", "clearance at the narrowest point of its widest way; NaN without ion", unit="angstrom")
    path_ratio: float = column("f8", "that clearance over the radius of the ion; NaN without ion", unit="1")
    path_dimensions: int = column("i4", "dimensions in which the way leads through the crystal")
    activation_energy: float = column(
        "f8", "of diffusion; NaN where it was measured at fewer than two temperatures", unit="eV"
    )
    activation_energy_error: float = column("f8", "standard error of it", unit="eV")
    conductivity: float = column("f8", "extrapolated, by Nernst-Einstein; NaN likewise", unit="S/cm")
    conductivity_factor: float = column(
        "f8", "the conductivity is known up to this factor (one standard error)", unit="1"
    )
    conductivity_at: float = column("f8", "temperature of the extrapolation", unit="K")
    calculator: str = column("text", "name and version of the potential")
    seconds: float = column("f8", "wall time of all simulations", unit="s", volatile=True)
    temperature: FloatArray = array("f8", "of the thermostats", shape=("T",), unit="K", group="dynamics")
    lindemann: FloatArray = array(
        "f8", "vibration over nearest-neighbour distance", shape=("T",), unit="1", group="dynamics"
    )
    shift: FloatArray = array("f8", "largest shift of a mean place", shape=("T",), unit="angstrom", group="dynamics")
    diffusivity: FloatArray = array("f8", "NaN without ion", shape=("T",), unit="cm^2/s", group="dynamics")
    diffusivity_error: FloatArray = array("f8", "standard errors", shape=("T",), unit="cm^2/s", group="dynamics")
    hops: FloatArray = array("f8", "of all ions together", shape=("T",), unit="1", group="dynamics")
