"""Lattice vectors and reciprocal vectors within a radius: all of them, whatever the basis of the lattice."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT


@njit(**EXACT)
def inverse3(m):
    """(3, 3) inverse by cofactors: no LAPACK, so the same bits under any number of threads."""
    out = np.empty((3, 3))
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for d in range(3):
            e, f = (d + 1) % 3, (d + 2) % 3
            out[d, a] = m[b, e] * m[c, f] - m[b, f] * m[c, e]
    det = m[0, 0] * out[0, 0] + m[0, 1] * out[1, 0] + m[0, 2] * out[2, 0]
    return out / det


@njit(**EXACT)
def volume3(m):
    """Volume of the cell with rows `m` (3, 3), by the triple product."""
    total = 0.0
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        total += m[0, a] * (m[1, b] * m[2, c] - m[1, c] * m[2, b])
    return abs(total)


@njit(**EXACT)
def lattice_images(cell, cutoff):
    """(t, 3) lattice vectors, shortest first, that bring any displacement wrapped to |frac| <= 1/2 within `cutoff`.

    The range of each index follows from the distance of the lattice planes, so that sheared bases of the
    same lattice lose nothing.
    """
    inverse = inverse3(cell)
    radius = 0.0  # half the longest body diagonal bounds a wrapped displacement
    for s0 in (-1.0, 1.0):
        for s1 in (-1.0, 1.0):
            v = 0.5 * (s0 * cell[0] + s1 * cell[1] + cell[2])
            radius = max(radius, math.sqrt(np.sum(v * v)))
    count = np.empty(3, np.int64)
    for a in range(3):
        planes = math.sqrt(np.sum(inverse[:, a] ** 2))  # 1 / distance of the lattice planes
        count[a] = math.floor(cutoff * planes + 0.5 + 1e-9)
    out = np.empty(((2 * count[0] + 1) * (2 * count[1] + 1) * (2 * count[2] + 1), 3))
    square = np.empty(len(out))
    m = 0
    limit = (cutoff + radius) ** 2
    for i in range(-count[0], count[0] + 1):
        for j in range(-count[1], count[1] + 1):
            for k in range(-count[2], count[2] + 1):
                r2 = 0.0
                for z in range(3):
                    out[m, z] = i * cell[0, z] + j * cell[1, z] + k * cell[2, z]
                    r2 += out[m, z] ** 2
                if r2 < limit:
                    square[m] = r2
                    m += 1
    return out[:m][np.argsort(square[:m], kind="mergesort")].copy()


@njit(**EXACT)
def reciprocal_half_space(cell, k_max):
    """(g, 3) Miller indices of one of each pair +-G of the reciprocal lattice vectors with 0 < |G| < k_max.

    G includes the factor 2 pi. |h_a| <= k_max |a| / 2 pi because h_a = G . a / 2 pi.
    """
    inverse = inverse3(cell)
    count = np.empty(3, np.int64)
    for a in range(3):
        count[a] = math.floor(k_max * math.sqrt(np.sum(cell[a] ** 2)) / (2 * math.pi) + 1e-9)
    out = np.empty(((count[0] + 1) * (2 * count[1] + 1) * (2 * count[2] + 1), 3), np.int64)
    m = 0
    for i in range(count[0] + 1):
        for j in range(-count[1], count[1] + 1):
            for k in range(-count[2], count[2] + 1):
                if i == 0 and (j < 0 or (j == 0 and k <= 0)):
                    continue
                g2 = 0.0
                for z in range(3):
                    g2 += (2 * math.pi * (inverse[z, 0] * i + inverse[z, 1] * j + inverse[z, 2] * k)) ** 2
                if g2 < k_max * k_max:
                    out[m, 0], out[m, 1], out[m, 2] = i, j, k
                    m += 1
    return out[:m].copy()
