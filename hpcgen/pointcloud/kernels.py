"""Compiled kernels of decoding: neighbours, trees of clusters on the torus, and how many atoms counts allow.

Fractional coordinates are points on a torus; differences are taken to the nearest image, component by component, which
is the nearest in angstrom too for all that lies within half a cell: nothing farther belongs to the same atom.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT
from hpcgen.crystal import FloatArray


@njit(**EXACT)
def loneliness(frac: FloatArray, metric: FloatArray, k: int, out: FloatArray) -> None:
    """Writes into `out` (c,) how far each of (c, 3) points is from its k-th nearest neighbour, infinite without one."""
    c = len(frac)
    near = np.empty((c, k))
    near[:] = np.inf
    for i in range(c):
        for j in range(i + 1, c):
            d = 2 * _join_cost(frac[i], frac[j], 1.0, 1.0, metric)
            for a in (i, j):
                if d < near[a, k - 1]:
                    place = k - 1
                    while place > 0 and near[a, place - 1] > d:
                        near[a, place] = near[a, place - 1]
                        place -= 1
                    near[a, place] = d
    for i in range(c):
        out[i] = np.sqrt(near[i, k - 1])


@njit(**EXACT)
def tree(frac: FloatArray, metric: FloatArray) -> NDArray[np.int64]:
    """Ward's tree (J. Am. Stat. Assoc. 58, 236, 1963): which clusters are joined one after the other.

    Args:
        frac: (c, 3) points of one element.
        metric: (3, 3) rows that turn differences into lengths, such as the cell.

    Returns:
        (c - 1, 2) points that stand for the clusters joined: the second's cluster becomes part of the first's.
    """
    c = len(frac)
    joins = np.empty((max(c - 1, 0), 2), dtype=np.int64)
    mean = frac.copy()
    size = np.ones(c)
    alive = np.arange(c)
    left = c
    nearest = np.zeros(c, dtype=np.int64)
    cost = np.full(c, np.inf)
    for i in range(c):
        for j in range(i + 1, c):
            d = _join_cost(mean[i], mean[j], 1.0, 1.0, metric)
            if d < cost[i]:
                cost[i], nearest[i] = d, j
    for step in range(c - 1):
        a = alive[0]
        for k in range(left):
            if cost[alive[k]] < cost[a]:
                a = alive[k]
        b = nearest[a]
        joins[step, 0], joins[step, 1] = a, b
        share = size[b] / (size[a] + size[b])
        for x in range(3):
            d = mean[b, x] - mean[a, x]
            mean[a, x] += (d - np.rint(d)) * share
        size[a] += size[b]
        write = 0
        for k in range(left):
            if alive[k] != b:
                alive[write] = alive[k]
                write += 1
        left = write
        cost[a] = np.inf
        for k in range(left):  # partners are later in `alive`, which stays sorted
            i = alive[k]
            if i < a:
                if nearest[i] == a or nearest[i] == b:
                    cost[i] = np.inf
                    for later in range(k + 1, left):
                        d = _join_cost(mean[i], mean[alive[later]], size[i], size[alive[later]], metric)
                        if d < cost[i]:
                            cost[i], nearest[i] = d, alive[later]
                else:
                    d = _join_cost(mean[i], mean[a], size[i], size[a], metric)
                    if d < cost[i]:
                        cost[i], nearest[i] = d, a
            elif i > a:
                d = _join_cost(mean[a], mean[i], size[a], size[i], metric)
                if d < cost[a]:
                    cost[a], nearest[a] = d, i
                if nearest[i] == b and i < b:
                    cost[i] = np.inf
                    for later in range(k + 1, left):
                        d = _join_cost(mean[i], mean[alive[later]], size[i], size[alive[later]], metric)
                        if d < cost[i]:
                            cost[i], nearest[i] = d, alive[later]
    return joins


@njit(**EXACT)
def _join_cost(a: FloatArray, b: FloatArray, size_a: float, size_b: float, metric: FloatArray) -> float:
    """What the sum of squared distances to the means grows by if two clusters are joined."""
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    x, y, z = x - np.rint(x), y - np.rint(y), z - np.rint(z)
    u = x * metric[0, 0] + y * metric[1, 0] + z * metric[2, 0]
    v = x * metric[0, 1] + y * metric[1, 1] + z * metric[2, 1]
    w = x * metric[0, 2] + y * metric[1, 2] + z * metric[2, 2]
    return (u * u + v * v + w * w) * size_a * size_b / (size_a + size_b)


@njit(**EXACT)
def cut(joins: NDArray[np.int64], clusters: int, out: NDArray[np.int64]) -> None:
    """Writes into `out` (c,) which of `clusters` clusters each point is in, before the last joins of the tree."""
    c = len(out)
    for i in range(c):
        out[i] = i
    for step in range(c - clusters):
        out[joins[step, 1]] = joins[step, 0]
    # a point that was absorbed points to an earlier one, its cluster's first
    label = 0
    for i in range(c):
        if out[i] == i:
            out[i] = label
            label += 1
        else:
            out[i] = out[out[i]]


@njit(**EXACT)
def apportion(counts: NDArray[np.int64], n: int, out: NDArray[np.int64]) -> float:
    """Writes into `out` (E,) how many of n atoms each element has, by its points; returns the points not explained.

    An atom has P // n or P // n + 1 points. Largest remainders (Hamilton's method) give the nearest whole numbers.
    """
    total = counts.sum()
    given = 0
    for e in range(len(counts)):
        out[e] = counts[e] * n // total
        given += out[e]
    while given < n:
        best, most = 0, -1
        for e in range(len(counts)):
            remainder = counts[e] * n - out[e] * total
            if remainder > most:
                best, most = e, remainder
        out[best] += 1
        given += 1
    each = total // n
    excess = 0.0
    for e in range(len(counts)):
        excess += max(0, counts[e] - out[e] * (each + (total % n > 0)), out[e] * each - counts[e])
    return excess
