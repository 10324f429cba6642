"""Compositions as a categorical model: training data, the part that is trained, and drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.family.categories import choose, guided_logits
from hpcgen.family.element_properties import element_properties
from hpcgen.models.composition import ABSENT, SITES, CompositionNetwork
from hpcgen.represent.composition import species_channels

UNCONDITIONAL = 0.5  # share of the rows whose conditions are all dropped: a set of elements that is told leaves little


@dataclass(frozen=True)
class CompositionTokens:
    """Compositions as whole numbers: the index of the pattern of counts, and the index of each channel's element.

    Attributes:
        elements: (E) atomic numbers in channel order.
        patterns: (P) counts of each channel, zeros last; those of the training split, the most frequent first.
    """

    elements: tuple[int, ...]
    patterns: tuple[tuple[int, ...], ...]

    @classmethod
    def fit(cls, numbers: Sequence[ArrayLike], elements: tuple[int, ...], channels: int) -> CompositionTokens:
        """The patterns that occur."""
        counted = Counter(_counts(n, channels)[0] for n in numbers)
        return cls(elements, tuple(sorted(counted, key=lambda p: (-counted[p], p))))

    @property
    def channels(self) -> int:
        """C."""
        return len(self.patterns[0])

    def encode(self, numbers: Sequence[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts and elements (M, C) each, of crystals with the atomic numbers (n,).

        Elements are indices, `ABSENT` where a channel is not in use.

        Raises:
            ValueError: for an element outside `elements`, or too many elements.
        """
        counts = np.zeros((len(numbers), self.channels), dtype=np.int64)
        elements = np.full((len(numbers), self.channels), ABSENT, dtype=np.int64)
        index = {z: i for i, z in enumerate(self.elements)}
        for row, n in enumerate(numbers):
            pattern, present = _counts(n, self.channels)
            if strangers := [z for z in present if z not in index]:
                raise ValueError(f"elements {strangers} (Z) do not occur in the training split")
            counts[row] = pattern
            elements[row, : len(present)] = [index[z] for z in present]
        return counts, elements

    def tokens(self, counts: NDArray[np.int64], elements: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(M', 1 + C) float32 of those whose pattern is known, and (M,) which those are."""
        index = {pattern: i for i, pattern in enumerate(self.patterns)}
        pattern = np.array([index.get(tuple(c), -1) for c in counts.tolist()], dtype=np.int64).reshape(-1)
        known = pattern >= 0
        return np.concatenate([pattern[known, None], elements[known]], axis=1).astype(np.float32), known


class CompositionPart:
    """A `hpcgen.train.part.Part`: the categorical model of compositions, whose losses are negative log-likelihoods.

    Args:
        tokens: elements and patterns.
        layout: of the condition vector.
        width: hidden units.
        dropout: share of hidden units dropped in training.
    """

    name = "composition"
    select: Literal["last", "best"] = "best"  # of compositions there are few, and they are soon known by heart

    def __init__(self, tokens: CompositionTokens, layout: ConditionLayout, width: int, dropout: float) -> None:
        self.tokens, self.layout, self.width, self.dropout = tokens, layout, width, dropout

    def network(self) -> CompositionNetwork:
        """Fresh weights from torch's global generator."""
        properties = torch.from_numpy(element_properties()[list(self.tokens.elements)])
        return CompositionNetwork(self.tokens.patterns, properties, self.width, self.layout.width)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Which conditions (B, G) and which hidden units (B, SITES, width) are kept."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator, device=generator.device)

        groups = len(self.layout.groups)
        conditions = (uniform(groups) < 0.5) & (uniform(1) >= UNCONDITIONAL)
        return {"conditions": conditions, "units": uniform(SITES, self.width) >= self.dropout}

    def losses(self, network: nn.Module, rows: dict[str, Tensor], drawn: dict[str, Tensor]) -> Tensor:
        """(B,) negative log-likelihood, nats, of `x` (B, 1 + C) under `c` (B, Dc) with some conditions dropped."""
        c = self.layout.drop(rows["c"], drawn["conditions"]) if self.layout.width else None
        return network(rows["x"], c, drawn["units"] if network.training else None)

    def levels(self, drawn: dict[str, Tensor]) -> None:
        """There is no noise."""
        return None


@torch.no_grad()
def draw_tokens(
    network: nn.Module,
    layout: ConditionLayout,
    c: Tensor,
    uniform: Tensor,
    guidance: float,
    patterns: Tensor,
    wanted: Sequence[int] = (),
) -> Tensor:
    """(B, 1 + C) int64 compositions: pattern and elements, as in `CompositionTokens`.

    Args:
        network: a trained `CompositionNetwork`.
        layout: of the condition vectors.
        c: (B, Dc) condition vectors.
        uniform: (B, 1 + C) random numbers in [0, 1) that decide.
        guidance: w; log p is (1 + w) log p(x | c) - w log p(x).
        patterns: (P,) bool, which may be drawn.
        wanted: indices of the elements that must occur and no others; none: whatever comes.
    """
    net = cast(CompositionNetwork, network)
    asked = net.embed(c if layout.width else None, len(c))
    free = net.embed(layout.without(c), len(c)) if layout.width and guidance else None

    def drawn(logits: Callable[[Tensor], Tensor], number: Tensor) -> Tensor:
        return choose(guided_logits(logits(asked), None if free is None else logits(free), guidance), number)

    def of_pattern(conditions: Tensor) -> Tensor:
        return net.of_pattern(conditions).masked_fill(~patterns, -torch.inf)

    def of_element(conditions: Tensor, place: int) -> Tensor:
        return net.of_element(torch.tensor([place], device=c.device), pattern, elements, conditions)[:, 0]

    pattern = drawn(of_pattern, uniform[:, 0])
    elements = torch.full((len(c), net.channels), ABSENT, dtype=torch.long, device=c.device)
    for place in range(net.channels):
        if wanted:
            chosen = torch.full_like(pattern, wanted[place] if place < len(wanted) else ABSENT)
        else:
            chosen = drawn(partial(of_element, place=place), uniform[:, 1 + place])
        elements[:, place] = torch.where(net.used[pattern] > place, chosen, ABSENT)
    return torch.cat([pattern[:, None], elements], 1)


def _counts(numbers: ArrayLike, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Atoms of each channel, zeros last, and the elements present.

    Raises:
        ValueError: for more elements than channels.
    """
    species, present = species_channels(numbers)
    if len(present) > channels:
        raise ValueError(f"{len(present)} elements, and there are {channels} channels")
    return tuple(np.bincount(species, minlength=channels).tolist()), present
