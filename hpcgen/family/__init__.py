"""Generator families: the one place where a stage learns how samples are made and turned into crystals.

A family is a class with the methods of `Family`, registered by name in `FAMILIES` (or, for one that lives
outside hpcgen, as an entry point of the group `hpcgen.families`). No stage knows any family by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config, SampleConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Candidate, Entry
from hpcgen.store import File

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hpcgen.train.part import Part

FAMILIES = {
    "representation": "hpcgen.family.representation:RepresentationFamily",
    "pointcloud": "hpcgen.family.pointcloud:PointCloudFamily",
}


class Family(Protocol):
    """What the stages ask of a generator family.

    A family is fitted to the training split, then lives in the checkpoint as `state()`; sampling and
    reconstruction restore it with `from_state`, so that they can never run with other settings than training.

    A family whose samples are told something even if nothing is asked for has an attribute `always_told` that is true;
    guidance then leads towards that.
    """

    name: str
    sample_type: type  # the record type stored in samples.h5

    @classmethod
    def fit(
        cls, crystals: Sequence[Crystal], config: Config, values: Sequence[Mapping[str, Any]] | None = None
    ) -> Family:
        """Statistics, scalers, element list and conditions from the training split alone.

        Args:
            crystals: of the training split.
            config: of the run.
            values: what is known of each crystal in columns of the data, as `Entry.values`.
        """
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Family:
        """The family as `state()` saved it."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain numbers, text, lists, dicts and torch tensors: loads with `weights_only=True`."""
        ...

    def misfits(self, crystals: Sequence[Crystal]) -> list[tuple[int, str]]:
        """(index, reason) of the crystals that the family cannot encode."""
        ...

    def parts(self, config: Config) -> Sequence[Part]:
        """The networks that make up the generator, in the order they are trained and sample in."""
        ...

    def training_tensors(self, entries: Sequence[Entry], config: Config) -> dict[str, dict[str, Tensor]]:
        """The rows of each part by its name, see `hpcgen.train.part.Rows`; entries of `misfits` are left out."""
        ...

    def generator(
        self,
        models: Mapping[str, Any],
        *,
        seed: int,
        settings: SampleConfig,
        device: torch.device | str = "cpu",
        conditions: Mapping[str, Any] | None = None,
    ) -> Callable[[Sequence[str]], list[Any]]:
        """What draws samples: at most `settings.micro_batch` ids -> a `sample_type` or `Failure` for each.

        Args:
            models: `hpcgen.family.draw.Trained` of each part, by its name.
            seed: of the run; with its id it decides all random numbers of a sample.
            settings: sampler, steps, guidance and micro-batch.
            device: where the networks are.
            conditions: what is asked for, `sample.conditions`.

        Raises:
            ConfigError: if the model cannot be asked for it.
        """
        ...

    def score(
        self,
        models: Mapping[str, Any],
        part: str,
        real: Sequence[Crystal],
        config: Config,
        device: torch.device | str = "cpu",
    ) -> dict[str, float]:
        """How good a small sample is while `part` is in training, by name; nothing if that cannot be said.

        Args:
            models: `hpcgen.family.draw.Trained` of the part and those before it.
            part: its name.
            real: crystals to compare with.
            config: of the run.
            device: of the networks.
        """
        ...

    def sample_attrs(self) -> dict[str, Any]:
        """Attributes of samples.h5 that make its records self-contained: element list, names of dimensions."""
        ...

    @classmethod
    def reconstructor(cls, attrs: dict[str, Any], config: Config) -> Reconstructor:
        """The solver for samples of a file with these attributes; needs no model."""
        ...


class Reconstructor(Protocol):
    """Turns samples into candidates; one object per rank."""

    def candidate_attrs(self) -> dict[str, Any]:
        """Attributes of candidates.h5 that its columns need, such as `names_residual_blocks`."""
        ...

    def warm_up(self) -> None:
        """Do once what must not count as work on a sample, such as compiling."""
        ...

    def costs(self, samples: File) -> NDArray[np.float64]:
        """(M,) estimated seconds on one core of every sample of an open file, for scheduling only."""
        ...

    def reconstruct(self, sample: Any, candidate_id: str, seed: int) -> Candidate | Failure:
        """Deterministic in (sample, seed); a target that cannot be met is a `Failure`, never an exception."""
        ...


def get_family(name: str) -> type[Family]:
    """The family class registered as `name`.

    Raises:
        ConfigError: if there is none; the message lists those there are.
    """
    target = FAMILIES.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)
    external = {e.name: e for e in entry_points(group="hpcgen.families")}
    if name in external:
        return external[name].load()
    raise ConfigError(
        f"there is no generator family {name!r}", expected=f"one of {', '.join(sorted({*FAMILIES, *external}))}"
    )
