"""A residual MLP for vectors whose neighbouring dimensions have nothing to do with each other.

Composition bits, lattice and descriptor components have no order that a convolution could use. Here every dimension
sees every other in each block, with one large matrix product in place of many small convolutions: per step and core
an order of magnitude faster than the U-Net on vectors of a few hundred dimensions. The input also reaches the output
directly, each dimension scaled by a function of the time: for independent Gaussian dimensions that alone is the best
estimate of noise or v, so that the blocks only have to learn what the dimensions say about each other.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError
from hpcgen.models.unet1d import ConditionEmbedding, TimeEmbedding, embed

TIME_WIDTH = 64


def build(config: ModelConfig, shape: tuple[int, ...], condition_width: int = 0) -> ResMLP:
    """The network for vectors of `shape` (L,): `config.width` hidden units, `config.resnet_blocks` blocks.

    Raises:
        ConfigError: if inputs are no vectors.
    """
    if len(shape) != 1:
        raise ConfigError(f"model.name resmlp takes vectors, not inputs of shape {shape}")
    return ResMLP(shape[0], config.width, config.resnet_blocks, condition_width)


class ResidualBlock(nn.Module):
    """h + W2 silu(W1 modulate(norm(h), time)), (B, width) -> (B, width); starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.time = nn.Linear(4 * TIME_WIDTH, 2 * width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(time).chunk(2, 1)
        return h + self.outer(F.silu(self.inner(self.norm(h) * (1 + scale) + shift)))


class ResMLP(nn.Module):
    """(x (B, L), t (B,), c (B, conditions)) -> (B, L).

    Args:
        length: L.
        width: hidden units.
        blocks: residual blocks.
        conditions: length of the condition vector; 0: the network takes none.
    """

    def __init__(self, length: int, width: int, blocks: int, conditions: int = 0) -> None:
        super().__init__()
        self.length = length
        self.time = TimeEmbedding(TIME_WIDTH)
        self.first = nn.Linear(length, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, length)
        self.skip = nn.Linear(4 * TIME_WIDTH, length)
        for layer in (self.last, self.skip):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.condition = ConditionEmbedding(conditions, 4 * TIME_WIDTH) if conditions else None

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.length:
            raise ValueError(f"this network takes (B, {self.length}), not {tuple(x.shape)}")
        time = F.silu(embed(self.time(t), self.condition, c))
        h = self.first(x)
        for block in self.blocks:
            h = block(h, time)
        return self.last(self.norm(h)) + self.skip(time) * x
