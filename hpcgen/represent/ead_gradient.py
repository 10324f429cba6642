"""Compiled kernels of the gradient of the embedded atom density: the transposed operations of `ead_kernels`.

The derivative of a loss by the brackets of the definition becomes, for each atom, a potential of the distance: one
polynomial a bin. Its derivative at every pair's distance is the force between the two.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hpcgen.compiled import FAST
from hpcgen.represent.ead_kernels import displacement, distances, power
from hpcgen.represent.ead_tables import POWERS


@njit(**FAST)
def _narrow(row, starts):  # pragma: no cover - compiled
    """Add each wider level's polynomials to those of the narrower: the transposed operation of `_widen`."""
    for level in range(starts.shape[0] - 2, 0, -1):
        for b in range(starts[level + 1] - starts[level]):
            wide = (starts[level] + b) * POWERS
            c0, c1, c2, c3 = row[wide], row[wide + 1] / 2, row[wide + 2] / 4, row[wide + 3] / 8
            c4, c5, c6, c7 = row[wide + 4] / 16, row[wide + 5] / 32, row[wide + 6] / 64, row[wide + 7] / 128
            left = (starts[level - 1] + 2 * b) * POWERS
            a, r = row[left : left + 8], row[left + 8 : left + 16]
            even, odd = c0 + c2 + c4 + c6, c1 + c3 + c5 + c7
            a[0] += even - odd
            r[0] += even + odd
            even, odd = c1 + 3 * c3 + 5 * c5 + 7 * c7, 2 * c2 + 4 * c4 + 6 * c6
            a[1] += even - odd
            r[1] += even + odd
            even, odd = c2 + 6 * c4 + 15 * c6, 3 * c3 + 10 * c5 + 21 * c7
            a[2] += even - odd
            r[2] += even + odd
            even, odd = c3 + 10 * c5 + 35 * c7, 4 * c4 + 20 * c6
            a[3] += even - odd
            r[3] += even + odd
            even, odd = c4 + 15 * c6, 5 * c5 + 35 * c7
            a[4] += even - odd
            r[4] += even + odd
            even, odd = c5 + 21 * c7, 6 * c6
            a[5] += even - odd
            r[5] += even + odd
            a[6] += c6 - 7 * c7
            r[6] += c6 + 7 * c7
            a[7] += c7
            r[7] += c7


@njit(**FAST)
def potentials(slopes, tables):  # pragma: no cover - compiled
    """(n, M, bins, POWERS) polynomials whose sums over an atom's pairs have the derivatives `slopes` (n, M, E, K).

    The transposed operation of `inner_sums` and of the levels. Few slopes are not zero (two atoms of each component,
    the one of the maximum and the one of the minimum), and zeros cost nothing.
    """
    n, n_monomials, n_etas, n_centres = slopes.shape
    starts = tables.starts
    out = np.empty((n, n_monomials, starts[1], POWERS))
    row = np.empty(starts[-1] * POWERS)
    for i in range(n):
        for m in range(n_monomials):
            row[:] = 0.0
            for e in range(n_etas):
                length = tables.length[e]
                for k in range(n_centres):
                    slope = slopes[i, m, e, k]
                    if slope != 0.0:
                        first = tables.first[e, k]
                        to, band = row[first : first + length], tables.bands[e, k, :length]
                        for b in range(length):
                            to[b] += slope * band[b]
            _narrow(row, starts)
            out[i, m] = row[: starts[1] * POWERS].reshape(starts[1], POWERS)
    return out


