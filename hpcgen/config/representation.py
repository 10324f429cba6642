"""Sections of the data and of what stands for a crystal."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from hpcgen.config.base import Count, Fraction, Positive, Section


class PrototypeData(Section):
    """Built-in data: AFLOW prototypes decorated with charge-balanced element choices."""

    cations: list[str] = Field(
        ["Li", "Na", "K", "Mg", "Ca", "Sr", "Ba", "Zn", "Al", "Ti", "Zr"],
        min_length=1,
        description="elements that may stand as cations",
    )
    anions: list[str] = Field(["O", "S", "F", "Cl"], min_length=1, description="elements that may stand as anions")
    max_structures: Count = Field(3000, description="structures made at most")


class DataConfig(Section):
    """Where the training structures come from and which of them are usable."""

    source: str = Field(
        "builtin", description="`builtin`, a CSV, a CIF or POSCAR or a folder of them, an extxyz, an ASE db"
    )
    builtin: PrototypeData = PrototypeData()
    max_atoms: Count = Field(20, description="larger cells (after Niggli reduction) are left out and counted")
    max_elements: Count = Field(5, description="more elements are left out and counted")
    elements: list[str] | None = Field(None, description="elements allowed; null: hydrogen to lawrencium")
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share held out to watch the training"
    )
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share held out for evaluation, never looked at in training"
    )
    test_every: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="instead of a share, the last row of every so many of the source is held out: 5 is the split of "
        "`hpcgen evaluate --own-split`",
    )
    max_failures: Fraction = Field(0.5, description="stop if a larger share of the rows is unusable")


class StructureFactor(NamedTuple):
    """Bins of the structure factor: their number, the last one and their width in 1/angstrom, and their weight."""

    bins: int
    last: float
    width: float
    amplitude: float


_WIDE, _NARROW = StructureFactor(32, 4.0, 0.2, 8.0), StructureFactor(32, 4.0, 0.08, 20.0)
_ONE, _FINE = StructureFactor(64, 5.0, 0.05, 20.0), StructureFactor(300, 5.0, 0.013, 30.0)


class PairSpectrumConfig(Section):
    """Radial distribution and smeared structure factor, per pair of species channels (the default descriptor)."""

    rdf_bins: Count = Field(24, description="radial bins per pair of channels")
    rdf_width: Positive = Field(
        0.4, description="width of a radial bin, in cells scaled to 2.5^3 cubic angstrom per atom"
    )
    s_bins: Count | None = Field(
        None,
        description="bins of the structure factor per pair of channels; null: 32, with one element 64 for generated "
        "vectors and 300 for exact ones",
    )
    s_last: Annotated[float, Field(gt=0.8)] | None = Field(
        None, description="last of them, 1/angstrom, scaled as above; null: 4, with one element 5"
    )
    s_width: Positive | None = Field(
        None, description="null: 0.2 for generated vectors and 0.08 for exact ones, with one element 0.05 and 0.013"
    )
    s_amplitude: Positive | None = Field(
        None, description="weight of the structure factor against the RDF; null: 8 and 20, with one element 20 and 30"
    )
    cutoff: Annotated[float, Field(gt=1.5)] = Field(8.0, description="radius of the radial part, scaled as above")

    def structure_factor(self, n_elements: int = 2, *, exact: bool = False) -> StructureFactor:
        """What the four settings are for data of so many elements.

        Narrow bins tell crystals apart best, and are the first that a network or noise gets wrong; wide ones forgive.
        One element has one pair of channels, so the fewest numbers for the same atoms, and gets narrower ones.

        Args:
            n_elements: most elements in a crystal of the data.
            exact: whether the vectors are those of real crystals, without noise.
        """
        chosen = _NARROW if exact else _WIDE
        if n_elements == 1:
            chosen = _FINE if exact else _ONE
        return StructureFactor(
            self.s_bins or chosen.bins,
            self.s_last or chosen.last,
            self.s_width or chosen.width,
            self.s_amplitude or chosen.amplitude,
        )

    def resolved(self, n_elements: int, *, exact: bool = False) -> PairSpectrumConfig:
        """The settings with nothing left open; see `structure_factor`."""
        chosen = self.structure_factor(n_elements, exact=exact)._asdict()
        return self.model_copy(update={f"s_{key}": value for key, value in chosen.items()})


class EadConfig(Section):
    """Embedded atom density, the descriptor of the StructRepDiff paper; lengths in angstrom."""

    cutoff: Positive = Field(20.0, description="angstrom; all periodic images within it")
    l_max: Annotated[int, Field(ge=0, le=3)] = Field(0, description="largest angular momentum")
    eta: list[Positive] = Field([1.0, 20.0, 90.0], description="Gaussian exponents, 1/angstrom^2")
    centres: Count = Field(200, description="Rs = 0, cutoff/centres, ...")


class ThreeBodyConfig(Section):
    """Three-body block of `pair-spectrum+3body`; lengths in cells scaled to 2.5^3 cubic angstrom per atom."""

    shells: Count = Field(6, description="radial shells around an atom")
    width: Positive = Field(0.45, description="width of a shell")
    l_max: Annotated[int, Field(ge=0, le=3)] = Field(2, description="largest power of the angle's cosine")
    cutoff: Annotated[float, Field(gt=2.0)] = Field(5.5, description="radius within which neighbours count")
    weight: Positive = Field(1.0, description="weight against the pair blocks")


class RepresentationConfig(Section):
    """What the representation family generates."""

    descriptor: Literal["pair-spectrum", "pair-spectrum+3body", "ead"] = Field(
        "pair-spectrum", description="`pair-spectrum` (default), `pair-spectrum+3body`, or `ead` (the paper)"
    )
    pair_spectrum: PairSpectrumConfig = PairSpectrumConfig()
    three_body: ThreeBodyConfig = ThreeBodyConfig()
    ead: EadConfig = EadConfig()
    variance: Fraction = Field(0.999, description="share of the descriptor's variance that its components keep")

    def resolved(self, n_elements: int, *, exact: bool = False) -> RepresentationConfig:
        """The settings with nothing left open; see `PairSpectrumConfig.structure_factor`."""
        return self.model_copy(update={"pair_spectrum": self.pair_spectrum.resolved(n_elements, exact=exact)})


class PointCloudConfig(Section):
    """What the point-cloud family generates; structures beyond these limits are left out of training and counted."""

    points: Annotated[int, Field(ge=2)] = Field(128, description="points of a cloud; 128 in the paper")
    max_elements: Count = Field(3, description="elements of a cloud at most; 3 in the paper")
    max_sites: Count = Field(16, description="atoms of a cell at most; 16 in the paper")

    @model_validator(mode="after")
    def _every_atom_has_a_point(self) -> PointCloudConfig:
        if self.max_sites > self.points:
            raise ValueError(f"{self.max_sites} sites need as many points at least, not {self.points}")
        return self
