"""The 1-D U-Net of StructRepDiff (arXiv 2408.07213): convolutions along the dimensions of the vector.

Each stage has ResNet blocks of weight-standardised convolution, GroupNorm and SiLU; between stages there are linear
attention, down- or upsampling by 2, and skip connections. Neighbouring dimensions of the vector mean different
things at different places, so every position also has a learned embedding: without it the convolutions would have to
treat the lattice and the descriptor alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError


def build(config: ModelConfig, shape: tuple[int, ...], condition_width: int = 0) -> UNet1D:
    """The network for vectors of `shape` (L,), with conditions of `condition_width` numbers.

    Raises:
        ConfigError: if inputs are no vectors, or the attention's width is no multiple of its heads.
    """
    if len(shape) != 1:
        raise ConfigError(f"model.name unet1d takes vectors, not inputs of shape {shape}")
    if config.attention_dim % config.attention_heads:
        raise ConfigError(
            f"model.attention_dim is {config.attention_dim}",
            expected=f"a multiple of model.attention_heads, {config.attention_heads}",
        )
    return UNet1D(
        shape[0],
        config.width,
        tuple(config.multipliers),
        config.resnet_blocks,
        config.attention_heads,
        config.attention_dim,
        config.patch,
        condition_width,
    )


class WSConv1d(nn.Conv1d):
    """Convolution whose kernels are standardised: mean 0, variance 1 per output channel (arXiv 1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2), keepdim=True, correction=0)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding)


