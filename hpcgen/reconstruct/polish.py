"""Levenberg-Marquardt refinement in the continuum, with the analytic Jacobian of the pair spectrum."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST
from hpcgen.represent.pair_kernels import pair_spectrum

MAX_STEP = 0.4  # angstrom (scaled): longest step of an atom in one iteration
SLOW = 6  # iterations in a row that gain less than 3 %: the polish has stalled


@njit(**FAST)
def _normal_equations(jt, r, species, n_channels, split, bins, hessian, gradient):
    """J^T J and J^T r, skipping the components that an atom's channel does not touch.

    Component blocks are [pair x bins[0]] up to `split`, then [pair x bins[1]].
    """
    size = len(jt)
    hessian[:] = 0.0
    gradient[:] = 0.0
    pair = 0
    for c in range(n_channels):
        for d in range(c, n_channels):
            for block in range(2):
                start = pair * bins[0] if block == 0 else split + pair * bins[1]
                stop = start + bins[block]
                for a in range(size):
                    if species[a // 3] != c and species[a // 3] != d:
                        continue
                    row = jt[a, start:stop]
                    total = 0.0
                    for k in range(len(row)):
                        total += row[k] * r[start + k]
                    gradient[a] += total
                    for b in range(a + 1):
                        if species[b // 3] != c and species[b // 3] != d:
                            continue
                        other = jt[b, start:stop]
                        total = 0.0
                        for k in range(len(row)):
                            total += row[k] * other[k]
                        hessian[a, b] += total
            pair += 1


@njit(**FAST)
def _solve_cholesky(lower, b):
    """Solve A x = b in place for a positive definite A given by its lower triangle; no LAPACK. False if it is not."""
    n = len(b)
    for i in range(n):
        for j in range(i + 1):
            total = lower[i, j]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                lower[i, i] = math.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= lower[i, k] * b[k]
        b[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= lower[k, i] * b[k]
        b[i] /= lower[i, i]
    return True


@njit(**EXACT)
def polish(x, species, n_channels, tables, target, iterations, enough):
    """Minimise |q(x) - target|^2 over scaled Cartesian positions (Marquardt's damping, steps capped).

    Args:
        x: (n, 3) start; not changed.
        enough: squared residual at which to stop.

    Returns:
        (positions (n, 3), squared residual there, iterations done).
    """
    n = len(x)
    size = len(target)
    bins = np.array([len(tables.centres), tables.weights.shape[1]])
    split = n_channels * (n_channels + 1) // 2 * bins[0]
    x = x.copy()
    q, jt = np.empty(size), np.empty((3 * n, size))
    hessian, gradient, damped = np.empty((3 * n, 3 * n)), np.empty(3 * n), np.empty((3 * n, 3 * n))
    pair_spectrum(x, species, n_channels, tables, q, jt, True)
    r = q - target
    cost = np.sum(r * r)
    _normal_equations(jt, r, species, n_channels, split, bins, hessian, gradient)
    damping = 1e-2
    slow = 0
    done = 0
    while done < iterations and cost > enough and slow < SLOW and damping < 1e3:
        done += 1
        mean = 0.0
        for a in range(3 * n):
            mean += hessian[a, a] / (3 * n)
        damped[:] = hessian
        for a in range(3 * n):  # the second term also holds the three free translations
            damped[a, a] += damping * (hessian[a, a] + 0.05 * mean) + 1e-12 * mean + 1e-14
        step = -gradient
        if not _solve_cholesky(damped, step):
            damping *= 4
            continue
        longest = 0.0
        for i in range(n):
            longest = max(longest, math.sqrt(step[3 * i] ** 2 + step[3 * i + 1] ** 2 + step[3 * i + 2] ** 2))
        if longest > MAX_STEP:
            step *= MAX_STEP / longest
        trial = x + step.reshape((n, 3))
        pair_spectrum(trial, species, n_channels, tables, q, jt, True)
        new_cost = np.sum((q - target) ** 2)
        if new_cost < cost:
            slow = slow + 1 if new_cost > 0.97 * cost else 0
            x, cost = trial, new_cost
            damping = max(0.3 * damping, 1e-8)
            r = q - target
            _normal_equations(jt, r, species, n_channels, split, bins, hessian, gradient)
        else:
            damping *= 4
            if longest < 1e-7:
                break
    return x, cost, done
