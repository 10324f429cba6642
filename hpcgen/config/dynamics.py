"""Section of the molecular dynamics, which no other stage depends on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hpcgen.config.base import Count, Positive, Section


class DynamicsConfig(Section):
    """Molecular dynamics with the potential of `relax` (`hpcgen dynamics`); `hpcgen run` does none."""

    n: Count = Field(
        10, description="crystals simulated at most: unique ones, the most stable first, novel ones before"
    )
    max_e_hull: float = Field(0.1, description="eV/atom; only crystals at or below")
    temperatures: Annotated[list[Positive], Field(min_length=1)] = Field(
        [600.0, 900.0, 1200.0], description="K, one simulation each"
    )
    equilibration: Positive = Field(2.0, description="ps before anything is counted")
    time: Positive = Field(20.0, description="ps that are counted")
    timestep: Positive = Field(2.0, description="fs; 1 or less if there is hydrogen")
    interval: Positive = Field(20.0, description="fs between the frames that are kept")
    width: Positive = Field(9.0, description="angstrom; crystals are repeated until opposite faces are so far apart")
    max_atoms: Count = Field(250, description="atoms of a repeated cell at most; larger ones are failures")
    ions: list[str] = Field(
        ["Li", "Na", "K", "Ag", "Mg"], description="what may be mobile; the first of them that a crystal holds is"
    )
    min_path: Annotated[float, Field(ge=0)] = Field(
        0.35,
        description="clearance over radius of the ion at the narrowest point of its widest way, below which it is not "
        "looked for in the simulation; 0 looks always",
    )
    conductivity_at: Positive = Field(300.0, description="K to which the conductivity is extrapolated")
