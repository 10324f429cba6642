"""Cells as whole numbers that are drawn one after the other, and back.

Real cells crowd at special values: right angles, equal lengths, prototypes that many compounds share. A model of
categories can be certain of such a value, given those before it, where a density in six dimensions smears it out.

    values (6,) = [cos alpha, cos beta, cos gamma, log b/a, log c/b, log V/N]      V in cubic angstrom, N atoms

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
    """

    low: FloatArray
    high: FloatArray
    medians: FloatArray

    @classmethod
    def fit(cls, crystals: Sequence[Crystal]) -> LatticeTokens:
        """Ranges and medians of these cells."""
        values = values_of(crystals)
        low, high = values.min(0), values.max(0)
        wider = np.maximum(LEAST_RANGE - (high - low), 0) / 2 + 1e-6
        low, high = low - wider, high + wider
        medians = low[:, None] + (high - low)[:, None] * (np.arange(BINS**2) + 0.5) / BINS**2
        found = cls(low, high, medians)
        fine = found.tokens(values) @ np.kron(np.eye(VALUES, dtype=np.int64), [[BINS], [1]])
        for row, numbers, column in zip(medians, fine.T, values.T, strict=True):
            for number in np.unique(numbers):
                row[number] = np.median(column[numbers == number])
        return found

    def tokens(self, values: FloatArray) -> Tokens:
        """(..., 6) values to (..., 12) tokens, coarse and fine in turn; what lies outside the range is at its end."""
        fine = np.clip((values - self.low) / (self.high - self.low) * BINS**2, 0, BINS**2 - 1).astype(np.int64)
        return np.stack([fine // BINS, fine % BINS], axis=-1).reshape(*values.shape[:-1], PLACES)

    def outside(self, number: int, values: FloatArray) -> FloatArray:
        """(M,) by how many fine tokens value (M,) number `number` lies outside the range; 0 within."""
        low, high = self.low[number], self.high[number]
        return np.maximum(np.maximum(low - values, values - high), 0.0) / (high - low) * BINS**2

    def value(self, number: int, coarse: Tokens, fine: Tokens) -> FloatArray:
        """(M,) what the two tokens (M,) of value number `number` stand for."""
        return self.medians[number][coarse * BINS + fine]

    def state(self) -> dict[str, Any]:
        """Tensors of ranges and medians."""
        import torch

        return {name: torch.from_numpy(getattr(self, name)) for name in ("low", "high", "medians")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LatticeTokens:
        """As `state` gave it."""
        return cls(*(state[name].numpy() for name in ("low", "high", "medians")))


def values_of(crystals: Sequence[Crystal]) -> FloatArray:
    """(M, 6) values of cells."""
    out = np.empty((len(crystals), VALUES))
    for row, crystal in zip(out, crystals, strict=True):
        a, b, c, *angles = crystal.parameters
        row[:3] = np.cos(np.radians(angles))
        row[3:] = np.log(b / a), np.log(c / b), np.log(crystal.volume / len(crystal))
    return out


def parameters_of(values: FloatArray, n_atoms: NDArray[Any]) -> FloatArray:
    """(M, 6) values and (M,) numbers of atoms to (M, 6) a, b, c (angstrom), alpha, beta, gamma (degrees).

    Where three angles do not go together, gamma is the nearest one that does.
    """
    angles = np.degrees(np.arccos(np.clip(values[:, :3], -1, 1)))
    alpha, beta, gamma = angles.T
    least, most = np.abs(alpha - beta) + FLATTEST, np.minimum(alpha + beta, 360 - alpha - beta) - FLATTEST
    angles[:, 2] = np.clip(gamma, least, most)
    lengths = np.exp(np.cumsum(np.column_stack([np.zeros(len(values)), values[:, 3:5]]), axis=1))
    volume = np.exp(values[:, 5]) * n_atoms
    share = np.sqrt(np.maximum(squared_share(angles), np.finfo(float).tiny))
    scale = np.cbrt(volume / (lengths.prod(1) * share))
    return np.concatenate([lengths * scale[:, None], angles], axis=1)


def given_value(number: int, values: FloatArray, fixed: FloatArray, n_atoms: NDArray[Any]) -> FloatArray | None:
    """(M,) what value number `number` must be, the ones before it and some parameters of the cell being given.

    Args:
        number: 0 to 5.
        values: (M, 6), of which those before `number` count.
        fixed: (6,) a, b, c, alpha, beta, gamma, NaN where nothing is given.
        n_atoms: (M,)

    Returns:
        None where it is free.
    """
    lengths = np.log(fixed[:3])
    if number < 3:
        return np.full(len(values), np.cos(np.radians(fixed[3 + number]))) if np.isfinite(fixed[3 + number]) else None
    if number == 3:
        ratio = np.full(len(values), lengths[1] - lengths[0])
    elif number == 4:
        through_b, through_a = lengths[2] - lengths[1], lengths[2] - lengths[0] - values[:, 3]
        ratio = np.full(len(values), through_b) if np.isfinite(through_b) else through_a
    else:
        known = np.flatnonzero(np.isfinite(lengths))
        if not len(known):
            return None
        unit = parameters_of(np.column_stack([values[:, :5], np.zeros(len(values))]), np.ones(len(values)))
        return 3 * (lengths[known[0]] - np.log(unit[:, known[0]])) - np.log(n_atoms)
    return ratio if np.isfinite(ratio).all() else None
