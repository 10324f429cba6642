"""The lowest energy of a mixture of phases: one small linear programme per composition, by the revised simplex method.

    minimise  e . x   subject to  A x = b,  x >= 0

where column j of A holds the atomic fractions of phase j (k elements, k is small), e its formation energy per atom and
b the fractions of the composition. The elements themselves (A = I, e = 0) are the first feasible basis. The basis is
inverted anew in every iteration, so that no error builds up: with k of ten and less that costs nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-11  # eV/atom by which a phase must improve the mixture to enter it
PIVOT = 1e-9  # smallest pivot of a phase that may leave
STALLED = 20  # steps without gain before Bland's rule, which cannot cycle, takes over


@njit(**EXACT)
def lowest_mixture(a: FloatArray, e: FloatArray, b: FloatArray, limit: int):
    """The lowest mixture of phases with a given composition.

    Args:
        a: (n, k) atomic fractions of n phases; the first k of them are the elements, the unit matrix.
        e: (n,) formation energies, eV/atom; zero for the elements.
        b: (k,) atomic fractions of the composition, all positive.
        limit: iterations at most.

    Returns:
        basis (k,) indices of the phases of the mixture; their shares of the atoms (k,), some of them zero where the
        mixture has fewer phases; its formation energy, eV/atom; whether it is the lowest, which the duals prove.
    """
    n, k = a.shape
    basis = np.arange(k)
    x = b.copy()
    matrix = np.empty((k, k))
    stalled = 0
    for _ in range(limit):
        for i in range(k):
            for j in range(k):
                matrix[i, j] = a[basis[j], i]
        inverse = np.linalg.inv(matrix)
        energy = 0.0
        for i in range(k):
            share = 0.0
            for j in range(k):
                share += inverse[i, j] * b[j]
            x[i] = share
            energy += e[basis[i]] * share
        potential = np.zeros(k)  # of each element in the mixture
        for i in range(k):
            for j in range(k):
                potential[j] += e[basis[i]] * inverse[i, j]
        entering, best = -1, -TOLERANCE
        for p in range(n):
            reduced = e[p]
            for j in range(k):
                reduced -= potential[j] * a[p, j]
            if reduced < best:
                entering = p
                if stalled >= STALLED:
                    break
                best = reduced
        if entering < 0:
            return basis, x, energy, True
        leaving, ratio, pivot = -1, np.inf, 0.0
        for i in range(k):
            w = 0.0
            for j in range(k):
                w += inverse[i, j] * a[entering, j]
            if w <= PIVOT:
                continue
            r = max(x[i], 0.0) / w
            tie = abs(r - ratio) <= 1e-13
            better = basis[i] < basis[leaving] if stalled >= STALLED else w > pivot
            if (not tie and r < ratio) or (tie and better):
                leaving, ratio, pivot = i, r, w
        if leaving < 0:
            break
        stalled = stalled + 1 if ratio <= 1e-13 else 0
        basis[leaving] = entering
    return basis, x, np.nan, False