@njit(**FAST)
def _values(u, limit, polynomials, out):  # pragma: no cover - compiled
    """out[q] = value at the distances u (in bins), 0 beyond the limit."""
    for q in range(u.shape[0]):
        out[q] = 0.0
        if u[q] < limit:
            b = int(u[q])
            x = 2.0 * (u[q] - b) - 1.0
            c = polynomials[b]
            out[q] = ((((((c[7] * x + c[6]) * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit(**FAST)
def _derivatives(u, limit, polynomials, out):  # pragma: no cover - compiled
    """out[q] = derivative by x at the distances u (in bins), 0 beyond the limit."""
    for q in range(u.shape[0]):
        out[q] = 0.0
        if u[q] < limit:
            b = int(u[q])
            x = 2.0 * (u[q] - b) - 1.0
            c = polynomials[b]
            s = (((7.0 * c[7] * x + 6.0 * c[6]) * x + 5.0 * c[5]) * x + 4.0 * c[4]) * x + 3.0 * c[3]
            out[q] = (s * x + 2.0 * c[2]) * x + c[1]


@njit(**FAST)
def pull_back(frac, cell, z, slopes, exponents, tables):  # pragma: no cover - compiled
    """(n, 3) gradient with respect to Cartesian positions of a loss whose derivative by the inner sums is `slopes`.

    An atom's own images move with it, so they do not contribute.
    """
    n, n_monomials = frac.shape[0], exponents.shape[0]
    images, lengths = cell.images, cell.lengths
    polynomials = potentials(slopes, tables)
    bins = tables.starts[1]
    limit = float(bins)
    gradient = np.zeros((n, 3))
    pair = np.empty((bins, POWERS))
    u, slope, value, d = np.empty(lengths.shape[0]), np.empty(lengths.shape[0]), np.empty(lengths.shape[0]), np.empty(3)
    x, y, w = images
    per_angstrom = 2.0 / tables.width
    for i in range(n):
        for j in range(i + 1, n):
            near = displacement(frac, cell.lattice, i, j, d)
            count = np.searchsorted(lengths, tables.cutoff + near)
            distances(d, images, 1.0 / tables.width, u[:count])
            gx = gy = gz = 0.0
            for m in range(n_monomials):
                lx, ly, lz = exponents[m]
                sign = 1.0 if (lx + ly + lz) % 2 == 0 else -1.0
                at_i, at_j, both = polynomials[i, m].ravel(), polynomials[j, m].ravel(), pair.ravel()
                for b in range(both.shape[0]):
                    both[b] = z[j] * at_i[b] + sign * z[i] * at_j[b]
                _derivatives(u[:count], limit, pair, slope)
                if m == 0:
                    for q in range(count):
                        s = slope[q] * per_angstrom / (max(u[q], 1e-9) * tables.width)
                        gx += s * (d[0] + x[q])
                        gy += s * (d[1] + y[q])
                        gz += s * (d[2] + w[q])
                    continue
                _values(u[:count], limit, pair, value)
                for q in range(count):
                    vx, vy, vz = d[0] + x[q], d[1] + y[q], d[2] + w[q]
                    px, py, pz = power(vx, lx), power(vy, ly), power(vz, lz)
                    s = px * py * pz * slope[q] * per_angstrom / (max(u[q], 1e-9) * tables.width)
                    gx += s * vx + (value[q] * lx * power(vx, lx - 1) * py * pz if lx > 0 else 0.0)
                    gy += s * vy + (value[q] * ly * power(vy, ly - 1) * px * pz if ly > 0 else 0.0)
                    gz += s * vz + (value[q] * lz * power(vz, lz - 1) * px * py if lz > 0 else 0.0)
            gradient[i, 0] -= gx
            gradient[i, 1] -= gy
            gradient[i, 2] -= gz
            gradient[j, 0] += gx
            gradient[j, 1] += gy
            gradient[j, 2] += gz
    return gradient


def jacobian_of(frac, cell, z, sums, chosen, closest, exponents, weights, tables):
    """(D, 3n) derivative of the pooled vector by Cartesian positions.

    sums (n, M, E, K): the brackets; chosen (D - 1,): the atom of each maximum and minimum; closest (6,): as `moments`
    leaves it.
    """
    order = exponents.sum(axis=1)
    half = len(chosen) // 2
    out = np.zeros((len(chosen) + 1, 3 * len(frac)))
    slopes = np.zeros_like(sums)
    for c, at in enumerate(chosen):
        component, e, k = np.unravel_index(c % half, (order[-1] + 1, *sums.shape[2:]))
        of_order = order == component
        slopes[at, of_order, e, k] = 2.0 * weights[of_order] * sums[at, of_order, e, k]
        out[c] = pull_back(frac, cell, z, slopes, exponents, tables).ravel()
        slopes[at, :, e, k] = 0.0
    i, j = int(closest[1]), int(closest[2])
    if i != j and closest[0] > 1e-9:
        along = closest[3:] / closest[0]
        out[-1, 3 * j : 3 * j + 3], out[-1, 3 * i : 3 * i + 3] = along, -along
    return out
