"""The stages of a campaign in order: what each reads, what it writes, and how it is started.

Each stage is a module of `hpcgen.stages` with one function `run(context) -> Balance`; nothing else knows the order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hpcgen.config import Config
from hpcgen.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: also the command `hpcgen NAME` and the module `hpcgen.stages.NAME`.
        reads: files of the run folder that must exist before.
        writes: the file or folder whose existence says that the stage is done.
        launch: `here` in this process, `farm` over MPI ranks, `ddp` over training processes.
        does: one line for `--help` and the documentation.
        gpu: whether every rank of it wants a GPU, where there are some.
        beside: what else it leaves in the run folder.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    launch: Literal["here", "farm", "ddp"]
    does: str
    gpu: bool = False
    beside: tuple[str, ...] = ()


STAGES: tuple[Stage, ...] = (
    Stage("data", (), "dataset.h5", "here", "read, reduce, validate and split the training structures"),
    Stage(
        "train",
        ("dataset.h5",),
        "checkpoint.pt",
        "ddp",
        "fit the generator to the training split",
        beside=("checkpoints", "train.csv", "tensorboard"),
    ),
    Stage("sample", ("checkpoint.pt",), "samples.h5", "farm", "draw samples from the generator", True),
    Stage("reconstruct", ("samples.h5",), "candidates.h5", "farm", "turn samples into crystals"),
    Stage("screen", ("candidates.h5", "dataset.h5"), "survivors.h5", "here", "drop what is invalid or a duplicate"),
    Stage("relax", ("survivors.h5", "candidates.h5"), "relaxed-mlip.h5", "farm", "relax with the ML potential", True),
    Stage("reference", ("survivors.h5", "dataset.h5"), "reference.h5", "farm", "collect the competing phases", True),
    Stage("hull", ("relaxed-mlip.h5", "reference.h5", "dataset.h5"), "stability.h5", "here", "energies above the hull"),
    Stage("report", ("stability.h5",), "report", "here", "write report/index.html, stability.csv and the CIFs"),
)

DFT: tuple[Stage, ...] = (
    Stage("select", ("stability-mlip.h5", "relaxed-mlip.h5"), "selected.h5", "here", "choose what goes on to VASP"),
    Stage(
        "dft",
        ("selected.h5", "relaxed-mlip.h5"),
        "relaxed-vasp.h5",
        "here",
        "relax with VASP under custodian, in slots",
        beside=("vasp",),
    ),
    Stage(
        "stability",
        ("relaxed-vasp.h5", "reference.h5", "dataset.h5"),
        "stability.h5",
        "here",
        "energies above the hull by VASP, with MP2020 corrections",
    ),
)
"""Between hull and report if there is a section `vasp`; the hull then writes stability-mlip.h5."""

ROUNDTRIP = Stage("roundtrip", (), "roundtrip.h5", "farm", "rebuild real structures from their descriptors")
"""No link of the chain: `hpcgen reconstruct --structures` runs it, in a folder of its own."""

DYNAMICS = Stage(
    "dynamics", ("stability.h5",), "dynamics.h5", "farm", "molecular dynamics of the most stable crystals", True
)
"""No link of the chain: `hpcgen dynamics` runs it when a campaign is done; the report then shows it."""

PHONONS = Stage("phonons", ("stability.h5",), "phonons.h5", "farm", "look for imaginary modes near the hull", True)
"""No link of the chain: `hpcgen phonons` runs it when a campaign is done."""

PHONONS_BY_VASP = replace(PHONONS, reads=("stability-mlip.h5",), launch="here", gpu=False)
"""The same with `phonons.forces: vasp`: a controller of slots. It takes stability.h5 if that is there too.

Its jobs (vasp-phonons/) stay where they are with `--redo`: their names say what was computed.
"""

ASIDE = (ROUNDTRIP, DYNAMICS, PHONONS)


def chain(config: Config) -> tuple[Stage, ...]:
    """The stages of a campaign, in order."""
    if config.vasp is None:
        return STAGES
    *first, hull, report = STAGES
    return (*first, replace(hull, writes="stability-mlip.h5"), *DFT, report)


def stage(name: str, config: Config | None = None) -> Stage:
    """The stage of that name in the chain of a configuration; without one, in the chain that has no VASP.

    Raises:
        UsageError: if there is none.
    """
    stages = chain(config) if config is not None else STAGES
    for s in stages:
        if s.name == name:
            return s
    if any(s.name == name for s in DFT):
        raise UsageError(
            f"{name} is a stage of the relaxation by VASP, and the configuration has no section `vasp`",
            remedy="add the section: vasp: {command: [srun, -N1, --exact, vasp_std]}",
        )
    raise UsageError(f"there is no stage {name!r}", expected=f"one of {', '.join(s.name for s in stages)}")


def work_of(command: str, config: Config) -> Stage:
    """The stage that a command runs, a link of the chain or not.

    Raises:
        UsageError: if there is none.
    """
    if command == PHONONS.name and config.phonons.forces == "vasp":
        return PHONONS_BY_VASP
    return next((s for s in ASIDE if s.name == command), None) or stage(command, config)
