"""Grid annealing: finds the crystal of a pair spectrum by heat bath on a grid, then Levenberg-Marquardt.

Budgets are counted in starts, sweeps and iterations, never in seconds, and every start draws from its own
stream of the seed: the same target and seed give the same crystal on every rank, in threads and in processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import AnnealConfig, PairSpectrumConfig
from hpcgen.crystal import FloatArray
from hpcgen.reconstruct.grid import Grid, build_grid, pair_targets
from hpcgen.reconstruct.kernels import anneal
from hpcgen.reconstruct.polish import polish
from hpcgen.reconstruct.solution import Solution, StopReason
from hpcgen.represent.pair_kernels import PairTables
from hpcgen.represent.pair_spectrum import PairSpectrum, check_species

BATCH = 8  # starts between two rounds of full polishing; the first start is a batch of its own
POLISHED = 2  # best starts of a batch that get the full polish
ELITES = 4  # best crystals that relocations start from
QUICK = 8  # polish iterations of every start
GREEDY = 3  # sweeps at temperature zero after the annealing
RELOCATE = 0.4  # share of the starts that relocate atoms of an elite
RELOCATED = (0.15, 0.3, 0.5)  # shares of its atoms that are relocated
BEYOND = 1e-2  # a crystal that is found is polished to this share of the tolerance
PROMISING = 1e2  # a start within this multiple of the tolerance is polished at once
JITTER = 0.03  # angstrom (scaled): a grid point may be a saddle
ZERO = 1e-9  # a target smaller than this is zero, and its residual absolute
AGREE = 1.1  # residuals within this factor of the best count as agreement
AGREE_STARTS = 2  # independent starts wanted before a target is left at its noise floor


@dataclass
class _Start:
    """One start: squared residual and positions (n, 3), and whether it began at random positions."""

    cost: float
    x: FloatArray
    independent: bool


@dataclass
class _Search:
    """The state of one search, in scaled lengths."""

    tables: PairTables
    grid: Grid
    species: NDArray[np.int64]
    n_channels: int
    target: FloatArray
    pair_target: NDArray[np.float32]
    fixed: int
    iterations: int = 0
    starts: list[_Start] = field(default_factory=list)
    elites: list[_Start] = field(default_factory=list)

    def refine(self, start: _Start, iterations: int, enough: float) -> None:
        """Polish a start in place."""
        start.x, start.cost, done = polish(
            start.x, self.species, self.n_channels, self.tables, self.target, iterations, enough
        )
        self.iterations += done

    @property
    def best(self) -> _Start:
        """The start with the smallest residual so far."""
        return min(self.starts, key=_cost)

    def at_floor(self, floor: float, starts: int) -> bool:
        """Whether the target is met within its noise, by enough of at most `starts` starts to say how sure that is."""
        independent = sum(start.independent for start in self.starts)
        return self.best.cost <= floor and independent >= min(AGREE_STARTS, starts)

    def confidence(self, tolerance: float) -> float:
        """Share of the independent starts whose residual agrees with the best."""
        limit = max(AGREE**2 * self.best.cost, tolerance)
        agree = [start.cost <= limit for start in self.starts if start.independent]
        return sum(agree) / len(agree)


def _cost(start: _Start) -> float:
    return start.cost


class AnnealSolver:
    """Solver for pair spectra.

    Args:
        descriptor: the descriptor that the targets were made by.
        config: grid, budget and temperatures.
    """

    def __init__(self, descriptor: PairSpectrum, config: AnnealConfig) -> None:
        self.descriptor = descriptor
        self.config = config

    def solve(
        self,
        target: ArrayLike,
        lattice: ArrayLike,
        species: ArrayLike,
        n_channels: int,
        seed: int,
        noise_floor: float = 0.0,
    ) -> Solution:
        """Positions whose pair spectrum comes closest to `target`.

        Args:
            target: (D,) pair spectrum.
            lattice: (3, 3) rows, angstrom.
            species: (n,) channel of each atom.
            n_channels: channels of the target.
            seed: of all random choices.
            noise_floor: relative residual under which more work is wasted; 0 for exact targets.

        Raises:
            ValueError: on a target of the wrong length or not finite, channels that do not fit, or a cell
                without volume.
        """
        q = np.ascontiguousarray(target, dtype=np.float64)
        n = len(np.atleast_1d(np.asarray(species)))
        channels = check_species(species, n_channels, n)
        if q.shape != (self.descriptor.length(n_channels),) or not np.isfinite(q).all():
            raise ValueError(f"the target must be {self.descriptor.length(n_channels)} finite numbers, not {q.shape}")
        tables, _ = self.descriptor.prepare(lattice, n)
        norm = float(np.sqrt(np.sum(q * q)))
        norm = norm if norm > ZERO else 1.0
        if n == 1:
            return self._single(q, norm, noise_floor)
        bins = (self.descriptor.config.rdf_bins, self.descriptor.config.s_bins)
        grid = build_grid(tables, self.config.grid_step)
        rarest = int(np.argmin(np.bincount(channels, minlength=n_channels)[channels]))
        search = _Search(
            tables, grid, channels, n_channels, q, pair_targets(q, n_channels, bins, grid.basis), fixed=rarest
        )
        reason = self._search(search, np.random.default_rng(seed), norm * norm, noise_floor * noise_floor)
        best = search.best
        frac = best.x @ tables.inverse
        return Solution(
            frac=frac - np.floor(frac),
            residual=float(np.sqrt(best.cost)) / norm,
            iterations=search.iterations,
            stop_reason=reason,
            confidence=search.confidence(self.config.tolerance * norm * norm),
        )

    def _single(self, q: FloatArray, norm: float, noise_floor: float) -> Solution:
        """One atom: nothing to search."""
        residual = float(np.sqrt(np.sum(q * q))) / norm
        reason: StopReason = "budget"
        if residual**2 <= self.config.tolerance:
            reason = "converged"
        elif residual <= noise_floor:
            reason = "noise-floor"
        return Solution(np.zeros((1, 3)), residual, 0, reason, 1.0)

    def _search(self, search: _Search, rng: np.random.Generator, scale: float, floor: float) -> StopReason:
        """Starts in batches until one of the three reasons to stop.

        Args:
            scale: squared norm of the target.
            floor: squared relative noise floor.
        """
        limit = self.config.starts
        tolerance = self.config.tolerance * scale
        enough = BEYOND * tolerance
        while len(search.starts) < limit:
            batch: list[_Start] = []
            for _ in range(min(BATCH, limit - len(search.starts)) if search.starts else 1):
                start = self._start(search, rng)
                search.refine(start, QUICK, enough)
                search.starts.append(start)
                batch.append(start)
                if start.cost <= PROMISING * tolerance or search.at_floor(floor * scale, limit):
                    break
            for start in sorted(batch, key=_cost)[:POLISHED]:
                search.refine(start, self.config.polish, enough)
                search.elites.append(start)
                if start.cost <= tolerance:
                    return "converged"
            if search.at_floor(floor * scale, limit):
                return "noise-floor"
            search.elites = sorted(search.elites, key=_cost)[:ELITES]
        return "budget"

    def _start(self, search: _Search, rng: np.random.Generator) -> _Start:
        """A start annealed on the grid: from random positions, or from an elite with some atoms relocated."""
        config = self.config
        shape = np.array(search.grid.shape)
        n = len(search.species)
        x = rng.integers(0, shape, (n, 3))
        sweeps, hot = config.sweeps, config.t_hot
        relocated = bool(search.elites) and rng.random() < RELOCATE
        if relocated:
            elite = search.elites[min(int(rng.exponential()), len(search.elites) - 1)]
            keep = rng.random(n) >= rng.choice(RELOCATED)
            x[keep] = np.rint(elite.x @ search.tables.inverse * shape).astype(np.int64)[keep]
            sweeps, hot = max(1, config.sweeps // 2), max(0.3 * config.t_hot, config.t_cold)
        x %= shape
        state = rng.integers(0, 2**63, 1).astype(np.uint64)
        loss, done = anneal(
            search.grid.phi,
            search.species,
            search.pair_target,
            x,
            search.fixed,
            sweeps,
            hot,
            config.t_cold,
            GREEDY,
            state,
        )
        search.iterations += done
        cart = (x / shape) @ search.tables.cell + JITTER * rng.standard_normal((n, 3))
        return _Start(loss, cart, independent=not relocated)


def warm_up(config: PairSpectrumConfig | None = None) -> None:
    """Compile every kernel (or load it from numba's cache) on a tiny crystal."""
    descriptor = PairSpectrum(config or PairSpectrumConfig())
    lattice = 4.0 * np.eye(3)
    frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.4], [0.5, 0.0, 0.5]])
    species = np.array([0, 1, 1])
    q, _ = descriptor.evaluate(lattice, frac @ lattice, species, 2)
    AnnealSolver(descriptor, AnnealConfig(grid_step=1.5, starts=2, sweeps=2, polish=2)).solve(q, lattice, species, 2, 0)
