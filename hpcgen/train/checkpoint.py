"""checkpoint.pt: everything that sampling needs of a trained model, in one file. `plain.py` says how it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from hpcgen.errors import CheckpointError
from hpcgen.train import plain

FORMAT = "hpcgen.checkpoint"
VERSION = 2


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """One part of a generator as it was after `step` of `steps` optimiser steps.

    Attributes:
        shape: of one of its arrays.
        step: optimiser steps done.
        steps: optimiser steps asked for.
        weights: the network after this step.
        ema: the averaged weights, which are what samples: of the last step, or of `ema_step` before it.
        ema_step: the step whose averaged weights these are.
        lower: (*shape) lowest value of each dimension in the training inputs.
        upper: (*shape) highest value of each dimension in the training inputs.
    """

    shape: list[int]
    step: int
    steps: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    ema_step: int
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Origin:
    """What a model was trained as and on: a checkpoint of another origin is never taken for one's own.

    Attributes:
        family: name of the generator family.
        config_digest: digest of the configuration.
        dataset_digest: content digest of the data set.
    """

    family: str
    config_digest: str
    dataset_digest: str

    def refuse(self, path: Path, *, family: str | None, config_digest: str | None, dataset_digest: str | None) -> None:
        """Raise unless this origin is the one meant; None takes any.

        Raises:
            CheckpointError: naming what differs.
        """
        other = "use the configuration it was trained with, or another run folder"
        if family is not None and self.family != family:
            raise CheckpointError(
                f"{path} holds a model of the family {self.family!r}",
                expected=f"{family!r}, as train.family says",
                remedy=other,
            )
        if config_digest is not None and self.config_digest != config_digest:
            raise CheckpointError(
                f"{path} belongs to a run with configuration digest {self.config_digest}",
                expected=config_digest,
                remedy=other,
            )
        if dataset_digest is not None and self.dataset_digest != dataset_digest:
            raise CheckpointError(
                f"{path} was trained on other data: content digest {self.dataset_digest}",
                expected=f"{dataset_digest}, that of dataset.h5",
                remedy="move it away, or use another run folder",
            )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model.

    Attributes:
        family: name of the generator family.
        family_state: what the family was fitted to, as its `state()` gave it.
        config: the resolved configuration, YAML text.
        config_digest: digest of it.
        dataset_digest: content digest of the data set.
        parts: the networks by the names of their parts, in the order they sample in.
        balance: the stage's balance, JSON.
        failures: [id, stage, kind, message] of the entries that could not be encoded.
    """

    family: str
    family_state: dict[str, Any]
    config: str
    config_digest: str
    dataset_digest: str
    parts: dict[str, TrainedPart]
    balance: str
    failures: list[list[str]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether the training of every part came to its last step."""
        return all(part.step >= part.steps for part in self.parts.values())


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically.

    Raises:
        TypeError: if something in it is not plain.
        StoreError: if it cannot be written.
    """
    parts = {name: vars(part) for name, part in checkpoint.parts.items()}
    plain.write(path, FORMAT, VERSION, vars(checkpoint) | {"parts": parts})


def load(
    path: Path, *, family: str | None = None, config_digest: str | None = None, dataset_digest: str | None = None
) -> Checkpoint:
    """Read a checkpoint on the CPU and check that it is the one meant.

    Args:
        path: the file.
        family: the family that the configuration names; None takes any.
        config_digest: the configuration it must belong to; None takes any.
        dataset_digest: the data set it must be trained on; None takes any.

    Raises:
        CheckpointError: if it is missing, no checkpoint, damaged, of another version, of another family, of another
            configuration, or trained on other data.
    """
    content = plain.read(path, FORMAT, VERSION)
    missing = [f.name for f in fields(Checkpoint) if f.name not in content]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}", remedy="train again")
    parts = {name: TrainedPart(**part) for name, part in content["parts"].items()}
    found = Checkpoint(**{f.name: content[f.name] for f in fields(Checkpoint)} | {"parts": parts})
    origin = Origin(found.family, found.config_digest, found.dataset_digest)
    origin.refuse(path, family=family, config_digest=config_digest, dataset_digest=dataset_digest)
    return found
