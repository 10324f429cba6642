"""An autoregressive model of compositions: which pattern of counts, then the element of each channel in turn.

    p(counts, e_1 ... e_k | c) = p(counts | c)  prod_i p(e_i | counts, e_1 ... e_{i-1}, c)

A pattern is the number of atoms in each species channel, and fixes the number of atoms. Elements rise in channel order
(electronegativity, Z), so that each set of elements has one order, and every draw is a composition. An element is
known by its chemical properties and by an embedding of its own, on the way in and, as logits, on the way out: what is
learned of one element helps with its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING = 64  # numbers that stand for an element
SITES = 3  # places where units are dropped in training
ABSENT = -1  # element of a channel that is not in use


class CompositionNetwork(nn.Module):
    """(x (B, 1 + C), c (B, conditions)) -> (B,) negative log-likelihood in nats.

    `x` holds the index of the pattern and the index of each channel's element, `ABSENT` where the channel is not used.

    Args:
        patterns: (P, C) whole numbers, the counts of each pattern, zeros last.
        properties: (E, Q) properties of the elements, in channel order.
        width: hidden units.
        conditions: length of the condition vector; 0: none.
    """

    patterns: Tensor
    properties: Tensor
    used: Tensor

    def __init__(self, patterns: Sequence[Sequence[int]], properties: Tensor, width: int, conditions: int) -> None:
        super().__init__()
        counts = torch.tensor(patterns, dtype=torch.long)
        self.register_buffer("patterns", counts, persistent=False)
        self.register_buffer("properties", properties.float(), persistent=False)
        self.register_buffer("used", (counts > 0).sum(1), persistent=False)
        self.channels, n_elements = counts.shape[1], len(properties)
        self.condition = nn.Linear(conditions, width) if conditions else None
        self.start = nn.Parameter(torch.zeros(width))
        self.pattern_hidden = nn.Linear(width, width)
        self.pattern_logits = nn.Linear(width, len(counts))
        self.pattern = nn.Embedding(len(counts), width)
        self.counts = nn.Linear(2 * self.channels, width)
        self.place = nn.Embedding(self.channels, width)
        self.element = nn.Embedding(n_elements, EMBEDDING)
        self.chemistry = nn.Linear(properties.shape[1], EMBEDDING)
        self.before = nn.Linear(self.channels * EMBEDDING, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(2)
        )
        self.out = nn.Linear(width, EMBEDDING)
        self.bias = nn.Parameter(torch.zeros(n_elements))
        for embedding in (self.pattern, self.place, self.element):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, x: Tensor, c: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """(B,) negative log-likelihood; `kept` (B, SITES, width) bool are the units that are not dropped."""
        pattern, elements = x[:, 0].long(), x[:, 1:].long()
        scale = None if kept is None else kept / kept.float().mean()
        asked = self.embed(c, len(x))
        nll = F.cross_entropy(self.of_pattern(asked, scale), pattern, reduction="none")
        places = torch.arange(self.channels, device=x.device)
        logits = self.of_element(places, pattern, elements, asked, scale).flatten(0, 1)
        of_each = F.cross_entropy(logits, elements.flatten(), reduction="none", ignore_index=ABSENT)
        return nll + of_each.reshape(len(x), -1).sum(1)

    def embed(self, c: Tensor | None, batch: int) -> Tensor:
        """(B, width) of conditions (B, Dc), or of a batch of B without any."""
        return self.start.expand(batch, -1) if self.condition is None or c is None else self.start + self.condition(c)

    def of_pattern(self, asked: Tensor, scale: Tensor | None = None) -> Tensor:
        """Logits (B, P), given the embedded conditions; `scale` (B, SITES, width) of the hidden units."""
        h = F.silu(asked)
        h = F.silu(self.pattern_hidden(h if scale is None else h * scale[:, 0]))
        return self.pattern_logits(h)

    def of_element(
        self, places: Tensor, pattern: Tensor, elements: Tensor, asked: Tensor, scale: Tensor | None = None
    ) -> Tensor:
        """Logits (B, Q, E) of the elements in the channels `places` (Q,), each given those in the channels before it.

        Elements that are not above the one before are excluded, and those that would leave too few for the channels
        that follow. Where a channel is not in use the logits mean nothing.
        """
        embedded = self.element.weight + self.chemistry(self.properties)
        before = torch.arange(self.channels, device=places.device) < places[:, None]
        earlier = (F.embedding(elements.clamp(min=0), embedded)[:, None] * before[:, :, None]).flatten(2)
        counts = self.patterns[pattern]
        shares = torch.cat([counts / counts.sum(1, keepdim=True), (counts + 1).log()], 1)
        h = (asked + self.pattern(pattern) + self.counts(shares))[:, None] + self.place(places) + self.before(earlier)
        for number, block in enumerate(self.blocks):
            h = h + block(h if scale is None else h * scale[:, 1 + number, None])
        logits = self.out(F.silu(h)) @ embedded.T + self.bias
        index = torch.arange(logits.shape[2], device=places.device)
        lowest = F.pad(elements, (1, 0), value=ABSENT)[:, places]
        left = self.used[pattern][:, None] - places
        allowed = (index > lowest[:, :, None]) & (index <= (len(index) - left)[:, :, None])
        return logits.masked_fill(~(allowed | (left <= 0)[:, :, None]), -torch.inf)
