"""Compiled kernels of basin hopping: the loss of a crystal's embedded atom density, its gradient, and Adam."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray
from hpcgen.represent.compiled import FAST
from hpcgen.represent.ead_gradient import pull_back
from hpcgen.represent.ead_kernels import Cell, brackets, densities, displacement
from hpcgen.represent.ead_tables import RadialTables

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-12  # Adam's usual constants, without a floor that the small loss would feel


class Problem(NamedTuple):
    """What stays the same while atoms move.

    Attributes:
        cell: the cell and its lattice vectors.
        z: (n,) atomic numbers.
        target: (D,) EAD to reach.
        importance: (D,) weight of each component's deviation in the loss.
        exponents: (M, 3) of the monomials.
        weights: (M,) of the monomials.
        tables: the radial functions.
    """

    cell: Cell
    z: FloatArray
    target: FloatArray
    importance: FloatArray
    exponents: NDArray[np.int64]
    weights: FloatArray
    tables: RadialTables


@njit(**FAST)
def keep_apart(frac, cell, distance, weight, gradient):  # pragma: no cover - compiled
    """Sum over pairs of what each lacks of `distance`; adds `weight` times its derivative to gradient (n, 3).

    No pair of the crystal that is sought is closer than its smallest distance.
    """
    total = 0.0
    d, v = np.empty(3), np.empty(3)
    for i in range(frac.shape[0]):
        for j in range(i + 1, frac.shape[0]):
            near = displacement(frac, cell.lattice, i, j, d)
            for q in range(np.searchsorted(cell.lengths, distance + near)):
                for a in range(3):
                    v[a] = d[a] + cell.images[a, q]
                r = np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
                if r < distance:
                    total += distance - r
                    for a in range(3):
                        along = weight * v[a] / max(r, 1e-9)
                        gradient[i, a] += along
                        gradient[j, a] -= along
    return total


@njit(**FAST)
def objective(frac, problem, gradient):  # pragma: no cover - compiled
    """Loss sum_k importance_k |q_k - target_k| and squared distance sum_k (q_k - target_k)^2 at `frac` (n, 3).

    gradient (n, 3) receives the derivative of the loss by Cartesian positions. Where several atoms share a maximum or
    a minimum, the first one's is taken: a subgradient.
    """
    n = frac.shape[0]
    target, importance = problem.target, problem.importance
    closest = np.empty(6)
    sums = brackets(frac, problem.cell, problem.z, problem.exponents, problem.tables, closest)
    rho = densities(sums, problem.exponents, problem.weights)
    slopes = np.zeros_like(sums)
    half = target.shape[0] // 2
    loss = square = 0.0
    position = 0
    for order in range(rho.shape[1]):
        for e in range(rho.shape[2]):
            for k in range(rho.shape[3]):
                top = low = 0
                for i in range(1, n):
                    if rho[i, order, e, k] > rho[top, order, e, k]:
                        top = i
                    if rho[i, order, e, k] < rho[low, order, e, k]:
                        low = i
                for at, c in ((top, position), (low, half + position)):
                    off = rho[at, order, e, k] - target[c]
                    loss += importance[c] * abs(off)
                    square += off * off
                    slope = 2.0 * importance[c] * np.sign(off)
                    for m in range(problem.weights.shape[0]):
                        if problem.exponents[m].sum() == order:
                            slopes[at, m, e, k] += slope * problem.weights[m] * sums[at, m, e, k]
                position += 1
    off = closest[0] - target[-1]
    square += off * off
    gradient[:] = pull_back(frac, problem.cell, problem.z, slopes, problem.exponents, problem.tables)
    i, j = int(closest[1]), int(closest[2])
    if off > 0.0:
        loss += importance[-1] * off
        if i != j:
            for a in range(3):
                along = importance[-1] * closest[3 + a] / closest[0]
                gradient[j, a] += along
                gradient[i, a] -= along
    else:
        loss += importance[-1] * keep_apart(frac, problem.cell, target[-1], importance[-1], gradient)
    return loss, square


@njit(**FAST)
def minimise(frac, problem, iterations, learning_rate, enough):  # pragma: no cover - compiled
    """Adam from all positions `frac` (T, n, 3) side by side, ended once a trial's residual is at most `enough`.

    The step falls from `learning_rate` (angstrom) to zero over the iterations by half a cosine: an L1 loss has kinks
    that a constant step rattles across.

    Returns:
        The best point of each trial with its own loss and residual, (T, n, 3), (T,), (T,), and the gradients spent.
    """
    trials, n = frac.shape[:2]
    x = frac.copy()
    best, best_loss, residual = frac.copy(), np.full(trials, np.inf), np.full(trials, np.inf)
    first, second, gradient = np.zeros(frac.shape), np.zeros(frac.shape), np.empty((n, 3))
    norm = np.sqrt((problem.target**2).sum())
    norm = norm if norm > 0.0 else 1.0
    inverse = problem.cell.inverse
    for k in range(iterations):
        rate = learning_rate * 0.5 * (1.0 + np.cos(np.pi * k / iterations))
        bias1, bias2 = 1.0 - BETA1 ** (k + 1), 1.0 - BETA2 ** (k + 1)
        for t in range(trials):
            loss, square = objective(x[t], problem, gradient)
            if loss < best_loss[t]:
                best_loss[t], residual[t] = loss, np.sqrt(square) / norm
                best[t] = x[t]
            for i in range(n):
                for a in range(3):
                    g = gradient[i, a]
                    first[t, i, a] = BETA1 * first[t, i, a] + (1.0 - BETA1) * g
                    second[t, i, a] = BETA2 * second[t, i, a] + (1.0 - BETA2) * g * g
                    step = rate * (first[t, i, a] / bias1) / (np.sqrt(second[t, i, a] / bias2) + EPSILON)
                    for b in range(3):
                        x[t, i, b] -= step * inverse[a, b]
        if residual[np.argmin(best_loss)] <= enough:
            return best, best_loss, residual, (k + 1) * trials
    return best, best_loss, residual, iterations * trials
