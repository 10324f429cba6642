"""One model per stage: every key, its type, its default and its meaning. Here all of them together."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from hpcgen.config.base import Section
from hpcgen.config.campaign import FarmConfig, HullConfig, PhononsConfig, RelaxConfig, ReportConfig, ScreenConfig
from hpcgen.config.dft import SelectConfig, SlotsConfig, VaspConfig
from hpcgen.config.dynamics import DynamicsConfig
from hpcgen.config.generation import ConditionsConfig, DiffusionConfig, ModelConfig, SampleConfig, TrainConfig
from hpcgen.config.reconstruction import ReconstructConfig, RoundTripConfig
from hpcgen.config.representation import DataConfig, PointCloudConfig, RepresentationConfig


class Config(Section):
    """A whole campaign."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        "run", description="name of the campaign and of its folder below runs/"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="every random stream is derived from it and an id")
    data: DataConfig = DataConfig()
    representation: RepresentationConfig = RepresentationConfig()
    pointcloud: PointCloudConfig = PointCloudConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    reconstruct: ReconstructConfig = ReconstructConfig()
    roundtrip: RoundTripConfig = RoundTripConfig()
    screen: ScreenConfig = ScreenConfig()
    relax: RelaxConfig = RelaxConfig()
    hull: HullConfig = HullConfig()
    select: SelectConfig = SelectConfig()
    vasp: VaspConfig | None = Field(None, description="the section is left out: no VASP")
    slots: SlotsConfig = SlotsConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    phonons: PhononsConfig = PhononsConfig()
    report: ReportConfig = ReportConfig()
    farm: FarmConfig = FarmConfig()

    @model_validator(mode="after")
    def _fractions_leave_training_data(self) -> Config:
        if self.data.validation_fraction + self.data.test_fraction >= 1:
            raise ValueError("data.validation_fraction + data.test_fraction must stay below 1")
        return self

    @model_validator(mode="after")
    def _reference_can_meet_dft(self) -> Config:
        if self.vasp is not None and self.hull.reference == "self":
            raise ValueError(
                "hull.reference is `self`, phases relaxed by the ML potential, which energies of VASP may not meet; "
                f"give a reference that may meet {self.vasp.energy_scale}, such as energies of Materials Project"
            )
        return self

    @model_validator(mode="after")
    def _phonons_know_how_to_start_vasp(self) -> Config:
        if self.phonons.forces == "vasp" and self.vasp is None:
            raise ValueError(
                "phonons.forces is `vasp`, and there is no section `vasp`, which says how VASP is started; "
                "add it (vasp: {command: [srun, -N1, --exact, vasp_std]}), or take phonons.forces: mlip"
            )
        return self

    def text(self) -> str:
        """The resolved configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def digest(self) -> str:
        """Digest of everything that can change a result of the chain: all but name, `farm`, `slots`, `report` and
        devices.

        What comes after the chain (`AFTER_THE_CHAIN`) is left out too: it may be chosen when a campaign is done.
        """
        tree = self._science()
        for section in AFTER_THE_CHAIN:
            tree.pop(section)
        return _digest_of(tree)

    def identity(self, stage: str) -> str:
        """Digest of what decides the items of a stage: its own section and those of the stages before it.

        So other settings of a later stage change neither ids nor random streams, and neither does the number of
        samples, nor which samples of other runs are rebuilt too: sample i is the same in a campaign of ten and of a
        million. A round trip is decided by descriptor,
        solver, noise and seed, wherever its structures lie.
        """
        tree = self._science()
        tree["sample"].pop("n")
        tree["reconstruct"].pop("more_samples")
        if stage == "roundtrip":
            trip = {key: tree["roundtrip"][key] for key in ("noise", "lattice_noise")}
            return _digest_of({key: tree[key] for key in ("seed", "representation", "reconstruct")} | trip)
        before = list(DECIDED_BY)[: list(DECIDED_BY).index(stage)]
        decisive = [*(s for s in before if s not in AFTER_THE_CHAIN), stage]
        return _digest_of({section: tree[section] for s in decisive for section in DECIDED_BY[s]})

    def _science(self) -> dict[str, Any]:
        tree = self.model_dump(mode="json", exclude={"name": True, "farm": True, "report": True, "slots": True})
        for section in ("train", "sample", "relax"):
            tree[section].pop("device", None)
        for key in ("processes", "keep", "checkpoint_every", "score_every", "compile"):
            tree["train"].pop(key)
        tree["vasp"] = self.vasp and self.vasp.decisive()
        return tree


DECIDED_BY: dict[str, tuple[str, ...]] = {
    "data": ("seed", "data"),
    "train": ("representation", "pointcloud", "conditions", "model", "diffusion", "train"),
    "sample": ("sample",),
    "reconstruct": ("reconstruct",),
    "screen": ("screen",),
    "relax": ("relax",),
    "reference": ("hull",),
    "hull": (),
    "select": ("select",),
    "dft": ("vasp",),
    "stability": (),
    "dynamics": ("dynamics",),
    "phonons": ("phonons",),
}
"""The sections that each stage adds to what decides its items, in the order of the stages."""


AFTER_THE_CHAIN = ("dynamics", "phonons")
"""Stages, with sections of their names, that no other stage rests on."""


def _digest_of(tree: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=8).hexdigest()
