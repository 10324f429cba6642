"""Basin hopping with Adam, the solver of StructRepDiff (arXiv 2408.07213, A.3.5), for embedded atom densities.

    for each of T trials, side by side, from random positions:
        for each hop:
            x' = x + uniform(-step, step)          (not before the first)
            minimise the L1 loss of x' with Adam   (the best point on the way counts, with its own loss)
            accept x' if its loss is lower, or with probability exp(-(l' - l) / (temperature l))

The search ends once a trial has converged. The paper leaves the acceptance, Adam's step and the scales of the L1 norm
open. Acceptance is Metropolis with a temperature relative to the loss. For the scales see `importance`. What else was
tried, and the figures, are in docs/paper_preset.md.

Trials and structures are batches without a batched kernel: a structure's trials are one compiled call, structures run
on threads. An evaluation is some 10^4 pairs scattered to bins and 10^5 multiplications with bands, so a core has no
idle time that a batch could fill (time per step alone and batched: `benchmarks/paper_preset.py`), and a form in torch
was not taken: dense products with all bins are ten times the arithmetic of the bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import BasinHoppingConfig, EadConfig
from hpcgen.crystal import FloatArray
from hpcgen.reconstruct.hopping_kernels import Problem, objectives
from hpcgen.reconstruct.solution import Solution, StopReason
from hpcgen.represent.ead import EmbeddedAtomDensity

CONVERGED = 1e-3  # relative residual: no difference to the target that matters is left
AGREES = 1.2  # a trial agrees with the best one if its residual is at most this factor larger
PAPER_EAD = EadConfig(cutoff=20.0, l_max=0, eta=[1.0, 20.0, 90.0], centres=200)
PAPER_SEARCH = BasinHoppingConfig(trials=6, hops=7, iterations=300, step=1.0)

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-12  # Adam's usual constants, without a floor that the small loss would feel

_DISTANCE = 0.03  # weight of what a pair lacks of the smallest distance: two atoms on one spot cost this much
_STEEPEST = 1e150  # largest derivative that Adam is given
_CLOSE = 0.1  # angstrom: least scale of distances, where a target has none


@dataclass(frozen=True, eq=False)
class _Points:
    """Positions of all trials with *their* loss: frac (T, n, 3), loss (T,), residual (T,)."""

    frac: FloatArray
    loss: FloatArray
    residual: FloatArray

    @property
    def winner(self) -> int:
        """The trial with the lowest loss."""
        return int(np.argmin(self.loss))

    def where(self, mask: NDArray[np.bool_], other: _Points) -> _Points:
        """These points for the trials of `mask`, those of `other` for the rest."""
        return _Points(
            np.where(mask[:, None, None], self.frac, other.frac),
            np.where(mask, self.loss, other.loss),
            np.where(mask, self.residual, other.residual),
        )


class BasinHopping:
    """Finds positions whose EAD is the target's, in a given cell. A `Solver`.

    Args:
        descriptor: the EAD of the target.
        config: trials, hops, iterations, step (angstrom), learning rate (angstrom), temperature.
        tolerance: relative residual at which the search ends; 0 spends the whole budget.
    """

    def __init__(
        self, descriptor: EmbeddedAtomDensity, config: BasinHoppingConfig, tolerance: float = CONVERGED
    ) -> None:
        self.descriptor = descriptor
        self.config = config
        self.tolerance = tolerance

    def solve(
        self, target: ArrayLike, lattice: ArrayLike, numbers: ArrayLike, seed: int, noise_floor: float = 0.0
    ) -> Solution:
        """The best positions found; deterministic in all arguments.

        Args:
            target: (D,) EAD to reach.
            lattice: (3, 3) rows, angstrom.
            numbers: (n,) atomic numbers.
            seed: of the random stream.
            noise_floor: relative residual under which the search ends.

        Raises:
            ValueError: on a target that is not finite or whose length does not fit, atomic numbers below 1, no atom,
                or a cell without volume.
        """
        rng = np.random.default_rng(seed)
        config = self.config
        problem = self.problem(target, lattice, numbers)
        shape = (config.trials, len(problem.z), 3)
        start = rng.random(shape)
        if shape[1] == 1:  # one atom has nowhere to go
            return self._solution(problem, np.zeros((1, 3)), 0, "converged", 1.0, [])
        enough = max(noise_floor, self.tolerance)
        here: _Points | None = None
        best: _Points | None = None
        work, trace = 0, []
        reason: StopReason = "budget"
        for _ in range(config.hops):
            if here is not None:
                kick = rng.uniform(-config.step, config.step, shape)
                start = here.frac + (kick[..., None] * problem.cell.inverse).sum(axis=-2)
            *found, steps = minimise(start, problem, config.iterations, config.learning_rate, enough)
            there, luck = _Points(*found), rng.random(config.trials)
            work += steps
            if here is None or best is None:
                here = best = there
            else:
                here = there.where(accepted(there.loss, here.loss, config.temperature, luck), here)
                best = there.where(there.loss < best.loss, best)
            residual = float(best.residual[best.winner])
            trace.append((work, residual))
            if residual <= enough:
                reason = "converged" if residual <= self.tolerance else "noise-floor"
                break
        assert best is not None  # hops >= 1
        agreeing = best.residual <= max(AGREES * best.residual[best.winner], CONVERGED)
        return self._solution(problem, best.frac[best.winner], work, reason, float(agreeing.mean()), trace)

    def solve_batch(
        self,
        targets: Sequence[ArrayLike],
        lattices: Sequence[ArrayLike],
        numbers: Sequence[ArrayLike],
        seeds: Sequence[int],
        noise_floor: float = 0.0,
        threads: int = 1,
    ) -> list[Solution]:
        """Solutions of many targets, bit for bit those of `solve` one at a time, for any number of threads.

        Raises:
            ValueError: as `solve`, before any search begins; if the sequences differ in length, or without a thread.
        """
        if threads < 1:
            raise ValueError(f"at least one thread is needed, not {threads}")
        tasks = list(zip(targets, lattices, numbers, seeds, strict=True))
        for target, lattice, z, _ in tasks:
            self.problem(target, lattice, z)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda t: self.solve(t[0], t[1], t[2], t[3], noise_floor), tasks))

    def problem(self, target: ArrayLike, lattice: ArrayLike, numbers: ArrayLike) -> Problem:
        """The checked problem.

        Raises:
            ValueError: as `solve`.
        """
        descriptor = self.descriptor
        goal, z = np.array(target, dtype=np.float64), np.array(numbers, dtype=np.float64)
        if goal.shape != (descriptor.length(),):
            raise ValueError(f"the target has shape {goal.shape}, the descriptor ({descriptor.length()},)")
        if not np.isfinite(goal).all():
            raise ValueError("the target is not finite")
        if z.ndim != 1 or len(z) == 0 or not (z >= 1).all():
            raise ValueError(f"atomic numbers are a list of at least one number from 1 on, not {z.tolist()}")
        cell, weight = descriptor.prepare(lattice), importance(goal)
        return Problem(cell, z, goal, weight, descriptor.exponents, descriptor.weights, descriptor.tables)

    def costs(self, n_atoms: FloatArray, n_elements: FloatArray, volume: FloatArray) -> FloatArray:
        """(M,) estimated seconds on one core for crystals of `n_atoms` in cells of `volume` (angstrom^3).

        The time of an evaluation: bands for each atom, and its pairs within the cutoff; the whole budget of them,
        of which easy targets take a third.
        """
        config, descriptor = self.config, self.descriptor
        monomials = len(descriptor.weights)
        images = 4 / 3 * np.pi * descriptor.config.cutoff**3 / volume
        pairs = n_atoms * (n_atoms - 1) / 2
        components = len(descriptor.config.eta) * descriptor.config.centres
        step = monomials * (3.5e-8 * components * n_atoms + pairs * (1e-6 + 1.5e-8 * images))
        return np.asarray(config.trials * config.hops * config.iterations * step)

    def warm_up(self) -> None:
        """Compile every kernel, or load it from numba's cache."""
        problem = self.problem(np.ones(self.descriptor.length()), np.eye(3) * 4, [1, 1])
        self.descriptor.vector(problem.cell, np.zeros((2, 3)), problem.z)
        minimise(np.zeros((1, 2, 3)), problem, 1, 0.1, 0.0)

    def _solution(
        self,
        problem: Problem,
        frac: FloatArray,
        work: int,
        reason: StopReason,
        confidence: float,
        trace: list[tuple[int, float]],
    ) -> Solution:
        wrapped = frac - np.floor(frac)
        wrapped[wrapped >= 1.0] = 0.0  # what rounding made of a coordinate just below 0
        off = self.descriptor.vector(problem.cell, wrapped, problem.z) - problem.target
        norm = _norm(problem.target) or 1.0
        return Solution(
            frac=wrapped,
            residual=_norm(off) / norm,
            iterations=work,
            stop_reason=reason,
            confidence=confidence,
            blocks={name: _norm(off[part]) / norm for name, part in self.descriptor.blocks().items()},
            trace=np.array(trace, dtype=np.float64).reshape(-1, 2),
        )


