"""Compiled kernels of basin hopping: the loss of a crystal's embedded atom density, and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import FAST
from hpcgen.crystal import FloatArray
from hpcgen.represent.ead_gradient import pull_back
from hpcgen.represent.ead_kernels import Cell, brackets, densities, displacement
from hpcgen.represent.ead_tables import RadialTables


class Problem(NamedTuple):
    """What stays the same while atoms move.

    Attributes:
        cell: the cell and its lattice vectors.
        z: (n,) atomic numbers.
        target: (D,) EAD to reach.
        importance: (D,) weight of each component's deviation in the loss; the last is that of `keep_apart`.
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
    """Sum over the pairs closer than `distance` of weight (distance - r)^2; adds its derivative to gradient (n, 3).

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
                    lack = distance - r
                    total += weight * lack * lack
                    for a in range(3):
                        along = 2.0 * weight * lack * v[a] / max(r, 1e-9)
                        gradient[i, a] += along
                        gradient[j, a] -= along
    return total


@njit(**FAST)
def pooled_loss(rho, sums, problem, slopes):  # pragma: no cover - compiled
    """sum_k importance_k |q_k - target_k| and sum_k (q_k - target_k)^2 over the maxima and minima of rho (n, L, E, K).

    slopes (n, M, E, K) receives the derivative of the first by the brackets `sums`. Where several atoms share a
    maximum or a minimum, the first one's is taken: a subgradient.
    """
    target, importance = problem.target, problem.importance
    half = target.shape[0] // 2
    loss = square = 0.0
    position = 0
    slopes[:] = 0.0
    for order in range(rho.shape[1]):
        for e in range(rho.shape[2]):
            for k in range(rho.shape[3]):
                top = low = 0
                for i in range(1, rho.shape[0]):
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
    return loss, square


@njit(**FAST)
def objectives(frac, problem, gradients):  # pragma: no cover - compiled
    """Losses and squared distances sum_k (q_k - target_k)^2, both (T,), of crystals at `frac` (T, n, 3).

    The loss is that of the pooled densities, and `keep_apart` for the smallest distance, by the last importance.
    gradients (T, n, 3) receives the derivative of each loss by Cartesian positions.
    """
    target = problem.target
    losses, squares = np.empty(frac.shape[0]), np.empty(frac.shape[0])
    closest = np.empty(6)
    for t in range(frac.shape[0]):
        sums = brackets(frac[t], problem.cell, problem.z, problem.exponents, problem.tables, closest)
        rho, slopes = densities(sums, problem.exponents, problem.weights), np.empty_like(sums)
        loss, square = pooled_loss(rho, sums, problem, slopes)
        gradients[t] = pull_back(frac[t], problem.cell, problem.z, slopes, problem.exponents, problem.tables)
        losses[t] = loss + keep_apart(frac[t], problem.cell, target[-1], problem.importance[-1], gradients[t])
        squares[t] = square + (closest[0] - target[-1]) ** 2
    return losses, squares
