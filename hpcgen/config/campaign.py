"""Sections of what follows on generation, and of how all of it runs."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from hpcgen.config.base import Count, Positive, Section


class ScreenConfig(Section):
    """Which candidates go on to relaxation."""

    min_distance: Positive = Field(0.5, description="angstrom; CDVAE's structure validity")
    max_residual: Positive | dict[str, Positive] | None = Field(
        None,
        description="drop candidates above; null keeps all. Residuals of families are not alike, so in a mixed "
        "campaign by family, as `{pointcloud: 0.2}`; families not named keep all",
    )
    require_valid_composition: bool = Field(True, description="drop compositions that SMACT does not balance")
    require_unique: bool = Field(True, description="drop what equals an earlier candidate")
    require_novel: bool = Field(False, description="drop what matches the training data or `known`")
    known: list[str] = Field(
        [], description="further known structures for novelty: CSVs with a `cif` column, folders of CIFs, extxyz"
    )

    def residual_limit(self, family: str) -> float:
        """The largest residual that candidates of a family may have."""
        limit = self.max_residual
        return math.inf if limit is None else limit.get(family, math.inf) if isinstance(limit, dict) else limit


class AseConfig(Section):
    """`relax.calculator: ase`: any calculator of ASE, by import path."""

    path: str = Field(
        "", description="`module:attribute` that makes the calculator when called, such as `mace.calculators:mace_mp`"
    )
    arguments: dict[str, Any] = Field({}, description="keyword arguments of that call")
    scale: str = Field(
        "",
        description="energy scale; empty: its own, so that it is compared with a reference computed by itself only",
    )


class GpawConfig(Section):
    """`relax.calculator: gpaw`: PBE with plane waves, on an energy scale of its own."""

    cutoff: Positive = Field(600.0, description="eV; oxides need 600")
    k_density: Positive = Field(3.5, description="k points per 1/angstrom of reciprocal length at least, with Gamma")
    smearing: Positive = Field(0.1, description="width of the Fermi-Dirac occupation, eV")
    magnetic_moment: float = Field(
        3.0, description="initial moment of V to Ni, Ce to Yb and U to Cm, in mu_B; 0: without spin"
    )
    max_iterations: Count = Field(300, description="of self-consistency per evaluation")


class RelaxConfig(Section):
    """Relaxation by a machine-learned potential, any calculator of ASE, or GPAW."""

    calculator: str = Field("chgnet", description="a registered calculator: `chgnet`, `ase`, `gpaw`")
    max_force: Positive = Field(
        0.02,
        description="eV/angstrom; 0.02 leaves more than 2 meV/atom in one crystal of 40, 0.05 in one of 8, for 1.4 "
        "times the time of 0.05; GPAW may want 0.05",
    )
    max_stress: Positive = Field(
        0.1, description="GPa; 0.1 leaves less than 1 meV/atom even in potassium, 0.5 twenty times that"
    )
    max_steps: Count = Field(200, description="optimiser steps at most; the rest is kept as not converged")
    max_volume_change: Positive = Field(3.0, description="ratio beyond which a crystal counts as exploded")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")
    batch: Count = Field(
        8, description="crystals that a rank relaxes side by side; 8 is enough for a CPU core, a GPU wants 256"
    )
    ase: AseConfig = AseConfig()
    gpaw: GpawConfig = GpawConfig()

    def criteria(self) -> dict[str, Any]:
        """What decides where a relaxation ends, whatever the calculator."""
        return self.model_dump(mode="json", include={"max_force", "max_stress", "max_steps", "max_volume_change"})


class PhononsConfig(Section):
    """`hpcgen phonons`: imaginary modes of what is near the hull; not part of the chain."""

    forces: Literal["mlip", "vasp"] = Field(
        "mlip",
        description="of displaced supercells: by the potential of `relax`, or by VASP (needs the section `vasp`)",
    )
    max_e_hull: float = Field(0.1, description="eV/atom above the hull, up to which crystals are looked at")
    n: Count | None = Field(None, description="crystals at most, the most stable first; null: any number")
    max_force: Positive = Field(0.005, description="eV/angstrom, to which they are relaxed further; VASP's EDIFFG")
    max_stress: Positive = Field(0.05, description="GPa, likewise; by VASP its own criterion holds")
    supercell_length: Positive = Field(
        12.0, description="angstrom between opposite faces of the supercell at least; CHGNet sees up to 6"
    )
    max_atoms: Count = Field(500, description="of a supercell; larger ones are failures")
    displacement: Positive = Field(0.03, description="angstrom; smaller ones drown in the rounding of a potential")
    tolerance: Annotated[float, Field(ge=0.0)] = Field(
        0.1, description="THz below zero that still count as real: the noise of forces and supercell"
    )
    batch: Count = Field(4, description="displaced supercells evaluated at a time; not by VASP")
    symmetry: Annotated[float, Field(ge=0.0)] = Field(
        0.03,
        description="VASP: angstrom within which a symmetry is imposed before and after the relaxation, as each one "
        "that is missing costs supercells; 0: none",
    )
    incar: dict[str, Any] = Field(
        {}, description="VASP: INCAR tags of relaxation and supercells that replace ours, such as {EDIFF: 1e-7}"
    )


class HullConfig(Section):
    """The reference set, and how it is compared."""

    reference: str = Field(
        "self",
        description="`self`: elements and training structures by the same potential; or a .h5, .csv or .json file",
    )
    elements: str | None = Field(
        None, description="elemental ComputedEntries (json.gz) for a CSV of formation energies"
    )
    max_structures: Annotated[int, Field(ge=0)] = Field(
        200, description="`self`: training structures relaxed at most, those of the survivors' systems first"
    )
    thresholds: list[float] = Field([0.0, 0.08, 0.25], description="eV/atom, counted in the report")


class ReportConfig(Section):
    """The report."""

    title: str = Field("", description="heading of the report; empty: the name")
    survivors: Count = Field(50, description="survivors shown with a picture, the most stable first")


class FarmConfig(Section):
    """The MPI farm; nothing here changes a result."""

    ranks: Annotated[int, Field(ge=0)] = Field(0, description="ranks that `hpcgen run` starts; 0: one per core")
    launcher: Literal["auto", "mpiexec", "srun", "none"] = Field(
        "auto", description="`auto`: srun inside a Slurm job, else mpiexec where MPI is installed, else none"
    )
    chunk_seconds: Positive = Field(1.0, description="work handed out at a time")
    log_interval: Positive = Field(30.0, description="seconds between progress lines of a batch job")
    max_kills: Count = Field(
        3, description="a task that has killed its process so often is set aside as a failure, and the run goes on"
    )
    task_limit: Positive = Field(
        3600.0, description="seconds that one task may take before it is a failure; a guard against hangs, not a budget"
    )
    grace: Positive = Field(
        30.0, description="seconds that a task in hand may go on after a stop signal; then it is left to the next start"
    )
    ranks_per_gpu: Count = Field(1, description="ranks of a node that may share one GPU")