def _norm(values: FloatArray) -> float:
    return float(np.sqrt((values**2).sum()))  # not BLAS, whose bits may depend on its threads


def importance(target: FloatArray) -> FloatArray:
    """(D,) weight of each component's deviation in the loss: the plain L1 norm, relative to that of the target.

    The last weight is that of `hopping_kernels.keep_apart`, which stands for the smallest distance: as one angstrom
    among sums of 10^5 it would not count.
    """
    size = max(float(np.abs(target[:-1]).sum()), 1e-300)
    return np.append(np.full(len(target) - 1, 1.0 / size), _DISTANCE / max(float(target[-1]), _CLOSE) ** 2)


def minimise(
    frac: FloatArray, problem: Problem, iterations: int, learning_rate: float, enough: float
) -> tuple[FloatArray, FloatArray, FloatArray, int]:
    """Adam from all positions `frac` (T, n, 3) side by side, ended once a trial's residual is at most `enough`.

    The step falls from `learning_rate` (angstrom) to zero over the iterations by half a cosine: an L1 loss has kinks
    that a constant step rattles across.

    Returns:
        The best point of each trial with its own loss and residual, (T, n, 3), (T,), (T,), and the gradients spent.
    """
    x, best, trials = frac.copy(), frac.copy(), len(frac)
    best_loss, residual = np.full(trials, np.inf), np.full(trials, np.inf)
    m, v, g = np.zeros(frac.shape), np.zeros(frac.shape), np.empty(frac.shape)
    norm = _norm(problem.target) or 1.0
    for k in range(1, iterations + 1):
        loss, square = objectives(x, problem, g)
        better = loss < best_loss
        best[better], best_loss[better], residual[better] = x[better], loss[better], np.sqrt(square[better]) / norm
        if residual[np.argmin(best_loss)] <= enough:
            return best, best_loss, residual, k * trials
        rate = learning_rate * 0.5 * (1.0 + np.cos(np.pi * (k - 1) / iterations))
        np.clip(g, -_STEEPEST, _STEEPEST, out=g)  # atoms on top of each other; its square must stay finite
        m = BETA1 * m + (1.0 - BETA1) * g
        v = BETA2 * v + (1.0 - BETA2) * g * g
        step = rate * (m / (1.0 - BETA1**k)) / (np.sqrt(v / (1.0 - BETA2**k)) + EPSILON)
        x -= (step[..., None] * problem.cell.inverse).sum(axis=-2)
    return best, best_loss, residual, iterations * trials


def accepted(loss: FloatArray, before: FloatArray, temperature: float, luck: FloatArray) -> NDArray[np.bool_]:
    """Metropolis: lower losses always, higher ones with probability exp(-rise), the rise relative to T times `before`.

    Args:
        loss: (T,) after the hop.
        before: (T,) before it.
        temperature: relative to the loss before the hop.
        luck: (T,) uniform in [0, 1).
    """
    rise = (loss - before) / np.maximum(temperature * before, 1e-300)
    return np.asarray(luck < np.exp(-np.clip(rise, 0.0, 700.0)))