def group_norm(channels: int) -> nn.GroupNorm:
    """Eight groups, fewer where a group would hold less than four channels: one alone would lose its level."""
    return nn.GroupNorm(math.gcd(8, channels, max(1, channels // 4)), channels)


class TimeEmbedding(nn.Module):
    """Sinusoids of the time, (B,) -> (B, 4 width), through two linear layers (arXiv 1706.03762, section 3.5)."""

    frequency: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = max(width // 2, 2)
        frequency = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequency", frequency, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * half, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None].to(self.frequency.dtype) * self.frequency
        return self.mlp(torch.cat([phase.sin(), phase.cos()], -1))


class ConditionEmbedding(nn.Module):
    """Conditions (B, inside), through a hidden layer, as what is added to the time's embedding (B, outside)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.inside = inside
        self.mlp = nn.Sequential(nn.Linear(inside, outside), nn.SiLU(), nn.Linear(outside, outside))

    def forward(self, c: Tensor) -> Tensor:
        return self.mlp(c)


def embed(time: Tensor, condition: ConditionEmbedding | None, c: Tensor | None) -> Tensor:
    """The embedding (B, D) of time and conditions together.

    Raises:
        ValueError: if the network was built for conditions and has none, or the other way round.
    """
    width = 0 if condition is None else condition.inside
    if (0 if c is None else c.shape[1]) != width:
        raise ValueError(f"this network takes {width} conditions, not {'none' if c is None else c.shape[1]}")
    return time if condition is None or c is None else time + condition(c)


class ResnetBlock(nn.Module):
    """Two convolutions; the time scales and shifts the first one's output.

    (B, in, *places), (B, 4 width) -> (B, out, *places), with `conv` and, where widths differ, `point` on the skip.
    """

    conv: type[nn.Conv1d | nn.Conv2d] = WSConv1d
    point: type[nn.Conv1d | nn.Conv2d] = nn.Conv1d

    def __init__(self, inside: int, outside: int, time_dim: int) -> None:
        super().__init__()
        self.time = nn.Linear(time_dim, 2 * outside)
        self.conv1, self.norm1 = self.conv(inside, outside, 3, padding=1), group_norm(outside)
        self.conv2, self.norm2 = self.conv(outside, outside, 3, padding=1), group_norm(outside)
        self.skip = self.point(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        places = (1,) * (x.ndim - 2)
        scale, shift = self.time(F.silu(time)).unflatten(1, (-1, *places)).chunk(2, 1)
        h = F.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        return F.silu(self.norm2(self.conv2(h))) + self.skip(x)


class LinearAttention(nn.Module):
    """Attention at a cost linear in L (arXiv 1812.01243), with a residual connection. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * dim, 1, bias=False)
        self.out = nn.Sequential(nn.Conv1d(dim, channels, 1), group_norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, length = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, 3 * self.heads, -1, length).chunk(3, 1)
        q, k = q.softmax(2) * q.shape[2] ** -0.5, k.softmax(3)
        context = k @ v.transpose(2, 3)
        return x + self.out((context.transpose(2, 3) @ q).reshape(batch, -1, length))


class Grow(nn.Module):
    """Twice as many positions: each is repeated, then convolved. (B, C, L) -> (B, C, 2 L)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet1D(nn.Module):
    """(x (B, L), t (B,), c (B, conditions)) -> (B, L), for the one length L it was made for.

    Args:
        length: L; any, it is padded inside to a multiple of patch and downsampling.
        width: channels of the first stage.
        multipliers: channels of each stage, in widths.
        blocks: ResNet blocks per stage, each way.
        heads: attention heads.
        attention_dim: width of the attention, all heads together.
        patch: neighbouring dimensions that enter as the channels of one position; 1 in the paper.
        conditions: length of the condition vector; 0: the network takes none.
    """

    def __init__(
        self,
        length: int,
        width: int,
        multipliers: tuple[int, ...],
        blocks: int,
        heads: int,
        attention_dim: int,
        patch: int = 1,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        self.length, self.patch = length, patch
        self.padding = -length % (patch * 2 ** (len(multipliers) - 1))
        time_dim = 4 * width
        self.time = TimeEmbedding(width)
        self.position = nn.Parameter(torch.randn(width, (length + self.padding) // patch) * 0.02)
        self.first = nn.Conv1d(patch, width, 7, padding=3)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        self.attention_down, self.attention_up = nn.ModuleList(), nn.ModuleList()
        channels = [width * m for m in multipliers]
        inside = width
        for i, c in enumerate(channels):
            sizes = [(inside, c)] + [(c, c)] * (blocks - 1)
            self.down.append(nn.ModuleList(ResnetBlock(*size, time_dim) for size in sizes))
            # The deepest stage is not shrunk: the paper counts stages, not halvings.
            last = i == len(channels) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv1d(c, c, 4, stride=2, padding=1))
            self.attention_down.append(LinearAttention(c, heads, attention_dim))
            inside = c
        self.middle = nn.ModuleList(ResnetBlock(inside, inside, time_dim) for _ in range(blocks))
        for i, c in reversed(list(enumerate(channels))):
            last = i == len(channels) - 1
            self.attention_up.append(LinearAttention(inside, heads, attention_dim))
            self.grow.append(nn.Identity() if last else Grow(inside))
            # Every block of the way up sees the output of its partner of the way down, as in DDPM's U-Net.
            sizes = [(inside + c, c)] + [(2 * c, c)] * (blocks - 1)
            self.up.append(nn.ModuleList(ResnetBlock(*size, time_dim) for size in sizes))
            inside = c
        self.last_block = ResnetBlock(2 * width, width, time_dim)
        self.last = nn.Conv1d(width, patch, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.condition = ConditionEmbedding(conditions, time_dim) if conditions else None

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.length:
            raise ValueError(f"this network takes (B, {self.length}), not {tuple(x.shape)}")
        time = embed(self.time(t), self.condition, c)
        patches = F.pad(x, (0, self.padding)).reshape(len(x), -1, self.patch).transpose(1, 2)
        h = first = self.first(patches) + self.position
        skips: list[Tensor] = []
        for blocks, shrink, attention in zip(self.down, self.shrink, self.attention_down, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)
                skips.append(h)
            h = attention(shrink(h))
        for block in self.middle:
            h = block(h, time)
        for attention, grow, blocks in zip(self.attention_up, self.grow, self.up, strict=True):
            h = grow(attention(h))
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], 1), time)
        h = self.last(self.last_block(torch.cat([h, first], 1), time))
        return h.transpose(1, 2).reshape(len(x), -1)[:, : self.length]
