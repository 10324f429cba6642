"""A transformer over groups of neighbouring points of a cloud, conditioned as in DiT (arXiv 2212.09748), with a trunk.

The points of an atom lie side by side in the array, so what has to be found is where one atom ends and the next
begins, and what noise leaves of their common position. `patch` points are one token, which sees all others in every
block. Beside the tokens a residual MLP, the trunk, sees the array as one vector. Under much noise, where single points
say little, it learns faster what the array as a whole may be; under little noise the tokens average the points of an
atom, which it cannot. What it finds is added to the output and tells the tokens' blocks, as time and conditions do.
The input also reaches the output directly, scaled by a function of the time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError
from hpcgen.models.resmlp import TIME_WIDTH, ResidualBlock
from hpcgen.models.unet1d import ConditionEmbedding, TimeEmbedding, embed

TRUNK = 4  # width of the trunk in widths of a token


def build(config: ModelConfig, shape: tuple[int, ...], condition_width: int = 0) -> CloudTransformer:
    """The network for arrays of `shape` (channels, P, K): `config.resnet_blocks` blocks of `config.width` channels.

    Raises:
        ConfigError: if inputs have another number of dimensions, or the width is no multiple of the heads.
    """
    if len(shape) != 3:
        raise ConfigError(f"model.name transformer takes arrays of three dimensions, not inputs of shape {shape}")
    if config.width % config.attention_heads:
        raise ConfigError(
            f"model.width is {config.width}", expected=f"a multiple of model.attention_heads, {config.attention_heads}"
        )
    return CloudTransformer(
        shape, config.width, config.resnet_blocks, config.attention_heads, config.patch, condition_width
    )


class Block(nn.Module):
    """Attention, then an MLP, each scaled, shifted and gated by the time; starts as the identity. (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.time = nn.Linear(4 * TIME_WIDTH, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.time(time)[:, None].chunk(6, 2)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(h) * (1 + scale1) + shift1).chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + gate1 * self.out(seen)
        return h + gate2 * self.outer(F.gelu(self.inner(self.norm2(h) * (1 + scale2) + shift2)))


class CloudTransformer(nn.Module):
    """(x (B, channels, P, K), t (B,), c (B, conditions)) -> (B, channels, P, K), for one shape.

    Args:
        shape: (channels, P, K); P any, it is padded inside to a multiple of `patch`.
        width: channels of a token.
        blocks: of attention and MLP, and of the trunk.
        heads: of the attention.
        patch: points of a token.
        conditions: length of the condition vector; 0: the network takes none.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int, blocks: int, heads: int, patch: int, conditions: int = 0
    ) -> None:
        super().__init__()
        self.shape, self.patch = shape, patch
        channels, points, columns = shape
        self.padding = -points % patch
        tokens, numbers, known = (points + self.padding) // patch, patch * channels * columns, 4 * TIME_WIDTH
        self.time = TimeEmbedding(TIME_WIDTH)
        self.condition = ConditionEmbedding(conditions, known) if conditions else None
        self.trunk_first = nn.Linear(channels * points * columns, TRUNK * width)
        self.trunk = nn.ModuleList(ResidualBlock(TRUNK * width) for _ in range(blocks))
        self.trunk_norm = nn.LayerNorm(TRUNK * width)
        self.trunk_last = nn.Linear(TRUNK * width, channels * points * columns)
        self.told = nn.Linear(TRUNK * width, known)
        self.first = nn.Linear(numbers, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(known, 2 * width)
        self.last = nn.Linear(width, numbers)
        self.skip = nn.Linear(known, channels * columns)
        for layer in (self.last, self.skip, self.modulation, self.trunk_last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"this network takes (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        _, channels, points, columns = x.shape
        embedded = embed(self.time(t), self.condition, c)
        known = F.silu(embedded)
        whole = self.trunk_first(x.flatten(1))
        for block in self.trunk:
            whole = block(whole, known)
        whole = self.trunk_norm(whole)
        known = F.silu(embedded + self.told(whole))
        rows = F.pad(x.transpose(1, 2).flatten(2), (0, 0, 0, self.padding))
        h = self.first(rows.unflatten(1, (-1, self.patch)).flatten(2)) + self.position
        for block in self.blocks:
            h = block(h, known)
        scale, shift = self.modulation(known)[:, None].chunk(2, 2)
        out = self.last(self.norm(h) * (1 + scale) + shift).unflatten(2, (self.patch, channels, columns))
        out = out.flatten(1, 2)[:, :points].transpose(1, 2) + self.trunk_last(whole).view_as(x)
        return out + self.skip(known).unflatten(1, (channels, 1, columns)) * x
