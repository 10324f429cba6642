"""Sections of the way back from vectors to crystals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcgen.config.base import Count, Positive, Section


class AnnealConfig(Section):
    """Grid heat-bath annealing with Levenberg-Marquardt polish (pair spectrum)."""

    grid_step: Positive = Field(0.6, description="in cells scaled to 2.5^3 cubic angstrom per atom")
    starts: Count = Field(
        6, description="starts per atom at most; above 20 atoms their number falls with the square of the atoms"
    )
    symmetric: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="share of the starts that anneal orbits of a random symmetry group"
    )
    sweeps: Count = Field(24, description="heat-bath sweeps per start")
    t_hot: Positive = Field(0.1, description="heat-bath temperature at the start, relative to the loss")
    t_cold: Positive = Field(0.02, description="temperature at the end")
    polish: Count = Field(40, description="Levenberg-Marquardt iterations of the best starts")
    tolerance: Positive = Field(1e-9, description="relative squared residual that counts as found")


class BasinHoppingConfig(Section):
    """Basin hopping with Adam (EAD); the paper's numbers are 6 trials, 7 hops and 300 iterations."""

    trials: Count = Field(6, description="independent trials")
    hops: Count = Field(7, description="hops per trial")
    iterations: Count = Field(300, description="Adam iterations per hop")
    step: Positive = Field(1.0, description="hop, uniform in [-step, step] angstrom")
    learning_rate: Positive = Field(0.3, description="of Adam, angstrom")
    temperature: Positive = Field(0.1, description="Metropolis temperature relative to the loss")


class ReconstructConfig(Section):
    """From samples back to crystals."""

    more_samples: list[str] = Field(
        [], description="samples.h5 of other runs, of any family, that are rebuilt and judged together with this run's"
    )
    anneal: AnnealConfig = AnnealConfig()
    basin_hopping: BasinHoppingConfig = BasinHoppingConfig()
    decode: Literal["order", "clusters"] = Field(
        "order", description="of point clouds: by the place of the points in the array, or by clusters alone"
    )
    polish: bool = Field(
        True, description="of point clouds: impose the highest symmetry that the spread of the points allows"
    )
    noise_floor: Annotated[float, Field(ge=0)] = Field(
        0.02, description="relative residual under which more work on a generated target is wasted"
    )
    accept: Annotated[float, Field(ge=0)] = Field(
        0.05, description="relative residual from which on no further attempt of a sample is tried"
    )
    accept_atoms: Positive | None = Field(
        None,
        description="the same of the residual times the number of atoms, which must hold too; a descriptor is a mean "
        "over atoms, so that one wrong atom shows the less the more there are; null: no such limit",
    )
    cell_length: Annotated[float, Field(ge=0, le=0.2)] = Field(
        0.03, description="largest change of a generated length when the cell is refined; 0 keeps the cell"
    )
    cell_angle: Annotated[float, Field(ge=0, le=20)] = Field(
        2.0, description="degrees; largest change of a generated angle, likewise"
    )
    symmetry_tolerance: Positive | None = Field(
        0.5, description="angstrom within which a crystal is made symmetric if the residual stays; null: never"
    )


class RoundTripConfig(Section):
    """`hpcgen reconstruct --structures`: real structures, encoded and rebuilt; its options set these keys."""

    structures: str | None = Field(None, description="what `data.source` may be, or a dataset.h5")
    n: Count | None = Field(None, description="structures drawn at random; null: all")
    noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="relative normal noise on every component of the descriptor"
    )
    lattice_noise: Annotated[float, Field(ge=0, lt=0.3)] = Field(
        0.0, description="relative normal noise on the cell lengths; 60 times as many degrees on the angles"
    )
