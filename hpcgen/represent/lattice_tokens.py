"""Cells as whole numbers that are drawn one after the other, and back.

Real cells crowd at special values: right angles, equal lengths, prototypes that many compounds share. A model of
categories can be certain of such a value, given those before it, where a density in six dimensions smears it out.

    values (6,) = [log V/N, cos alpha, cos beta, cos gamma, log b/a, log c/b]      V in cubic angstrom, N atoms

The volume comes first: drawn last, after five others that have their errors, it was that of the commonest crystals too
often, and the densities of what is generated were too high.

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
from hpcgen.errors import StoreError
from hpcgen.represent.lattice import squared_share

BINS = 32  # a cosine is known to about 0.001, a length to about 0.1 %
VALUES = 6
VERSION = 2  # of the order; 1 had the volume last
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

        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("low", "high", "medians")}
        return {"version": VERSION, **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LatticeTokens:
        """As `state` gave it.

        Raises:
            StoreError: if the values were others.
        """
        version = int(state.get("version", 1))
        if version != VERSION:
            raise StoreError(
                f"the model draws the numbers of a cell in an order of version {version}",
                expected=f"version {VERSION}, which draws the volume first",
                remedy="train again, or use the hpcgen that trained it",
            )
        return cls(*(state[name].numpy() for name in ("low", "high", "medians")))


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
    """(M,) what value number `number` must be, the ones before it and some parameters of the cell being given.

    Args:
        number: 0 to 5.
        values: (M, 6), of which those before `number` count.
        fixed: (6,) a, b, c, alpha, beta, gamma, NaN where nothing is given.
        n_atoms: (M,)

    Returns:
        None where it is free. The volume is so as long as an angle is free, even where all lengths are given and
        `given_volume` will be the one that the cell has in the end.
    """
    if number == 0:
        whole = np.isfinite(fixed).all()
        cosines = np.broadcast_to(np.cos(np.radians(fixed[3:])), (len(values), 3))
        return given_volume(np.column_stack([np.zeros(len(values)), cosines]), fixed, n_atoms) if whole else None
    if number < 4:
        angle = fixed[2 + number]
        return np.full(len(values), np.cos(np.radians(angle))) if np.isfinite(angle) else None
    lengths = np.log(np.tile(fixed[:3], (len(values), 1)))
    known = np.isfinite(fixed[:3])
    total = values[:, 0] + np.log(n_atoms) - _log_share(values)  # log(a b c)
    if known.sum() == 2:
        lengths[:, ~known] = (total - lengths[:, known].sum(1))[:, None]
    elif known.sum() == 1 and number == 5:
        ratio = values[:, 4]  # log b/a
        if known[2]:
            lengths[:, 1] = (total - lengths[:, 2] + ratio) / 2
        else:
            a, b = (lengths[:, 0], lengths[:, 0] + ratio) if known[0] else (lengths[:, 1] - ratio, lengths[:, 1])
            lengths[:, 1], lengths[:, 2] = b, total - a - b
    value: FloatArray = lengths[:, number - 3] - lengths[:, number - 4]
    return value if np.isfinite(value).all() else None


def given_volume(values: FloatArray, fixed: FloatArray, n_atoms: NDArray[Any]) -> FloatArray:
    """(M,) log V/N of the cells whose lengths are given and whose angles are among the values."""
    volume: FloatArray = np.log(fixed[:3]).sum() + _log_share(values) - np.log(n_atoms)
    return volume


def _log_share(values: FloatArray) -> FloatArray:
    """(M,) log V / (a b c) by the angles of the values."""
    flat = np.column_stack([np.zeros(len(values)), values[:, 1:4], np.zeros((len(values), 2))])
    share: FloatArray = -3 * np.log(parameters_of(flat, np.ones(len(values)))[:, 0])  # of a cell of volume 1, a = b = c
    return share
