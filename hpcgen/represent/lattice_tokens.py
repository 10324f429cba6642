"""Cells as whole numbers that are drawn one after the other, and back.

Real cells crowd at special values: right angles, equal lengths, prototypes that many compounds share. A model of
categories can be certain of such a value, given those before it, where a density in six dimensions smears it out.

    values (6,) = [log V/N, cos alpha, cos beta, cos gamma, log b/a, log c/b]      V in cubic angstrom, N atoms

Crystals of one element are told apart by their volume above all, so there it is drawn first: after five numbers that
have their errors it was that of the commonest crystals too often. Of compounds the composition has nearly told it, and
the shape is right more often without it: there it comes last.

Each value is two tokens: which of `BINS` equal parts of the range of the training cells, and which of `BINS` parts of
that one. A token stands for the median of the training values in it, so that 90 degrees come back as 90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.lattice import squared_share

BINS = 32  # a cosine is known to about 0.001, a length to about 0.1 %
VALUES = 6
VOLUME_FIRST, VOLUME_LAST = (0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 0)  # in which the values are drawn
PLACES = 2 * VALUES
LEAST_RANGE = 0.01
FLATTEST = 1e-3  # degrees by which gamma is kept from where three angles are no cell any more
Tokens = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LatticeTokens:
    """Ranges and medians of the training cells.

    Attributes:
        low: (6,) lower ends of the ranges.
        high: (6,) upper ends.
        medians: (6, BINS^2) what each pair of tokens stands for.
        order: the values' numbers as they are drawn.
    """

    low: FloatArray
    high: FloatArray
    medians: FloatArray
    order: tuple[int, ...]

    @classmethod
    def fit(cls, crystals: Sequence[Crystal]) -> LatticeTokens:
        """Ranges and medians of these cells; the order follows from the number of their elements."""
        values = values_of(crystals)
        low, high = values.min(0), values.max(0)
        wider = np.maximum(LEAST_RANGE - (high - low), 0) / 2 + 1e-6
        low, high = low - wider, high + wider
        medians = low[:, None] + (high - low)[:, None] * (np.arange(BINS**2) + 0.5) / BINS**2
        elements = np.unique(np.concatenate([c.numbers for c in crystals]))
        found = cls(low, high, medians, VOLUME_FIRST if len(elements) == 1 else VOLUME_LAST)
        for row, numbers, column in zip(medians, found._fine(values).T, values.T, strict=True):
            for number in np.unique(numbers):
                row[number] = np.median(column[numbers == number])
        return found

    def tokens(self, values: FloatArray) -> Tokens:
        """(..., 6) values to (..., 12) tokens in the order of drawing, coarse and fine in turn.

        What lies outside the range is at its end, and what is NaN at its lower one.
        """
        fine = self._fine(values)[..., list(self.order)]
        return np.stack([fine // BINS, fine % BINS], axis=-1).reshape(*values.shape[:-1], PLACES)

    def _fine(self, values: FloatArray) -> Tokens:
        """(..., 6) parts of the ranges."""
        parts = (np.where(np.isnan(values), self.low, values) - self.low) / (self.high - self.low)
        return np.clip(parts * BINS**2, 0, BINS**2 - 1).astype(np.int64)

    def outside(self, number: int, values: FloatArray) -> FloatArray:
        """(M,) by how many fine tokens value (M,) number `number` lies outside the range; 0 within."""
        low, high = self.low[number], self.high[number]
        return np.maximum(np.maximum(low - values, values - high), 0.0) / (high - low) * BINS**2

    def value(self, number: int, coarse: Tokens, fine: Tokens) -> FloatArray:
        """(M,) what the two tokens (M,) of value number `number` stand for."""
        return self.medians[number][coarse * BINS + fine]

    def state(self) -> dict[str, Any]:
        """Tensors of ranges and medians, and the order."""
        import torch

        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("low", "high", "medians")}
        return {"order": list(self.order), **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LatticeTokens:
        """As `state` gave it. Before it gave an order, the values themselves were in that with the volume last."""
        low, high, medians = (state[name].numpy() for name in ("low", "high", "medians"))
        if "order" in state:
            return cls(low, high, medians, tuple(int(number) for number in state["order"]))
        back = np.argsort(VOLUME_LAST)
        return cls(low[back], high[back], medians[back], VOLUME_LAST)


def values_of(crystals: Sequence[Crystal]) -> FloatArray:
    """(M, 6) values of cells."""
    out = np.empty((len(crystals), VALUES))
    for row, crystal in zip(out, crystals, strict=True):
        a, b, c, *angles = crystal.parameters
        row[0] = np.log(crystal.volume / len(crystal))
        row[1:4] = np.cos(np.radians(angles))
        row[4:] = np.log(b / a), np.log(c / b)
    return out


def parameters_of(values: FloatArray, n_atoms: NDArray[Any]) -> FloatArray:
    """(M, 6) values and (M,) numbers of atoms to (M, 6) a, b, c (angstrom), alpha, beta, gamma (degrees).

    Where three angles do not go together, gamma is the nearest one that does.
    """
    angles = np.degrees(np.arccos(np.clip(values[:, 1:4], -1, 1)))
    alpha, beta, gamma = angles.T
    least, most = np.abs(alpha - beta) + FLATTEST, np.minimum(alpha + beta, 360 - alpha - beta) - FLATTEST
    angles[:, 2] = np.clip(gamma, least, most)
    lengths = np.exp(np.cumsum(np.column_stack([np.zeros(len(values)), values[:, 4:]]), axis=1))
    volume = np.exp(values[:, 0]) * n_atoms
    share = np.sqrt(np.maximum(squared_share(angles), np.finfo(float).tiny))
    scale = np.cbrt(volume / (lengths.prod(1) * share))
    return np.concatenate([lengths * scale[:, None], angles], axis=1)


def given_value(number: int, values: FloatArray, fixed: FloatArray, n_atoms: NDArray[Any]) -> FloatArray | None:
    """(M,) what value number `number` must be, those drawn before it and some parameters of the cell being given.

    Args:
        number: 0 to 5.
        values: (M, 6), NaN where they have not been drawn.
        fixed: (6,) a, b, c, alpha, beta, gamma, NaN where nothing is given.
        n_atoms: (M,)

    Returns:
        None where it is free. A volume that is drawn first is so as long as an angle is free, even where all lengths
        are given: asked for again when all angles are known, it is the one that the cell has.
    """
    if 1 <= number <= 3:
        angle = fixed[2 + number]
        return np.full(len(values), np.cos(np.radians(angle))) if np.isfinite(angle) else None
    a, b, c = np.log(np.tile(fixed[:3, None], len(values)))
    volume, ratio_ab, ratio_bc = values[:, [0, 4, 5]].T
    share = _log_share(np.where(np.isnan(values[:, 1:4]), np.cos(np.radians(fixed[3:])), values[:, 1:4]))
    total = volume + np.log(n_atoms) - share  # log(a b c)
    known = np.isfinite(fixed[:3])
    if known.sum() == 2:
        a, b, c = _first(a, total - b - c), _first(b, total - a - c), _first(c, total - a - b)
    b = _first(_first(b, a + ratio_ab), _first(c - ratio_bc, (total - c + ratio_ab) / 2))
    a = _first(a, b - ratio_ab)
    c = _first(_first(c, b + ratio_bc), total - a - b)
    value: FloatArray = {0: a + b + c + share - np.log(n_atoms), 4: b - a, 5: c - b}[number]
    return value if np.isfinite(value).all() else None


def _first(one: FloatArray, other: FloatArray) -> FloatArray:
    """`one` where it is known, else `other`."""
    return np.where(np.isfinite(one), one, other)


def _log_share(cosines: FloatArray) -> FloatArray:
    """(M,) log V / (a b c) of cosines (M, 3) of the angles, NaN where one of them is."""
    zero = np.zeros(len(cosines))
    equal = parameters_of(np.column_stack([zero, cosines, zero, zero]), np.ones(len(cosines)))
    share: FloatArray = -3 * np.log(equal[:, 0])  # of cells of volume 1 whose lengths are equal
    return share
