"""What flows from stage to stage: frozen records whose fields are the columns of the HDF5 files.

A field made with `column` is one scalar per record, with `per_atom` one row per atom, with `per_step` one number per
step of an optimiser, with `array` one array of a fixed shape per record. The store derives schemas, readers, writers
and `docs/hdf5.md` from these declarations, so that a column exists in one place only. `volatile` columns (times) are
not part of a record's identity.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray

ID_LENGTH = 16


def make_id(run_digest: str, stage: str, index: int) -> str:
    """Id of item `index` of a stage: 16 hexadecimal digits that depend on nothing else."""
    text = f"{run_digest}/{stage}/{index}".encode()
    return hashlib.blake2b(text, digest_size=ID_LENGTH // 2).hexdigest()


def seed_of(run_seed: int, item_id: str, purpose: str = "") -> int:
    """63-bit seed of the random stream of one item, the same on every rank and after every restart."""
    text = f"{run_seed}/{item_id}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def column(
    dtype: str, doc: str, *, unit: str = "", volatile: bool = False, default: Any = MISSING, since: int = 0
) -> Any:  # a dataclass field
    """A scalar per record. `dtype`: a numpy type string, `id` for an id or `text` for UTF-8 text.

    `since`: the version of the schema that it came with; records of older files have the default.
    """
    meta = {"kind": "column", "dtype": dtype, "doc": doc, "unit": unit, "volatile": volatile, "shape": ()}
    return field(default=default, metadata={**meta, "since": since})


def per_atom(dtype: str, doc: str, *, shape: tuple[int, ...] = (), unit: str = "") -> Any:
    """One row of `shape` per atom, stored ragged beside the atoms."""
    return field(
        metadata={"kind": "per_atom", "dtype": dtype, "doc": doc, "unit": unit, "shape": shape, "volatile": False}
    )


def per_step(dtype: str, doc: str, *, unit: str = "", since: int = 0) -> Any:
    """One number per step, stored ragged: all fields of a record that are per step are equally long, or empty."""
    meta = {"kind": "per_step", "dtype": dtype, "doc": doc, "unit": unit, "volatile": False, "shape": ()}
    empty = partial(np.zeros, 0, dtype)
    return field(default_factory=empty, kw_only=True, metadata={**meta, "since": since})


def array(
    dtype: str,
    doc: str,
    *,
    shape: tuple[str | int, ...],
    unit: str = "",
    group: str = "array",
    empty: tuple[int, ...] | None = None,
    since: int = 0,
) -> Any:
    """One array per record. `shape` names its dimensions; `group` is the HDF5 group it lies in.

    `empty`: shape of what a record has that lacks it, as those of files older than version `since` do.
    """
    facts = {"kind": "array", "dtype": dtype, "doc": doc, "unit": unit, "shape": shape, "group": group}
    meta = {**facts, "volatile": False, "since": since}
    if empty is None:
        return field(metadata=meta)
    return field(default_factory=partial(np.zeros, empty, dtype), kw_only=True, metadata=meta)


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


def content(record: Any) -> dict[str, NDArray[Any] | str | float | int | bool]:
    """The identity of a record: all columns but the volatile ones, with the crystal taken apart.

    Two runs agree when these are equal record by record.
    """
    from dataclasses import fields

    out: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, Crystal):
            out |= {"lattice": value.lattice, "frac": value.frac, "numbers": value.numbers}
        elif not f.metadata.get("volatile", False):
            out[f.name] = np.asarray(value) if f.metadata.get("kind") in ("array", "per_atom", "per_step") else value
    return out
