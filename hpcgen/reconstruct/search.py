"""The state of one search for the crystal of a pair spectrum: its starts, and which of them counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray
from hpcgen.reconstruct.environments import Environment, environment, likeliest
from hpcgen.reconstruct.grid import Grid, build_grid, pair_targets
from hpcgen.reconstruct.groups import lattice_operations
from hpcgen.reconstruct.phasing import Phasing, phasing
from hpcgen.reconstruct.polish import polish
from hpcgen.represent.pair_kernels import PairTables

LATTICE_TOLERANCE = 0.05  # of the metric: generated cells are symmetric only nearly
AGREE = 1.1  # residuals within this factor of the best count as agreement
FLOOR_STARTS = 2  # independent starts wanted before a target is left at its noise floor


@dataclass
class Start:
    """One start: squared residual and positions (n, 3), and whether it owes nothing to an earlier one."""

    cost: float
    x: FloatArray
    independent: bool
    polished: bool = False
    seen: Environment | None = None

    def environment(self, cell: FloatArray) -> Environment:
        """How its atoms are surrounded, kept until it is refined."""
        if self.seen is None:
            self.seen = environment(cell, self.x)
        return self.seen


@dataclass
class Search:
    """The state of one search, in scaled lengths. `target` is without the self terms, constants of the cell."""

    tables: PairTables
    species: NDArray[np.int64]
    n_channels: int
    target: FloatArray
    fixed: int
    limit: int
    exact: bool
    grid_step: float
    iterations: int = 0
    starts: list[Start] = field(default_factory=list)
    elites: list[Start] = field(default_factory=list)
    trace: list[tuple[int, float]] = field(default_factory=list)

    @cached_property
    def grid(self) -> Grid:
        """Made when the first start anneals."""
        return build_grid(self.tables, self.grid_step)

    @cached_property
    def operations(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Matrices and orders, see `lattice_operations`."""
        return lattice_operations(self.tables.cell, self.grid.shape, LATTICE_TOLERANCE)

    @cached_property
    def pair_target(self) -> NDArray[np.float32]:
        """(C, C, K), see `pair_targets`."""
        bins = (len(self.tables.centres), self.tables.weights.shape[1])
        return pair_targets(self.target, self.n_channels, bins, self.grid.basis)

    @cached_property
    def phasing(self) -> Phasing:
        """The problem of `retrieve`, for one channel."""
        return phasing(self.tables, self.target, len(self.species))

    def refine(self, start: Start, iterations: int, enough: float) -> None:
        """Polish a start in place."""
        start.x, start.cost, done = polish(
            start.x, self.species, self.n_channels, self.tables, self.target, iterations, enough
        )
        start.seen = None
        self.iterations += done

    @property
    def best(self) -> Start:
        """The start with the smallest residual so far."""
        return min(self.starts, key=cost_of)

    @property
    def undecided(self) -> bool:
        """Whether other crystals may fit as well: a noisy target of one element.

        Distances between several elements tell homometric crystals apart.
        """
        return not self.exact and self.n_channels == 1

    def ties(self) -> list[tuple[Start, Environment]]:
        """The starts that agree with the best."""
        limit = AGREE**2 * self.best.cost
        return [(start, start.environment(self.tables.cell)) for start in self.starts if start.cost <= limit]

    def chosen(self) -> Start:
        """The start that counts: the best, or of those that agree with it the one that is likeliest in nature."""
        if not self.undecided:
            return self.best
        starts, environments = zip(*self.ties(), strict=True)
        return starts[likeliest(environments)]

    def agreeing(self, tolerance: float) -> tuple[int, int]:
        """Independent starts whose residual agrees with the best, and all independent starts."""
        limit = max(AGREE**2 * self.best.cost, tolerance)
        costs = [start.cost for start in self.starts if start.independent]
        return sum(cost <= limit for cost in costs), len(costs)

    def at_floor(self, floor: float) -> bool:
        """Whether the target is met within its noise, by enough independent starts to say how sure that is."""
        return self.best.cost <= floor and self.agreeing(0.0)[1] >= min(FLOOR_STARTS, self.limit)


def cost_of(start: Start) -> float:
    """The key to sort starts by."""
    return start.cost
