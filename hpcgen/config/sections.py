"""One model per stage: every key, its type, its default and its meaning."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
    max_failures: Fraction = Field(0.5, description="stop if a larger share of the rows is unusable")


class StructureFactor(NamedTuple):
    """Bins of the structure factor: their number, the last one and their width in 1/angstrom, and their weight."""

    bins: int
    last: float
    width: float
    amplitude: float


_WIDE, _NARROW = StructureFactor(32, 4.0, 0.2, 8.0), StructureFactor(32, 4.0, 0.08, 20.0)
_FINE = StructureFactor(300, 5.0, 0.013, 30.0)


class PairSpectrumConfig(Section):
    """Radial distribution and smeared structure factor, per pair of species channels (the default descriptor)."""

    rdf_bins: Count = Field(24, description="radial bins per pair of channels")
    rdf_width: Positive = Field(
        0.4, description="width of a radial bin, in cells scaled to 2.5^3 cubic angstrom per atom"
    )
    s_bins: Count | None = Field(
        None,
        description="bins of the structure factor per pair of channels; null: 32 (300 for exact ones of one element)",
    )
    s_last: Annotated[float, Field(gt=0.8)] | None = Field(
        None, description="last of them, 1/angstrom, scaled as above; null: 4 (5 for exact ones of one element)"
    )
    s_width: Positive | None = Field(
        None, description="null: 0.2 for generated vectors and 0.08 for exact ones, with one element 0.08 and 0.013"
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
            chosen = _FINE if exact else _NARROW
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


class ModelConfig(Section):
    """The network."""

    name: Literal["unet1d", "resmlp"] = Field("unet1d", description="`unet1d` is the paper's; `resmlp` is faster")
    width: Count = Field(64, description="channels of the first stage")
    multipliers: list[Count] = Field([1, 2], description="channels of each stage, times width")
    resnet_blocks: Count = Field(2, description="ResNet blocks per stage")
    attention_heads: Count = Field(4, description="heads of the linear attention")
    attention_dim: Count = Field(256, description="width of the linear attention, all heads together")
    patch: Count = Field(
        1, description="neighbouring dimensions folded into the channels of one position; 1: the paper's"
    )


class DiffusionConfig(Section):
    """Noise schedule and objective."""

    steps: Count = Field(1000, description="noise steps of the forward process")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="noise schedule")
    objective: Literal["noise", "v"] = Field("v", description="what the network predicts")


class TrainConfig(Section):
    """The training loop."""

    family: str = Field("representation", description="generator family")
    steps: Count = Field(4000, description="optimiser steps")
    batch: Count = Field(64, description="global batch, whatever the number of processes")
    learning_rate: Positive = Field(1e-3, description="peak of the schedule")
    warmup: Annotated[int, Field(ge=0)] = Field(100, description="steps of linear warm-up, before the cosine decay")
    grad_clip: Positive = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="decay of the averaged weights, which are the ones that sample"
    )
    validate_every: Count = Field(500, description="steps between two lines of train.csv")
    checkpoint_every: Count = Field(1000, description="steps between two checkpoints")
    processes: Count = Field(1, description="DDP processes that `hpcgen run` starts with torchrun")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")


class SampleConfig(Section):
    """Sampling."""

    n: Count = Field(64, description="samples to draw")
    sampler: Literal["ddpm", "ddim"] = Field("ddim", description="`ddpm` is the paper's")
    steps: Count = Field(100, description="denoising steps of DDIM; DDPM takes all steps of the model")
    micro_batch: Count = Field(64, description="fixed, padded: a sample never depends on its neighbours")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")


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

    anneal: AnnealConfig = AnnealConfig()
    basin_hopping: BasinHoppingConfig = BasinHoppingConfig()
    noise_floor: Annotated[float, Field(ge=0)] = Field(
        0.02, description="relative residual under which more work on a generated target is wasted"
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


class ScreenConfig(Section):
    """Which candidates go on to relaxation."""

    min_distance: Positive = Field(0.5, description="angstrom; CDVAE's structure validity")
    max_residual: Positive | None = Field(None, description="drop candidates above; null keeps all")
    require_valid_composition: bool = Field(True, description="drop compositions that SMACT does not balance")
    require_unique: bool = Field(True, description="drop what equals an earlier candidate")
    require_novel: bool = Field(False, description="drop what matches the training data")


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
        "self", description="`self`: elements and training structures by the same potential; or a path"
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


class Config(Section):
    """A whole campaign."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        "run", description="name of the campaign and of its folder below runs/"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="every random stream is derived from it and an id")
    data: DataConfig = DataConfig()
    representation: RepresentationConfig = RepresentationConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    reconstruct: ReconstructConfig = ReconstructConfig()
    roundtrip: RoundTripConfig = RoundTripConfig()
    screen: ScreenConfig = ScreenConfig()
    relax: RelaxConfig = RelaxConfig()
    hull: HullConfig = HullConfig()
    report: ReportConfig = ReportConfig()
    farm: FarmConfig = FarmConfig()

    @model_validator(mode="after")
    def _fractions_leave_training_data(self) -> Config:
        if self.data.validation_fraction + self.data.test_fraction >= 1:
            raise ValueError("data.validation_fraction + data.test_fraction must stay below 1")
        return self

    def text(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def digest(self) -> str:
        """Digest of everything that can change a result: all but the name, `farm`, `report` and devices."""
        return _digest_of(self._science())

    def identity(self, stage: str) -> str:
        """Digest of what decides the items of a stage: its own section and those of the stages before it.

        So other settings of a later stage change neither ids nor random streams, and neither does the number of
        samples: sample i is the same in a campaign of ten and of a million. A round trip is decided by descriptor,
        solver, noise and seed, wherever its structures lie.
        """
        tree = self._science()
        tree["sample"].pop("n")
        if stage == "roundtrip":
            trip = {key: tree["roundtrip"][key] for key in ("noise", "lattice_noise")}
            return _digest_of({key: tree[key] for key in ("seed", "representation", "reconstruct")} | trip)
        decisive = list(DECIDED_BY)[: list(DECIDED_BY).index(stage) + 1]
        return _digest_of({section: tree[section] for s in decisive for section in DECIDED_BY[s]})

    def _science(self) -> dict[str, Any]:
        tree = self.model_dump(mode="json", exclude={"name": True, "farm": True, "report": True})
        for section in ("train", "sample", "relax"):
            tree[section].pop("device", None)
        tree["train"].pop("processes", None)
        return tree


DECIDED_BY: dict[str, tuple[str, ...]] = {
    "data": ("seed", "data"),
    "train": ("representation", "model", "diffusion", "train"),
    "sample": ("sample",),
    "reconstruct": ("reconstruct",),
    "screen": ("screen",),
    "relax": ("relax",),
    "reference": ("hull",),
    "hull": (),
}
"""The sections that each stage adds to what decides its items, in the order of the stages."""


def _digest_of(tree: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=8).hexdigest()
