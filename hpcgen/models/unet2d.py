"""The 2-D U-Net with attention of PCCD (iScience 28, 111659), for arrays of three channels such as a point cloud's.

Layout (B, channels, P, K): the points are the long side, along which stages halve; the K columns stay as they are, for
they are x, y, z, or three elements, or three lattice parameters, and no neighbours in any picture. Convolutions are
3 x 3 and see three columns and three points at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError
from hpcgen.models.unet1d import ConditionEmbedding, ResnetBlock, TimeEmbedding, embed, group_norm


def build(config: ModelConfig, shape: tuple[int, ...], condition_width: int = 0) -> UNet2D:
    """The network for arrays of `shape` (channels, P, K), with conditions of `condition_width` numbers.

    Raises:
        ConfigError: if inputs have another number of dimensions, or the attention's width is no multiple of its heads.
    """
    if len(shape) != 3:
        raise ConfigError(f"model.name unet2d takes arrays of three dimensions, not inputs of shape {shape}")
    if config.attention_dim % config.attention_heads:
        raise ConfigError(
            f"model.attention_dim is {config.attention_dim}",
            expected=f"a multiple of model.attention_heads, {config.attention_heads}",
        )
    return UNet2D(
        shape,
        config.width,
        tuple(config.multipliers),
        config.resnet_blocks,
        config.attention_heads,
        config.attention_dim,
        condition_width,
    )


class ResnetBlock2d(ResnetBlock):
    """With 3 x 3 convolutions. (B, in, P, K), (B, D) -> (B, out, P, K)."""

    conv = point = nn.Conv2d


class Attention(nn.Module):
    """Every place of the array looks at all others, with a residual connection. (B, C, P, K) -> (B, C, P, K)."""

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * dim, 1, bias=False)
        self.out = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, points, columns = x.shape
        flat = self.qkv(self.norm(x)).reshape(batch, 3 * self.heads, -1, points * columns).transpose(2, 3)
        h = F.scaled_dot_product_attention(*flat.chunk(3, 1))
        return x + self.out(h.transpose(2, 3).reshape(batch, -1, points, columns))


class UNet2D(nn.Module):
    """(x (B, channels, P, K), t (B,), c (B, conditions)) -> (B, channels, P, K), for one shape.

    Args:
        shape: (channels, P, K); P any, it is padded inside to a multiple of the downsampling.
        width: channels of the first stage.
        multipliers: channels of each stage, in widths; 1, 2, 4, 8, 16 in the paper.
        blocks: ResNet blocks per stage, each way.
        heads: attention heads.
        attention_dim: width of the attention, all heads together.
        conditions: length of the condition vector; 0: the network takes none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int,
        multipliers: tuple[int, ...],
        blocks: int,
        heads: int,
        attention_dim: int,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        self.shape = shape
        channels_in, points, columns = shape
        self.padding = -points % 2 ** (len(multipliers) - 1)
        time_dim = 4 * width
        self.time = TimeEmbedding(width)
        # points and columns mean something by their place, which convolutions alone cannot tell
        self.position = nn.Parameter(torch.randn(width, points + self.padding, columns) * 0.02)
        self.first = nn.Conv2d(channels_in, width, 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        self.attention_down, self.attention_up = nn.ModuleList(), nn.ModuleList()
        channels = [width * m for m in multipliers]
        inside = width
        for i, c in enumerate(channels):
            sizes = [(inside, c)] + [(c, c)] * (blocks - 1)
            self.down.append(nn.ModuleList(ResnetBlock2d(*size, time_dim) for size in sizes))
            last = i == len(channels) - 1
            self.attention_down.append(_attention(i, c, heads, attention_dim))
            self.shrink.append(nn.Identity() if last else nn.Conv2d(c, c, (4, 3), stride=(2, 1), padding=1))
            inside = c
        self.middle1 = ResnetBlock2d(inside, inside, time_dim)
        self.middle_attention = Attention(inside, heads, attention_dim)
        self.middle2 = ResnetBlock2d(inside, inside, time_dim)
        for i, c in reversed(list(enumerate(channels))):
            last = i == len(channels) - 1
            self.grow.append(nn.Identity() if last else nn.Conv2d(inside, inside, 3, padding=1))
            sizes = [(inside + c, c)] + [(2 * c, c)] * (blocks - 1)
            self.up.append(nn.ModuleList(ResnetBlock2d(*size, time_dim) for size in sizes))
            self.attention_up.append(_attention(i, c, heads, attention_dim))
            inside = c
        self.last_block = ResnetBlock2d(2 * width, width, time_dim)
        self.last = nn.Conv2d(width, channels_in, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.condition = ConditionEmbedding(conditions, time_dim) if conditions else None

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"this network takes (B, {', '.join(map(str, self.shape))}), not {tuple(x.shape)}")
        time = embed(self.time(t), self.condition, c)
        points = x.shape[2]
        h = first = self.first(F.pad(x, (0, 0, 0, self.padding))) + self.position
        skips: list[Tensor] = []
        for blocks, attention, shrink in zip(self.down, self.attention_down, self.shrink, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)
                skips.append(h)
            h = shrink(attention(h))
        h = self.middle2(self.middle_attention(self.middle1(h, time)), time)
        for grow, blocks, attention in zip(self.grow, self.up, self.attention_up, strict=True):
            if not isinstance(grow, nn.Identity):
                h = grow(F.interpolate(h, scale_factor=(2.0, 1.0), mode="nearest"))
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], 1), time)
            h = attention(h)
        return self.last(self.last_block(torch.cat([h, first], 1), time))[:, :, :points]


def _attention(stage: int, channels: int, heads: int, dim: int) -> nn.Module:
    """Attention from the second stage on: on all places of the first it would cost as much as the rest together."""
    return Attention(channels, heads, dim) if stage else nn.Identity()
