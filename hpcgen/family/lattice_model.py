"""Cells given the composition as a categorical model: the part that is trained, and drawing from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcgen.crystal import FloatArray
from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.diffusion.part import draw_kept
from hpcgen.family.categories import choose, guided_logits
from hpcgen.models.lattice import LatticeNetwork
from hpcgen.represent.lattice_tokens import BINS, PLACES, VALUES, LatticeTokens, given_value

LOOKED_AT = 4  # tokens of each row in a step of training: the others would cost more than they teach
TRIES = 32  # cells drawn for each sample where some parameters are given


class LatticePart:
    """A `hpcgen.train.part.Part`: the categorical model of cells, whose losses are negative log-likelihoods.

    Args:
        layout: of the condition vector: columns that are asked for, and the composition.
        width: hidden units.
        blocks: residual blocks.
        dropout: share of hidden units dropped in training.
        unconditional: share of the rows that see no columns, for classifier-free guidance.
    """

    name = "lattice"
    select: Literal["last", "best"] = "last"  # right cells get more for long after the likelihood has begun to fall

    def __init__(self, layout: ConditionLayout, width: int, blocks: int, dropout: float, unconditional: float) -> None:
        self.layout, self.width, self.blocks = layout, width, blocks
        self.dropout, self.unconditional = dropout, unconditional

    def network(self) -> LatticeNetwork:
        """Fresh weights from torch's global generator."""
        return LatticeNetwork(VALUES, BINS, self.width, self.blocks, self.layout.width)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Which tokens (B, LOOKED_AT) are looked at, and which conditions (B, G) and units (B, S, width) are kept."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator, device=generator.device)

        places = uniform(PLACES).argsort(1)[:, :LOOKED_AT].contiguous()
        kept = draw_kept(batch, len(self.layout.groups), self.unconditional, generator)
        return {"places": places, "kept": kept, "units": uniform(1 + self.blocks, self.width) >= self.dropout}

    def losses(self, network: nn.Module, rows: dict[str, Tensor], drawn: dict[str, Tensor]) -> Tensor:
        """(B,) nats a token of `x` (B, 12) under `c` (B, Dc) with some conditions dropped."""
        c = self.layout.drop(rows["c"], drawn["kept"])
        return network(rows["x"], drawn["places"], c, drawn["units"] if network.training else None)

    def levels(self, drawn: dict[str, Tensor]) -> None:
        """There is no noise."""
        return None


@dataclass(frozen=True, eq=False)
class Cells:
    """Draws cells from a trained network.

    Attributes:
        network: in evaluation mode.
        layout: of the condition vectors.
        tokens: of the family.
        guidance: w; log p is (1 + w) log p(x | c) - w log p(x).
    """

    network: nn.Module
    layout: ConditionLayout
    tokens: LatticeTokens
    guidance: float

    @torch.no_grad()
    def draw(
        self, c: Tensor, n_atoms: NDArray[np.int64], fixed: FloatArray, generators: Sequence[torch.Generator]
    ) -> FloatArray:
        """(B, 6) values as in `hpcgen.represent.lattice_tokens`.

        Where parameters are given, what follows from them and from the values before is not drawn. Of `TRIES` such
        cells one is chosen, with weights by which the values before fit what is given, too (sampling by importance).

        Args:
            c: (B, Dc) condition vectors, on the network's device.
            n_atoms: (B,)
            fixed: (6,) a, b, c (angstrom), alpha, beta, gamma (degrees), NaN where nothing is given.
            generators: one for each row, on the CPU; rows beyond them are padding.
        """
        net = cast(LatticeNetwork, self.network)
        asked = net.condition(c)
        free = net.condition(self.layout.without(c)) if self.guidance and self.layout.groups else None
        tries = TRIES if np.isfinite(fixed).any() else 1
        uniform = torch.zeros(len(c), tries, PLACES + 1, dtype=torch.float64)
        for row, generator in zip(uniform, generators, strict=False):
            row.uniform_(generator=generator)
        found = [self._one(asked, free, n_atoms, fixed, uniform[:, k]) for k in range(tries)]
        values, weight = (np.stack(x, axis=1) for x in zip(*found, strict=True))  # (B, tries, 6), (B, tries)
        # the largest of log w - log(-log u) is a draw from w, and u = 0 is as good as any other
        gumbel = -np.log(-np.log(np.clip(uniform[:, :, PLACES].numpy(), 1e-300, 1 - 1e-16)))
        chosen = np.argmax(weight + gumbel, axis=1)
        picked: FloatArray = values[np.arange(len(values)), chosen]
        return picked

    def _one(
        self, asked: Tensor, free: Tensor | None, n_atoms: NDArray[np.int64], fixed: FloatArray, uniform: Tensor
    ) -> tuple[FloatArray, FloatArray]:
        """Values (B, 6) of one try, NaN where the network's output is, and the logarithm (B,) of its weight.

        The weight is the probability of the values by that with which those not given were drawn.
        """
        tokens = torch.zeros(len(asked), PLACES, dtype=torch.long, device=asked.device)
        values, weight = np.full((len(asked), VALUES), np.nan), np.zeros(len(asked))
        lost = np.zeros(len(asked), dtype=bool)
        for place in range(PLACES):
            number = self.tokens.order[place // 2]
            p = self._log_p(tokens, place, asked, free)
            lost |= ~torch.isfinite(p).all(1).cpu().numpy()
            given = given_value(number, values, fixed, n_atoms)
            if given is None:
                tokens[:, place] = choose(p, uniform[:, place].to(p))
                weight -= _of(p, tokens[:, place])
            else:
                values[:, number] = given
                tokens[:, place] = torch.from_numpy(self.tokens.tokens(values)[:, place]).to(tokens)
            if given is None and place % 2:
                coarse, fine = tokens[:, place - 1].cpu().numpy(), tokens[:, place].cpu().numpy()
                values[:, number] = self.tokens.value(number, coarse, fine)
        if np.isfinite(fixed[:3]).all():  # a volume drawn first was a guess, which the angles have followed
            values[:, 0] = given_value(0, values, fixed, n_atoms)
            tokens = torch.from_numpy(self.tokens.tokens(values)).to(tokens)
        if np.isfinite(fixed).any():
            weight += self._likelihood(values, tokens, asked, free)
        values[lost] = np.nan
        return values, weight

    def _likelihood(self, values: FloatArray, tokens: Tensor, asked: Tensor, free: Tensor | None) -> FloatArray:
        """(B,) log-likelihoods of values (B, 6) and their tokens (B, 12)."""
        total = np.zeros(len(values))
        for place in range(PLACES):
            total += _of(self._log_p(tokens, place, asked, free), tokens[:, place])
        for number in range(VALUES):  # no training cell is so: the nearer, the better
            total -= 2 * self.tokens.outside(number, values[:, number])
        return total

    def _log_p(self, tokens: Tensor, place: int, asked: Tensor, free: Tensor | None) -> Tensor:
        """(B, bins) log-probabilities of the tokens at a place, given those before it."""
        net = cast(LatticeNetwork, self.network)
        at = torch.full((len(asked),), place, device=asked.device)
        without = None if free is None else net.logits(tokens, at, free)
        return guided_logits(net.logits(tokens, at, asked), without, self.guidance).log_softmax(1)


def _of(log_p: Tensor, tokens: Tensor) -> FloatArray:
    """(B,) log-probabilities of tokens (B,)."""
    found: FloatArray = log_p.gather(1, tokens[:, None])[:, 0].double().cpu().numpy()
    return found
