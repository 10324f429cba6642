"""Basin hopping with Adam, the solver of StructRepDiff (arXiv 2408.07213), for embedded atom densities.

    for each of T trials, side by side, from random positions:
        for each hop:
            x' = x + uniform(-step, step)          (not before the first)
            minimise |R(x') - R|_1 with Adam       (the best point on the way counts, with its own loss)
            accept x' if its loss is lower, or with probability exp(-(l' - l) / (temperature l))

The paper leaves the acceptance open; this is Metropolis with a temperature relative to the loss. Adam's step falls
to zero along a hop (half a cosine), because an L1 loss has kinks that a constant step rattles across.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from hpcgen.config import BasinHoppingConfig
from hpcgen.crystal import FloatArray
from hpcgen.reconstruct.solution import Solution, StopReason
from hpcgen.represent.ead import EmbeddedAtomDensity, densities, inner_sums, neighbours, pull_back

CONVERGED = 1e-3  # relative residual: no difference to the target that matters is left
AGREES = 1.2  # a trial agrees with the best one if its residual is at most this factor larger
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-12  # Adam's usual constants


class BasinHopping:
    """Finds positions whose EAD is the target's, in a given cell.

    Args:
        descriptor: the EAD of the target.
        config: trials, hops, iterations, step (angstrom), learning rate (angstrom), temperature.
    """

    def __init__(self, descriptor: EmbeddedAtomDensity, config: BasinHoppingConfig) -> None:
        self.descriptor = descriptor
        self.config = config

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
            ValueError: if the target's length does not fit the descriptor, or it is not finite.
        """
        goal = np.ascontiguousarray(target, dtype=np.float64)
        cell = np.ascontiguousarray(lattice, dtype=np.float64)
        z = np.ascontiguousarray(numbers, dtype=np.float64)
        if goal.shape != (self.descriptor.length(),):
            raise ValueError(f"the target has shape {goal.shape}, the descriptor ({self.descriptor.length()},)")
        if not np.isfinite(goal).all():
            raise ValueError("the target is not finite")
        objective = _Objective(self.descriptor, goal, cell, z)
        if len(z) == 1:  # one atom has nowhere to go
            origin = np.zeros((1, 3))
            residual = objective(origin[None])[1][0]
            return Solution(origin, float(residual), 0, "converged", 1.0)

        config, inverse = self.config, np.linalg.inv(cell)
        rng = np.random.default_rng(seed)
        trials = (config.trials, len(z), 3)
        here: _Point | None = None
        best: _Point | None = None
        work = 0
        reason: StopReason = "budget"
        for _ in range(config.hops):
            if here is None or best is None:
                start = rng.random(trials)
            else:
                start = here.frac + rng.uniform(-config.step, config.step, trials) @ inverse
            there, steps = self._minimise(objective, start - np.floor(start), max(noise_floor, CONVERGED))
            work += steps
            luck = rng.random(config.trials)
            if here is None or best is None:
                here = best = there
            else:
                rise = (there.loss - here.loss) / np.maximum(config.temperature * here.loss, 1e-300)
                here = there.where(luck < np.exp(-np.clip(rise, 0.0, 700.0)), here)
                best = there.where(there.loss < best.loss, best)
            if best.winning_residual <= CONVERGED:
                reason = "converged"
                break
            if best.winning_residual <= noise_floor:
                reason = "noise-floor"
                break
        assert best is not None  # hops >= 1
        winner = int(np.argmin(best.loss))
        agreeing = best.residual <= max(AGREES * best.residual[winner], CONVERGED)
        frac = best.frac[winner] - np.floor(best.frac[winner])
        return Solution(frac, float(best.residual[winner]), work, reason, float(agreeing.mean()))

    def _minimise(self, objective: _Objective, frac: FloatArray, enough: float) -> tuple[_Point, int]:
        """Adam for all trials at once; the best point of each, and the gradients spent. Ends once one is `enough`."""
        config = self.config
        cell = objective.cell
        inverse = np.linalg.inv(cell)
        x = frac @ cell  # (T, n, 3) angstrom
        m, v = np.zeros_like(x), np.zeros_like(x)
        best: _Point | None = None
        for k in range(config.iterations):
            loss, residual, gradient = objective(x @ inverse)
            here = _Point(x @ inverse, loss, residual)
            best = here if best is None else here.where(loss < best.loss, best)
            if best.winning_residual <= enough:
                return best, (k + 1) * len(x)
            m = BETA1 * m + (1 - BETA1) * gradient
            v = BETA2 * v + (1 - BETA2) * gradient**2
            rate = config.learning_rate * 0.5 * (1 + np.cos(np.pi * k / config.iterations))
            x = x - rate * (m / (1 - BETA1 ** (k + 1))) / (np.sqrt(v / (1 - BETA2 ** (k + 1))) + EPSILON)
        assert best is not None  # iterations >= 1
        return best, config.iterations * len(x)


