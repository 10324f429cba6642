"""Compiled kernels of the embedded atom density: pairs to moments, moments to the brackets of the definition.

Shapes: n atoms, t lattice vectors, M monomials, E widths, K centres, and B numbers in a row of moments (all levels of
`RadialTables`, POWERS each). Everything is deterministic: no kernel uses BLAS or more than one thread.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from hpcgen.compiled import FAST
from hpcgen.crystal import FloatArray
from hpcgen.represent.ead_tables import POWERS
from hpcgen.represent.images import inverse3, lattice_images


class Cell(NamedTuple):
    """A cell and what follows from it and the cutoff alone.

    Attributes:
        lattice: (3, 3) rows, angstrom.
        inverse: (3, 3), Cartesian to fractional.
        images: (3, t) lattice vectors, shortest first: enough for any wrapped displacement.
        lengths: (t,) of them.
        own: (M, bins, POWERS) moments of an atom's own images, per unit of its weight.
    """

    lattice: FloatArray
    inverse: FloatArray
    images: FloatArray
    lengths: FloatArray
    own: FloatArray


@njit(inline="always")
def power(x, exponent):  # pragma: no cover - compiled
    value = 1.0
    for _ in range(exponent):
        value *= x
    return value


@njit(inline="always")
def displacement(frac, lattice, i, j, out):  # pragma: no cover - compiled
    """Vector from atom i to the image of j nearest by fractional coordinates; returns its length."""
    out[:] = 0.0
    for a in range(3):
        f = frac[j, a] - frac[i, a]
        f -= np.rint(f)
        for b in range(3):
            out[b] += f * lattice[a, b]
    return math.sqrt(out[0] * out[0] + out[1] * out[1] + out[2] * out[2])


@njit(**FAST)
def distances(d, images, scale, out):  # pragma: no cover - compiled
    """out[q] = scale * |d + T_q| for as many lattice vectors as `out` is long."""
    x, y, z = images
    for q in range(out.shape[0]):
        dx, dy, dz = d[0] + x[q], d[1] + y[q], d[2] + z[q]
        out[q] = scale * math.sqrt(dx * dx + dy * dy + dz * dz)


@njit(**FAST)
def _deposit(u, limit, weight, out):  # pragma: no cover - compiled
    """out[bin, d] += weight x^d of every distance u (in bins) below the limit; weight is (1,) or (len(u),)."""
    every = weight.shape[0] > 1
    for q in range(u.shape[0]):
        if u[q] < limit:
            b = int(u[q])
            x = 2.0 * (u[q] - b) - 1.0
            w = weight[q] if every else weight[0]
            x2 = x * x
            x4 = x2 * x2
            row = out[b]
            row[0] += w
            row[1] += w * x
            row[2] += w * x2
            row[3] += w * (x2 * x)
            row[4] += w * x4
            row[5] += w * (x4 * x)
            row[6] += w * (x4 * x2)
            row[7] += w * (x4 * (x2 * x))


@njit(**FAST)
def _deposit_all(d, images, exponents, u, limit, weights, out):  # pragma: no cover - compiled
    """Moments of one displacement and all lattice vectors, for every monomial: out (M, bins, POWERS)."""
    _deposit(u, limit, np.ones(1), out[0])
    for m in range(1, exponents.shape[0]):
        lx, ly, lz = exponents[m]
        for q in range(u.shape[0]):
            weights[q] = (
                power(d[0] + images[0, q], lx) * power(d[1] + images[1, q], ly) * power(d[2] + images[2, q], lz)
            )
        _deposit(u, limit, weights[: u.shape[0]], out[m])


@njit(**FAST)
def prepare(lattice, exponents, tables):  # pragma: no cover - compiled
    """The `Cell` of a lattice (3, 3)."""
    images = lattice_images(lattice, tables.cutoff)
    lengths = np.sqrt((images**2).sum(axis=1))
    bins = tables.starts[1]
    own = np.zeros((exponents.shape[0], bins, POWERS))
    others = images[1:].T.copy()
    u, d = np.empty(others.shape[1]), np.zeros(3)
    distances(d, others, 1.0 / tables.width, u)
    _deposit_all(d, others, exponents, u, float(bins), np.empty(u.shape[0]), own)
    return Cell(lattice, inverse3(lattice), images.T.copy(), lengths, own)


@njit(**FAST)
def moments(frac, cell, z, exponents, tables, closest):  # pragma: no cover - compiled
    """(n, M, B) moments of every atom's surroundings, weighted with `z`, at all levels.

    closest (6,) receives the smallest distance (the cutoff if there is no smaller one), the two atoms (equal if it is
    an atom and its own image) and the vector from the first to the second.
    """
    n, bins, n_monomials = frac.shape[0], tables.starts[1], exponents.shape[0]
    images, lengths = cell.images, cell.lengths
    size = bins * POWERS
    out = np.zeros((n, n_monomials, tables.starts[-1] * POWERS))
    pair = np.empty((n_monomials, bins, POWERS))
    u, weights, d = np.empty(lengths.shape[0]), np.empty(lengths.shape[0]), np.empty(3)
    closest[:] = 0.0
    closest[0] = tables.cutoff
    if lengths.shape[0] > 1 and lengths[1] < tables.cutoff:
        closest[0] = lengths[1]
    for i in range(n):
        for m in range(n_monomials):
            mine, self = out[i, m], cell.own[m].ravel()
            for b in range(size):
                mine[b] += z[i] * self[b]
        for j in range(i + 1, n):
            near = displacement(frac, cell.lattice, i, j, d)
            count = np.searchsorted(lengths, tables.cutoff + near)
            distances(d, images, 1.0 / tables.width, u[:count])
            least = np.argmin(u[:count])
            if u[least] * tables.width < closest[0]:
                closest[0], closest[1], closest[2] = u[least] * tables.width, i, j
                closest[3:] = d + images[:, least]
            pair[:] = 0.0
            _deposit_all(d, images, exponents, u[:count], float(bins), weights, pair)
            for m in range(n_monomials):
                sign = 1.0 if (exponents[m].sum()) % 2 == 0 else -1.0  # seen from j the vector is reversed
                at_i, at_j, both = out[i, m], out[j, m], pair[m].ravel()
                for b in range(size):
                    at_i[b] += z[j] * both[b]
                    at_j[b] += sign * z[i] * both[b]
    for i in range(n):
        for m in range(n_monomials):
            _widen(out[i, m], tables.starts)
    return out


@njit(**FAST)
def _widen(row, starts):  # pragma: no cover - compiled
    """Fill the wider levels of one row of moments from the narrowest.

    A bin's x is (x' - 1) / 2 of its left half's x' and (x' + 1) / 2 of its right half's: with e the sum and o the
    difference of the halves' moments, M_d = 2^-d sum_j binomial(d, j) (e_j if d - j is even, else o_j).
    """
    for level in range(1, starts.shape[0] - 1):
        for b in range(starts[level + 1] - starts[level]):
            left = (starts[level - 1] + 2 * b) * POWERS
            a, r = row[left : left + 8], row[left + 8 : left + 16]
            out = row[(starts[level] + b) * POWERS : (starts[level] + b + 1) * POWERS]
            e0, e1, e2, e3 = a[0] + r[0], a[1] + r[1], a[2] + r[2], a[3] + r[3]
            e4, e5, e6, e7 = a[4] + r[4], a[5] + r[5], a[6] + r[6], a[7] + r[7]
            o0, o1, o2, o3 = r[0] - a[0], r[1] - a[1], r[2] - a[2], r[3] - a[3]
            o4, o5, o6 = r[4] - a[4], r[5] - a[5], r[6] - a[6]
            out[0] = e0
            out[1] = (e1 + o0) / 2
            out[2] = (e2 + 2 * o1 + e0) / 4
            out[3] = (e3 + 3 * o2 + 3 * e1 + o0) / 8
            out[4] = (e4 + 4 * o3 + 6 * e2 + 4 * o1 + e0) / 16
            out[5] = (e5 + 5 * o4 + 10 * e3 + 10 * o2 + 5 * e1 + o0) / 32
            out[6] = (e6 + 6 * o5 + 15 * e4 + 20 * o3 + 15 * e2 + 6 * o1 + e0) / 64
            out[7] = (e7 + 7 * o6 + 21 * e5 + 35 * o4 + 35 * e3 + 21 * o2 + 7 * e1 + o0) / 128


@njit(**FAST)
def inner_sums(rows, tables):  # pragma: no cover - compiled
    """(n, M, E, K): sum_j Z_j x^lx y^ly z^lz exp(-eta (r - Rs)^2) fc(r) from the moments (n, M, B)."""
    n, n_monomials, size = rows.shape
    n_etas, n_centres = tables.first.shape
    every = rows.reshape(n * n_monomials, size)
    last = len(every) - 1
    out = np.empty((n * n_monomials, n_etas, n_centres))
    for i in range(0, last + 1, 4):  # four rows for each look at the bands, which do not fit the fastest cache
        j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        for e in range(n_etas):
            length = tables.length[e]
            for c in range(n_centres):
                first = tables.first[e, c]
                band = tables.bands[e, c, :length]
                at_i, at_j = every[i, first : first + length], every[j, first : first + length]
                at_k, at_l = every[k, first : first + length], every[m, first : first + length]
                s_i = s_j = s_k = s_l = 0.0
                for b in range(length):
                    s_i += at_i[b] * band[b]
                    s_j += at_j[b] * band[b]
                    s_k += at_k[b] * band[b]
                    s_l += at_l[b] * band[b]
                out[i, e, c], out[j, e, c], out[k, e, c], out[m, e, c] = s_i, s_j, s_k, s_l
    return out.reshape(n, n_monomials, n_etas, n_centres)


@njit(**FAST)
def densities(sums, exponents, weights):  # pragma: no cover - compiled
    """(n, l_max+1, E, K) rho from the inner sums."""
    n, n_monomials, n_etas, n_centres = sums.shape
    rho = np.zeros((n, exponents[n_monomials - 1].sum() + 1, n_etas, n_centres))
    for i in range(n):
        for m in range(n_monomials):
            to = rho[i, exponents[m].sum()]
            for e in range(n_etas):
                for k in range(n_centres):
                    to[e, k] += weights[m] * sums[i, m, e, k] * sums[i, m, e, k]
    return rho


@njit(**FAST)
def brackets(frac, cell, z, exponents, tables, closest):  # pragma: no cover - compiled
    """(n, M, E, K) the brackets of the definition, before they are squared; closest (6,) as in `moments`."""
    return inner_sums(moments(frac, cell, z, exponents, tables, closest), tables)
