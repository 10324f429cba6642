"""Networks, by name. Each is called with (x (B, *shape), t (B,), c (B, condition_width)) and returns (B, *shape).

A network built without conditions takes c = None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcgen.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[[ModelConfig, tuple[int, ...], int], "nn.Module"]


def _unet1d(config: ModelConfig, shape: tuple[int, ...], condition_width: int) -> nn.Module:
    from hpcgen.models.unet1d import build

    return build(config, shape, condition_width)


def _resmlp(config: ModelConfig, shape: tuple[int, ...], condition_width: int) -> nn.Module:
    from hpcgen.models.resmlp import build

    return build(config, shape, condition_width)


def _unet2d(config: ModelConfig, shape: tuple[int, ...], condition_width: int) -> nn.Module:
    from hpcgen.models.unet2d import build

    return build(config, shape, condition_width)


def _transformer(config: ModelConfig, shape: tuple[int, ...], condition_width: int) -> nn.Module:
    from hpcgen.models.transformer import build

    return build(config, shape, condition_width)


MODELS: dict[str, Builder] = {
    "unet1d": _unet1d,
    "resmlp": _resmlp,
    "unet2d": _unet2d,
    "transformer": _transformer,
}


def build(config: ModelConfig, shape: tuple[int, ...], condition_width: int = 0) -> nn.Module:
    """The network that `config.name` names, for inputs of `shape`, with fresh weights from torch's global generator.

    Args:
        config: which network, and how large.
        shape: of one input.
        condition_width: length of the condition vector; 0: the network takes none.

    Raises:
        ConfigError: if no network has that name, or it cannot take inputs of this shape.
    """
    from hpcgen.errors import ConfigError

    if config.name not in MODELS:
        raise ConfigError(f"model.name is {config.name!r}", expected=f"one of {', '.join(sorted(MODELS))}")
    return MODELS[config.name](config, shape, condition_width)
