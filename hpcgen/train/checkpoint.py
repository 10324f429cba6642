"""Checkpoints: everything that sampling needs, in one file that loads without running code from it.

A dict of plain numbers, text, lists, dicts and tensors written by `torch.save` and read with `weights_only=True`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from hpcgen import __version__
from hpcgen.errors import CheckpointError

FORMAT = "hpcgen.checkpoint"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model as it was after `step` of `steps` optimiser steps.

    Attributes:
        family: name of the generator family.
        family_state: what the family was fitted to, as its `state()` gave it.
        shape: shape of one network input.
        config: the resolved configuration, YAML text.
        config_digest: digest of it.
        dataset_digest: content digest of the data set.
        step: optimiser steps done.
        steps: optimiser steps asked for.
        weights: the network after this step.
        ema: the moving average of the weights, which is what samples.
        lower: (*shape) lowest value of each dimension in the training inputs.
        upper: (*shape) highest value of each dimension in the training inputs.
        balance: the stage's balance, JSON.
        failures: [id, stage, kind, message] of the entries that could not be encoded.
        hpcgen_version: version that wrote it.
    """

    family: str
    family_state: dict[str, Any]
    shape: list[int]
    config: str
    config_digest: str
    dataset_digest: str
    step: int
    steps: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    lower: Tensor
    upper: Tensor
    balance: str
    failures: list[list[str]] = field(default_factory=list)
    hpcgen_version: str = __version__

    @property
    def finished(self) -> bool:
        """Whether training came to its last step."""
        return self.step >= self.steps


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a temporary name in the same folder, flushed, then renamed.

    Raises:
        TypeError: if something in it is not plain and so could not be read again without running code.
    """
    content = {f.name: _plain(getattr(checkpoint, f.name), f.name) for f in fields(checkpoint)}
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, "format_version": VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, *, family: str | None = None, config_digest: str | None = None) -> Checkpoint:
    """Read a checkpoint on the CPU and check that it is the one meant.

    Args:
        path: the file.
        family: the family that the configuration names; None takes any.
        config_digest: the configuration it must belong to; None takes any.

    Raises:
        CheckpointError: if it is missing, no checkpoint, truncated, of a newer version, of another family
            or of another configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", remedy="run `hpcgen train` first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError):
        # The reason is torch's advice to load with weights_only=False, which would run code from the file.
        raise CheckpointError(
            f"{path} cannot be read: it is truncated, no hpcgen checkpoint, or holds more than plain data",
            remedy="restore it, or move it away and train again",
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a torch file, but no hpcgen checkpoint", expected=f"format {FORMAT!r}")
    version = content.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, written by hpcgen {content.get('hpcgen_version', '(unknown)')}",
            expected=f"format {VERSION} or older (this is hpcgen {__version__})",
            remedy="install the newer hpcgen, or train again",
        )
    missing = [f.name for f in fields(Checkpoint) if f.name not in content]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}", remedy="train again")
    found = Checkpoint(**{f.name: content[f.name] for f in fields(Checkpoint)})
    if family is not None and found.family != family:
        raise CheckpointError(
            f"{path} holds a model of the family {found.family!r}",
            expected=f"{family!r}, as train.family says",
            remedy="use the configuration it was trained with, or another run folder",
        )
    if config_digest is not None and found.config_digest != config_digest:
        raise CheckpointError(
            f"{path} belongs to a run with configuration digest {found.config_digest}",
            expected=config_digest,
            remedy="use the configuration it was trained with, or another run folder",
        )
    return found


def _plain(value: Any, where: str) -> Any:
    """`value` with its tensors detached and on the CPU.

    Raises:
        TypeError: naming the place of what is not plain.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {_plain(k, f"a key of {where}"): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds numbers, text, lists, dicts and tensors")
