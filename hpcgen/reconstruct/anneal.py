"""Finds the crystal of a pair spectrum: phase retrieval or heat bath on a grid, then Levenberg-Marquardt.

One element has a structure factor whose phases can be retrieved (`phasing.py`), which takes a tenth to a hundredth of
the time of annealing. It gets most of the starts of such targets; all others anneal.

Budgets are counted in starts, sweeps and iterations, never in seconds, and every start draws from its own
stream of the seed: the same target and seed give the same crystal on every rank, in threads and in processes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import AnnealConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.reconstruct.environments import several_kinds
from hpcgen.reconstruct.kernels import anneal
from hpcgen.reconstruct.orbits import symmetric_start
from hpcgen.reconstruct.phasing import retrieve
from hpcgen.reconstruct.search import Search, Start, cost_of
from hpcgen.reconstruct.solution import Solution, StopReason
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_spectrum import PairSpectrum
from hpcgen.represent.three_body import PairSpectrumThreeBody

PHASED = 4  # of the starts for one element every so many-th anneals, in case that phases cannot be retrieved
RETRIEVAL = (4, 1e-4)  # iterations of a phase retrieval at most over the squared number of atoms, and its damping
MOST_PAIRED = 32  # atoms whose square counts there: a start for more takes no longer than one that anneals
RETRIEVAL_NOISY = (1, 1e-2)  # noise is never met, so that a run goes on to its end
BATCH = 8  # starts between two rounds of full polishing; the first start is a batch of its own
POLISHED = 2  # best starts of a batch that get the full polish
ELITES = 4  # best crystals that relocations start from
QUICK = 8  # polish iterations of every start
GREEDY = 3  # sweeps at temperature zero after the annealing
RELOCATE = 0.5  # share of the starts from single atoms that relocate atoms of an elite
RELOCATED = (0.15, 0.3, 0.5)  # shares of its atoms that are relocated
FREED = 0.3  # share of the symmetric starts whose atoms are let go of before the polish
ATOMS_AT_FULL_BUDGET = 20  # beyond, starts fall with the square of the atoms, as the time of one rises
BEYOND = 0.1  # a crystal that is found is polished to this share of the tolerance
PROMISING = 1e4  # a start within this multiple of the tolerance is polished at once
JITTER = 0.03  # angstrom (scaled): a grid point may be a saddle
ZERO = 1e-9  # a target smaller than this is zero, and its residual absolute
PARTNERED = 12  # atoms up to which a noisy target of one element may have partners that a search can find
PARTNER_STARTS = 60  # symmetric starts for them where starts that agree are different crystals
PARTNER_PROBES = 4  # of which are always made
AGREE_STARTS = 4  # independent starts that agree on the best of a noisy target: no other crystal fits it better


class AnnealSolver:
    """A `hpcgen.reconstruct.solution.Solver` for pair spectra.

    A three-body block takes no part in the search; it counts in the residual.

    Args:
        descriptor: the descriptor that the targets were made by.
        config: grid, budget and temperatures.
    """

    def __init__(self, descriptor: PairSpectrum | PairSpectrumThreeBody, config: AnnealConfig) -> None:
        self.descriptor = descriptor
        self.pair = descriptor if isinstance(descriptor, PairSpectrum) else descriptor.pair
        self.config = config

    def starts(self, n_atoms: float) -> int:
        """Starts that a crystal of `n_atoms` gets at most, dealt out before the first."""
        return math.ceil(self.config.starts * n_atoms * min(1.0, (ATOMS_AT_FULL_BUDGET / n_atoms) ** 3))

    def costs(self, n_atoms: FloatArray, n_elements: FloatArray, volume: FloatArray) -> FloatArray:
        """(M,) estimated seconds; the volume does not matter, since cells are scaled to a volume per atom.

        A sweep looks at atoms x grid points x elements; about a quarter of the starts are used.
        """
        starts = np.array([self.starts(n) for n in n_atoms])
        return 2e-3 + 1.5e-5 * starts * n_atoms**2 * (1 + n_elements) / 4

    def warm_up(self) -> None:
        """Compile every kernel, or load it from numba's cache, on a tiny crystal."""
        lattice = 4.0 * np.eye(3)
        numbers = np.array([12, 8, 8])
        frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.4], [0.5, 0.0, 0.5]])
        target = self.descriptor.encode(Crystal(lattice, frac, numbers), species_channels(numbers)[0], 2)
        tiny = AnnealConfig(grid_step=1.5, starts=1, sweeps=2, polish=2, tolerance=1e-30)
        AnnealSolver(self.descriptor, tiny).solve(target, lattice, numbers, 0)
        alone = self.descriptor.encode(Crystal(lattice, frac, numbers[1:2].repeat(3)), np.zeros(3, np.int64), 1)
        AnnealSolver(self.descriptor, tiny).solve(alone, lattice, numbers[1:2].repeat(3), 0)

    def solve(
        self, target: ArrayLike, lattice: ArrayLike, numbers: ArrayLike, seed: int, noise_floor: float = 0.0
    ) -> Solution:
        """Positions whose descriptor comes closest to `target`; see `Solver.solve`."""
        q = np.ascontiguousarray(target, dtype=np.float64)
        species, elements = species_channels(numbers)
        n, channels = len(species), len(elements)
        if q.shape != (self.descriptor.length(channels),) or not np.isfinite(q).all():
            raise ValueError(f"the target must be {self.descriptor.length(channels)} finite numbers, not {q.shape}")
        tables, _ = self.pair.prepare(lattice, n)
        norm = float(np.sqrt(np.sum(q * q)))
        norm = norm if norm > ZERO else 1.0
        if n == 1:  # nothing to search
            return self._solution(np.zeros((1, 3)), q, norm, lattice, species, noise_floor)
        own = self.pair.self_terms(tables, np.bincount(species, minlength=channels), channels)
        wanted = q[: len(own)] - own
        search = Search(
            tables=tables,
            species=species,
            n_channels=channels,
            target=wanted,
            fixed=int(np.argmin(np.bincount(species, minlength=channels)[species])),
            limit=self.starts(n),
            exact=noise_floor == 0,
            grid_step=self.config.grid_step,
        )
        rng = np.random.default_rng(seed)
        reason = self._search(search, rng, norm * norm, noise_floor * noise_floor)
        if search.undecided and n <= PARTNERED:
            self._partners(search, rng)
        chosen = search.chosen()
        if not chosen.polished:
            search.refine(chosen, self.config.polish, 0.0)
        frac = chosen.x @ tables.inverse
        return self._solution(frac - np.floor(frac), q, norm, lattice, species, noise_floor, search, reason)

    def _solution(
        self,
        frac: FloatArray,
        q: FloatArray,
        norm: float,
        lattice: ArrayLike,
        species: NDArray[np.int64],
        noise_floor: float,
        search: Search | None = None,
        reason: StopReason = "budget",
    ) -> Solution:
        """The solution at given positions, its residual taken from the whole descriptor."""
        channels = int(species.max()) + 1
        cart = frac @ np.asarray(lattice, dtype=np.float64)
        miss = self.descriptor.evaluate(lattice, cart, species, channels, jacobian=False)[0] - q
        residual = float(np.sqrt(np.sum(miss * miss))) / norm
        blocks = self.descriptor.blocks(channels)
        parts = {name: float(np.sqrt(np.sum(miss[block] ** 2))) / norm for name, block in blocks.items()}
        if search is None:
            if residual**2 <= self.config.tolerance:
                reason = "converged"
            elif residual <= noise_floor:
                reason = "noise-floor"
            return Solution(frac, residual, 0, reason, 1.0, parts)
        agree, independent = search.agreeing(self.config.tolerance * norm * norm)
        trace = np.array([(work, math.sqrt(cost) / norm) for work, cost in search.trace])
        return Solution(frac, residual, search.iterations, reason, agree / independent, parts, trace)

    def _search(self, search: Search, rng: np.random.Generator, scale: float, floor: float) -> StopReason:
        """Starts in batches until one of the reasons to stop.

        Args:
            scale: squared norm of the target.
            floor: squared relative noise floor.
        """
        tolerance = self.config.tolerance * scale
        enough = BEYOND * tolerance
        while len(search.starts) < search.limit:
            batch: list[Start] = []
            for _ in range(min(BATCH, search.limit - len(search.starts)) if search.starts else 1):
                start = self._start(search, rng)
                search.refine(start, QUICK, enough)
                search.starts.append(start)
                search.trace.append((search.iterations, search.best.cost))
                batch.append(start)
                if start.cost <= PROMISING * tolerance or search.at_floor(floor * scale):
                    break
            for start in sorted(batch, key=cost_of)[:POLISHED]:
                search.refine(start, self.config.polish, enough)
                start.polished = True
                search.elites.append(start)
                search.trace[-1] = (search.iterations, search.best.cost)
                if start.cost <= tolerance:
                    return "converged"
            if search.at_floor(floor * scale) or (floor > 0 and search.agreeing(0.0)[0] >= AGREE_STARTS):
                return "noise-floor"
            search.elites = sorted(search.elites, key=cost_of)[:ELITES]
        return "budget"

    def _partners(self, search: Search, rng: np.random.Generator) -> None:
        """Look for the other crystals with the distances of the one found, while there seem to be any.

        By symmetric starts, since those that count have atoms that are alike: one in 12 is sodalite where it has
        partners, of phase retrievals one in 400.
        """
        for number in range(PARTNER_STARTS):
            if number >= PARTNER_PROBES and not several_kinds([seen for _, seen in search.ties()]):
                break
            start = self._annealed(search, rng, symmetric=1.0)
            search.refine(start, QUICK, 0.0)
            search.starts.append(start)
            search.trace.append((search.iterations, search.best.cost))

    def _start(self, search: Search, rng: np.random.Generator) -> Start:
        """A start of either kind, before its polish."""
        if search.n_channels == 1 and len(search.starts) % PHASED != PHASED - 1:
            n = len(search.species)
            state = rng.integers(0, 2**63, 1).astype(np.uint64)
            per_pair, damping = RETRIEVAL if search.exact else RETRIEVAL_NOISY
            x, _, done = retrieve(search.phasing, n, per_pair * min(n, MOST_PAIRED) ** 2, damping, state)
            search.iterations += done
            return Start(np.inf, x, independent=True)
        return self._annealed(search, rng, self.config.symmetric)

    def _annealed(self, search: Search, rng: np.random.Generator, symmetric: float) -> Start:
        """A start annealed on the grid: orbits of a random group, an elite with some atoms relocated, or all atoms.

        Args:
            symmetric: how often orbits.
        """
        config, grid = self.config, search.grid
        shape = np.array(grid.shape)
        n = len(search.species)
        matrices, orders = search.operations
        state = rng.integers(0, 2**63, 1).astype(np.uint64)
        x, jitter, relocated = None, JITTER, False
        if len(matrices) and rng.random() < symmetric:
            budget = (max(1, config.sweeps // 2), config.t_hot, config.t_cold, GREEDY)
            placed, loss, done = symmetric_start(
                grid.phi, matrices, orders, search.species, search.pair_target, *budget, state
            )
            search.iterations += done
            if np.isfinite(loss):
                x = placed
                if rng.random() < FREED:
                    self._anneal(search, x, -1, 0, config.t_hot, state)
                else:
                    jitter = 0.0  # the polish keeps the symmetry
        if x is None:
            x = rng.integers(0, shape, (n, 3))
            sweeps, hot = config.sweeps, config.t_hot
            relocated = bool(search.elites) and rng.random() < RELOCATE
            if relocated:
                elite = search.elites[min(int(rng.exponential()), len(search.elites) - 1)]
                keep = rng.random(n) >= rng.choice(RELOCATED)
                x[keep] = np.rint(elite.x @ search.tables.inverse * shape).astype(np.int64)[keep]
                x %= shape
                sweeps, hot = max(1, config.sweeps // 2), max(0.3 * config.t_hot, config.t_cold)
            self._anneal(search, x, search.fixed, sweeps, hot, state)
        cart = (x / shape) @ search.tables.cell + jitter * rng.standard_normal((n, 3))
        return Start(np.inf, cart, independent=not relocated)

    def _anneal(
        self, search: Search, x: NDArray[np.int64], fixed: int, sweeps: int, hot: float, state: NDArray[np.uint64]
    ) -> None:
        """Anneal single atoms from and to grid positions x (n, 3)."""
        grid, cold = search.grid, self.config.t_cold
        _, done = anneal(grid.phi, search.species, search.pair_target, x, fixed, sweeps, hot, cold, GREEDY, state)
        search.iterations += done
