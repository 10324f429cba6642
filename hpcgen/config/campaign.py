"""Sections of what follows on generation, and of how all of it runs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

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


class RelaxConfig(Section):
    """Relaxation by the machine-learned potential."""

    calculator: str = Field("chgnet", description="a registered calculator")
    max_force: Positive = Field(0.05, description="eV/angstrom")
    max_stress: Positive = Field(
        0.1, description="GPa; 0.1 leaves less than 1 meV/atom even in potassium, 0.5 twenty times that"
    )
    max_steps: Count = Field(200, description="optimiser steps at most; the rest is kept as not converged")
    max_volume_change: Positive = Field(3.0, description="ratio beyond which a crystal counts as exploded")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")


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
