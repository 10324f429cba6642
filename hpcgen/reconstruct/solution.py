"""The protocol of solvers: what every one is asked, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.crystal import FloatArray

StopReason = Literal["converged", "noise-floor", "budget"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The best atomic positions that a solver found for one target, and how it found them.

    Attributes:
        frac: (n, 3) fractional coordinates in the cell that was given, atoms in the order that was given.
        residual: |descriptor of the crystal - target| / |target|; the absolute amplitude for a zero target.
        blocks: for each block of the descriptor, |difference in the block| / |target|; the squares of all blocks
            sum to that of `residual`.
        iterations: work spent, in sweeps plus local iterations: never a time, so it is the same everywhere.
        stop_reason: `converged` (the tolerance was met), `noise-floor` (more work on this target is wasted)
            or `budget` (the work allowed is spent).
        confidence: share of the independent starts whose residual agrees with the best, 0-1; 0 if the best
            was reached only by improving an earlier one.
        trace: (k, 2) work spent so far and best residual so far, after each of k starts.
    """

    frac: FloatArray
    residual: float
    iterations: int
    stop_reason: StopReason
    confidence: float
    blocks: dict[str, float] = field(default_factory=dict)
    trace: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))


class Solver(Protocol):
    """What inverts one descriptor in a given cell; one object serves many targets, in threads too."""

    def solve(
        self, target: ArrayLike, lattice: ArrayLike, numbers: ArrayLike, seed: int, noise_floor: float = 0.0
    ) -> Solution:
        """The best positions found; deterministic in all arguments.

        Args:
            target: (D,) descriptor to reach, its channels those of the elements in `numbers` and no more.
            lattice: (3, 3) rows, angstrom.
            numbers: (n,) atomic numbers.
            seed: of the random stream.
            noise_floor: relative residual under which more work is wasted; 0 for exact targets.

        Raises:
            ValueError: on a target that is not finite or whose length does not fit, or a cell without volume.
        """
        ...

    def costs(self, n_atoms: FloatArray, n_elements: FloatArray, volume: FloatArray) -> FloatArray:
        """(M,) estimated seconds on one core for crystals of `n_atoms`, `n_elements` and `volume` (angstrom^3)."""
        ...

    def warm_up(self) -> None:
        """Compile every kernel, or load it from numba's cache."""
        ...
