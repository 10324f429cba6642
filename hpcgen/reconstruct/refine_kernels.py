"""Dense least-squares kernels of the refinement: no BLAS or LAPACK, whose bits depend on their threads."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST

DEPENDENT = 1e-6  # a column of a projector that keeps less than this of its length depends on those before


@njit(**FAST)
def normal_equations(jt, r):
    """J^T J (p, p), lower triangle, and J^T r (p,) of a transposed Jacobian jt (p, D) and residuals r (D,)."""
    size, length = jt.shape
    hessian, gradient = np.zeros((size, size)), np.empty(size)
    for a in range(size):
        total = 0.0
        for k in range(length):
            total += jt[a, k] * r[k]
        gradient[a] = total
        for b in range(a + 1):
            total = 0.0
            for k in range(length):
                total += jt[a, k] * jt[b, k]
            hessian[a, b] = total
    return hessian, gradient


@njit(**FAST)
def combine(directions, jt):
    """directions^T jt: (m, D) derivatives along the m columns of `directions` (p, m)."""
    size, count = directions.shape
    out = np.zeros((count, jt.shape[1]))
    for m in range(count):
        for a in range(size):
            if directions[a, m] != 0.0:
                for k in range(jt.shape[1]):
                    out[m, k] += directions[a, m] * jt[a, k]
    return out


@njit(**EXACT)
def column_space(projector):
    """(p, m) orthonormal columns that span those of `projector` (p, q), by Gram-Schmidt in their order."""
    size, count = projector.shape
    basis = np.zeros((min(size, count), size))
    m = 0
    for c in range(count):
        v = projector[:, c].copy()
        for _ in range(2):  # twice is enough
            for b in range(m):
                v -= np.sum(basis[b] * v) * basis[b]
        norm = math.sqrt(np.sum(v * v))
        if norm > DEPENDENT:
            basis[m] = v / norm
            m += 1
            if m == len(basis):
                break
    return basis[:m].T.copy()
