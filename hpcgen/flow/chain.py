"""The records of the chain, from a row of the data to what VASP found."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.flow.columns import array, column, per_atom, per_step


@dataclass(frozen=True, eq=False)
class Entry:
    """One structure of a data set, after reduction and validation (`dataset.h5`)."""

    id: str
    crystal: Crystal
    source: str = column("text", "where it came from: `row:N` of a table, a file name, or the prototype's label")
    split: str = column("text", "`train`, `validation` or `test`")
    properties: str = column(
        "text", "what is known of it in the columns of `conditions`: a JSON object of numbers and words", default="{}"
    )

    @property
    def values(self) -> dict[str, float | str]:
        """`properties`, read."""
        return json.loads(self.properties)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A crystal built from one sample (`candidates.h5`)."""

    id: str
    crystal: Crystal
    sample_id: str = column("id", "the sample it was built from")
    family: str = column("text", "the generator family of the sample")
    residual: float = column(
        "f8",
        "relative amplitude |descriptor of the crystal - target| / |target| after reconstruction; of point clouds the "
        "root mean square distance of the points from their atoms over (V/N)^(1/3)",
        unit="1",
    )
    iterations: int = column("i8", "work spent: sweeps plus local iterations; 0 for what is decoded")
    stop_reason: str = column(
        "text", "why the solver stopped: `converged`, `noise-floor` or `budget`; `decoded` where there is no solver"
    )
    confidence: float = column(
        "f8",
        "share of the best independent starts that agree on the residual; of point clouds the probability of the "
        "number of atoms times the share of points that belong to one",
        unit="1",
    )
    repair: str = column("text", "what had to be changed in the sample's composition; empty if nothing")
    cell_strain: float = column(
        "f8", "largest principal strain by which refinement changed the generated cell; 0 if it was kept", unit="1"
    )
    symmetry: str = column(
        "text", "space group that cell and positions were given, such as `Pm-3m (221)`; empty if none was imposed"
    )
    match_probability: float = column(
        "f8",
        "chance that this is the crystal meant, by its residual: calibrated on synthetic noise, so an upper bound; "
        "NaN if the descriptor was not calibrated",
        unit="1",
    )
    residual_blocks: FloatArray = array(
        "f8",
        "share of each block of the descriptor in the residual, its squares summing to the residual's; the file's "
        "attribute `names_residual_blocks` names them; NaN for blocks that only samples of other files have",
        shape=("B",),
        unit="1",
    )
    seconds: float = column("f8", "wall time of the reconstruction", unit="s", volatile=True)
    attempt: int = column(
        "i4", "which of the sample's cells and descriptors it was built from, from 0", default=0, since=2
    )
    attempts: int = column("i4", "how many of them were tried", default=1, since=2)


