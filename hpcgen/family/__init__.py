"""Generator families: the one place where a stage learns how samples are made and turned into crystals.

A family is a class with the methods of `Family`, registered by name in `FAMILIES` (or, for one that lives
outside hpcgen, as an entry point of the group `hpcgen.families`). No stage knows any family by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Candidate
from hpcgen.store import File

FAMILIES = {"representation": "hpcgen.family.representation:RepresentationFamily"}


class Family(Protocol):
    """What the stages ask of a generator family.

    A family is fitted to the training split, then lives in the checkpoint as `state()`; sampling and
    reconstruction restore it with `from_state`, so that they can never run with other settings than training.
    """

    name: str
    sample_type: type  # the record type stored in samples.h5

    @classmethod
    def fit(cls, crystals: Sequence[Crystal], config: Config) -> Family:
        """Statistics, scalers and element list from the training split alone."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Family:
        """The family as `state()` saved it."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain numbers, text, lists, dicts and torch tensors: loads with `weights_only=True`."""
        ...

    def encode(self, crystals: Sequence[Crystal]) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
        """Network inputs (M', *shape) float32 of the crystals that can be encoded; (index, reason) of the others."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one network input."""
        ...

    def to_samples(self, ids: Sequence[str], x: NDArray[np.float32]) -> list[Any]:
        """Generated arrays (M, *shape) as records of `sample_type`: physical units, usable without the model."""
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
    raise ConfigError(f"train.family is {name!r}", expected=f"one of {', '.join(sorted({*FAMILIES, *external}))}")
