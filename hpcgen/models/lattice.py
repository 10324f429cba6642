"""An autoregressive model of a few numbers: two tokens of each, given those before them and a condition.

    p(x | c) = prod_k p(token_k | token_1 ... token_{k-1}, c)

The tokens of a number say in which of `bins` parts of its range it lies, and in which of `bins` parts of that one. What
has been drawn is seen as sines and cosines of six frequencies, so that a small network can tell numbers apart that
hardly differ.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgen.models.resmlp import TIME_WIDTH, ResidualBlock

FREQUENCIES = 6


class LatticeNetwork(nn.Module):
    """(tokens (B, 2 V), places (B, Q), c (B, conditions)) -> (B,) mean negative log-likelihood of a token, nats.

    Args:
        values: V.
        bins: tokens to choose from at every place.
        width: hidden units.
        blocks: residual blocks.
        conditions: length of the condition vector.
    """

    frequencies: Tensor

    def __init__(self, values: int, bins: int, width: int, blocks: int, conditions: int) -> None:
        super().__init__()
        self.values, self.bins = values, bins
        frequencies = math.pi * 2.0 ** torch.arange(FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.condition = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width))
        self.before = nn.Linear(values * (2 + 2 * FREQUENCIES), width)
        self.coarse = nn.Embedding(values * bins, width)
        self.place = nn.Embedding(2 * values, width)
        self.modulation = nn.Embedding(2 * values, 4 * TIME_WIDTH)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * values * bins)

    def forward(self, tokens: Tensor, places: Tensor, c: Tensor, kept: Tensor | None = None) -> Tensor:
        """The mean over the places (B, Q); `kept` (B, 1 + blocks, width) bool are the units that are not dropped."""
        tokens, many = tokens.long(), places.shape[1]
        rows = tokens.repeat_interleave(many, 0)
        scale = None if kept is None else (kept / kept.float().mean()).repeat_interleave(many, 0)
        logits = self.logits(rows, places.flatten(), self.condition(c).repeat_interleave(many, 0), scale)
        wanted = rows.gather(1, places.flatten()[:, None])[:, 0]
        return F.cross_entropy(logits, wanted, reduction="none").reshape(-1, many).mean(1)

    def logits(self, tokens: Tensor, places: Tensor, embedded: Tensor, scale: Tensor | None = None) -> Tensor:
        """(B, bins) of the tokens at places (B,), given those before them and embedded conditions (B, width).

        `scale` (B, 1 + blocks, width) of the hidden units.
        """
        pairs = tokens.reshape(len(tokens), self.values, 2)
        value = places // 2
        seen = (torch.arange(self.values, device=tokens.device) < value[:, None]).to(embedded.dtype)
        x = (pairs[:, :, 0] * self.bins + pairs[:, :, 1] + 0.5) / self.bins**2
        waves = x[:, :, None] * self.frequencies
        waves = torch.cat([waves.sin(), waves.cos()], 2) * seen[:, :, None]
        coarse = tokens.gather(1, (2 * value)[:, None])[:, 0]
        if scale is not None:
            embedded = embedded * scale[:, 0]
        h = embedded + self.place(places) + self.before(torch.cat([x * seen, seen, waves.flatten(1)], 1))
        h = h + self.coarse(value * self.bins + coarse) * (places % 2)[:, None]
        modulation = self.modulation(places)
        for number, block in enumerate(self.blocks):
            h = block(h, modulation)
            if scale is not None:
                h = h * scale[:, 1 + number]
        logits: Tensor = self.out(self.norm(h)).reshape(len(tokens), 2 * self.values, self.bins)
        return logits.gather(1, places[:, None, None].expand(-1, 1, self.bins))[:, 0]