@dataclass(frozen=True, eq=False)
class Survivor:
    """The verdict of the screening on one candidate (`survivors.h5`); `kept` is False with a reason."""

    id: str
    candidate_id: str = column("id", "the candidate judged")
    kept: bool = column("?", "whether it goes on to relaxation")
    reason: str = column("text", "why it was dropped, by kind; empty if kept")
    formula: str = column("text", "reduced formula")
    spacegroup: int = column("i4", "international number found by spglib at 0.1 angstrom; 0 if none was found")
    smallest_distance: float = column("f8", "smallest interatomic distance, own images included", unit="angstrom")
    density: float = column("f8", "mass density", unit="g/cm^3")
    composition_valid: bool = column("?", "SMACT charge neutrality and electronegativity order (smact14 table)")
    duplicate_of: str = column("id", "the earlier candidate that it equals; empty if unique")
    novel: bool = column("?", "matches no structure of the training data, nor of `screen.known`")


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A relaxed crystal with its energy (`relaxed-*.h5`)."""

    id: str
    crystal: Crystal
    candidate_id: str = column("id", "the candidate that was relaxed")
    energy: float = column("f8", "total energy of the cell on the scale named", unit="eV")
    energy_initial: float = column("f8", "total energy before relaxation", unit="eV")
    max_force: float = column("f8", "largest force on an atom at the end", unit="eV/angstrom")
    max_stress: float = column("f8", "largest stress component at the end", unit="GPa")
    max_force_initial: float = column("f8", "largest force on an atom before relaxation", unit="eV/angstrom")
    steps: int = column("i4", "optimiser steps")
    converged: bool = column("?", "forces and stress within the configured limits")
    calculator: str = column("text", "name and version of the calculator")
    scale: str = column("text", "energy scale, which decides what it may be compared with")
    settings_digest: str = column("text", "digest of everything that determines the energy")
    seconds: float = column("f8", "wall time", unit="s", volatile=True)
    forces: FloatArray = per_atom("f8", "forces at the end", shape=(3,), unit="eV/angstrom")
    stress: FloatArray = array("f8", "stress tensor at the end", shape=(3, 3), unit="GPa")
    step_energy: NDArray[np.float32] = per_step(
        "f4", "energy over the number of atoms at each step, the crystal that went in first", unit="eV/atom", since=2
    )
    step_max_force: NDArray[np.float32] = per_step(
        "f4", "largest force on an atom at each step", unit="eV/angstrom", since=2
    )


@dataclass(frozen=True, eq=False)
class Stability:
    """The thermodynamic verdict on one relaxed crystal (`stability*.h5`)."""

    id: str
    crystal: Crystal
    candidate_id: str = column("id", "the candidate it came from")
    relaxation_id: str = column("id", "the relaxation whose energy was used")
    formula: str = column("text", "reduced formula")
    spacegroup: int = column("i4", "international number of the relaxed crystal; 0 if none was found")
    energy_per_atom: float = column("f8", "energy on the scale named", unit="eV/atom")
    formation_energy: float = column("f8", "formation energy from the reference's elements", unit="eV/atom")
    e_hull: float = column("f8", "energy above the reference hull; negative for a new stable phase", unit="eV/atom")
    e_hull_self: float = column(
        "f8", "energy above the hull of the reference and all candidates of this run", unit="eV/atom"
    )
    decomposition: str = column("text", "competing phases of the reference hull and their share of atoms")
    reference_entries: int = column("i4", "entries of the reference inside its chemical system")
    scale: str = column("text", "energy scale of the result")
    reference_scale: str = column("text", "energy scale of the reference")
    reference_digest: str = column("text", "content digest of the reference set")
    label: str = column("text", "`screening` if potential and reference differ in kind, else `same-scale`")
    unique: bool = column("?", "equals no earlier relaxed crystal of this run")
    duplicate_of: str = column("id", "the earlier relaxation that it equals; empty if unique")
    novel: bool = column("?", "matches no structure of the training data, nor of `screen.known`, after relaxation")
    new_stable: bool = column("?", "lies below the reference hull: a new stable phase, or an error", default=False)
    sun: bool = column(
        "?", "stable (e_hull at most 0.1 eV/atom), unique and novel, as MatterGen counts them", default=False
    )
    competitors: str = column("text", "ids of the decomposition's phases in the reference, in its order", default="")
    correction: float = column(
        "f8", "corrections of the scale that were added to the calculator's energy", unit="eV/atom", default=0.0
    )
    charge_balanced: str = column(
        "text",
        "whether oxidation states that are known of its elements add up to zero: `yes`, `no`, or `unknown` for "
        "elements, for metals alone and in files older than the column",
        default="unknown",
        since=3,
    )
    oxidation_states: str = column(
        "text",
        "the most frequent ones by which it balances, such as `Fe2+ Fe3+ O2-`; empty if none",
        default="",
        since=3,
    )


@dataclass(frozen=True, eq=False)
class Selected:
    """The verdict of the selection on one crystal of the first hull (`selected.h5`); the file is in order of rank."""

    id: str
    candidate_id: str = column("id", "the candidate it came from")
    relaxation_id: str = column("id", "its relaxation by the ML potential, from which VASP starts")
    kept: bool = column("?", "whether it goes on to VASP")
    reason: str = column("text", "why it was dropped, by kind; empty if kept")
    rank: int = column("i4", "place in the queue for VASP, from 1; 0 if dropped before it was ranked")
    formula: str = column("text", "reduced formula")
    system: str = column("text", "chemical system, such as `O-Sr-Ti`")
    e_hull: float = column("f8", "energy above the first hull", unit="eV/atom")
    atoms: int = column("i4", "atoms in the cell")
    node_hours: float = column("f8", "node-hours that VASP is expected to take", unit="h")


@dataclass(frozen=True, eq=False)
class DftRelaxation(Relaxation):
    """A crystal relaxed by VASP (`relaxed-vasp.h5`); its energy is raw, and corrected once, on the way to the hull."""

    relaxation_id: str = column("id", "the relaxation by the ML potential that it started from")
    run_type: str = column("text", "functional as pymatgen names it: `GGA`, `GGA+U`, `R2SCAN`")
    hubbards: str = column("text", "U in eV by element: a JSON object")
    potcars: str = column("text", "TITEL of each POTCAR: a JSON array")
    code: str = column("text", "version of VASP")
    magnetization: float = column("f8", "total magnetic moment; NaN if unknown", unit="bohr_magneton")
    corrections: str = column("text", "INCAR tags that error handlers changed: a JSON object")
    attempts: int = column("i4", "attempts begun until it was done", volatile=True)
    folder: str = column("text", "its outputs, below the run folder", volatile=True)
    step_run: NDArray[np.uint8] = per_step("u1", "which of its relaxations a step belongs to, from 1", since=2)


@dataclass(frozen=True, eq=False)
class ReferenceEntry:
    """One competing phase of a reference set (`reference.h5`)."""

    id: str
    entry_id: str = column("text", "its name in the source, unique within the set")
    formula: str = column("text", "full formula, such as `Ti2 O4`")
    energy_per_atom: float = column("f8", "energy on the scale of the set", unit="eV/atom")
    element: bool = column("?", "an elemental reference")
    uncorrected_energy_per_atom: float = column(
        "f8", "energy before the corrections of the scale; NaN where unknown", unit="eV/atom", default=float("nan")
    )