class _Point:
    """Positions of all trials with *their* loss: frac (T, n, 3), loss (T,), residual (T,)."""

    def __init__(self, frac: FloatArray, loss: FloatArray, residual: FloatArray) -> None:
        self.frac, self.loss, self.residual = frac, loss, residual

    @property
    def winning_residual(self) -> float:
        """Residual of the trial with the lowest loss."""
        return float(self.residual[np.argmin(self.loss)])

    def where(self, mask: np.ndarray, other: _Point) -> _Point:
        """This point for the trials of `mask`, `other` for the rest."""
        return _Point(
            np.where(mask[:, None, None], self.frac, other.frac),
            np.where(mask, self.loss, other.loss),
            np.where(mask, self.residual, other.residual),
        )


class _Objective:
    """Relative L1 loss, relative L2 residual and Cartesian gradient of a batch of positions."""

    def __init__(self, descriptor: EmbeddedAtomDensity, target: FloatArray, cell: FloatArray, z: FloatArray) -> None:
        self.descriptor, self.target, self.cell, self.z = descriptor, target, cell, z

    def __call__(self, frac: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(T, n, 3) fractional to loss (T,), residual (T,), gradient of the loss (T, n, 3) per angstrom."""
        d = self.descriptor
        wrapped = np.ascontiguousarray(frac - np.floor(frac))
        return _evaluate(
            wrapped, self.cell, self.z, d.exponents, d.weights, d.etas, d.centres, d.config.cutoff, self.target
        )


@njit(cache=True, nogil=True)
def _evaluate(fracs, cell, z, exponents, weights, etas, centres, cutoff, target):  # pragma: no cover - compiled
    n_trials, n = fracs.shape[0], fracs.shape[1]
    size_l1 = max(np.abs(target).sum(), 1e-12)
    size_l2 = np.sqrt((target**2).sum())
    size_l2 = size_l2 if size_l2 > 1e-12 else 1.0
    losses, residuals, gradients = np.empty(n_trials), np.empty(n_trials), np.empty((n_trials, n, 3))
    degree = exponents.sum(axis=1)
    for t in range(n_trials):
        pairs, vectors = neighbours(fracs[t], cell, cutoff)
        sums = inner_sums(pairs, vectors, z, exponents, etas, centres, cutoff)
        rho = densities(sums, exponents, weights)
        slopes = np.zeros_like(sums)
        loss, square, position = 0.0, 0.0, 0
        for pool in range(2):
            for order in range(rho.shape[1]):
                for e in range(rho.shape[2]):
                    for k in range(rho.shape[3]):
                        at = 0  # the first atom that holds the maximum (minimum): a subgradient
                        for i in range(1, n):
                            if pool == 0 and rho[i, order, e, k] > rho[at, order, e, k]:
                                at = i
                            if pool == 1 and rho[i, order, e, k] < rho[at, order, e, k]:
                                at = i
                        off = rho[at, order, e, k] - target[pool * (target.shape[0] // 2) + position]
                        position += 1
                        loss += abs(off)
                        square += off * off
                        for m in range(exponents.shape[0]):
                            if degree[m] == order:
                                slopes[at, m, e, k] += np.sign(off) / size_l1 * 2 * weights[m] * sums[at, m, e, k]
            position = 0
        gradient = pull_back(pairs, vectors, z, exponents, etas, centres, cutoff, slopes)
        closest, where = cutoff, -1
        for p in range(pairs.shape[0]):
            r = np.sqrt((vectors[p] ** 2).sum())
            if r < closest:
                closest, where = r, p
        off = closest - target[-1]
        if where >= 0 and closest > 1e-9:
            along = np.sign(off) / size_l1 * vectors[where] / closest
            gradient[pairs[where, 1]] += along
            gradient[pairs[where, 0]] -= along
        losses[t] = (loss + abs(off)) / size_l1
        residuals[t] = np.sqrt(square + off * off) / size_l2
        gradients[t] = gradient
    return losses, residuals, gradients
