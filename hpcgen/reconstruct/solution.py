"""What every solver returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcgen.crystal import FloatArray

StopReason = Literal["converged", "noise-floor", "budget"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The best atomic positions that a solver found for one target, and how it found them.

    Attributes:
        frac: (n, 3) fractional coordinates in the cell that was given, atoms in the order that was given.
        residual: |descriptor of the crystal - target| / |target|; the absolute amplitude for a zero target.
        iterations: work spent, in sweeps plus local iterations: never a time, so it is the same everywhere.
        stop_reason: `converged` (the tolerance was met), `noise-floor` (more work on this target is wasted)
            or `budget` (the work allowed is spent).
        confidence: share of the independent starts whose residual agrees with the best, 0-1; 0 if the best
            was reached only by improving an earlier one.
    """

    frac: FloatArray
    residual: float
    iterations: int
    stop_reason: StopReason
    confidence: float
