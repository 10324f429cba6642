"""Compiled value and Jacobian of the three-body block in one prepared cell; conventions as in `pair_kernels`.

The angular sum over two neighbours is never taken: cos^L(theta_jk) = (u_j . u_k)^L is a sum over the monomials of
degree L, so that sums over single neighbours, one per monomial and shell, hold everything (the EAD identity).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT, FAST
from hpcgen.represent.pair_kernels import CORE


class ThreeBodyTables(NamedTuple):
    """Everything about a cell that does not depend on where its atoms are; lengths scaled.

    Attributes:
        cell, inverse: (3, 3) scaled lattice rows and its inverse.
        images: (t, 3) lattice vectors, shortest first.
        centres: (S,) r_n; width: sigma of a shell; cutoff: range of the neighbours.
        multinomials: (M,) L!/(lx! ly! lz!) of the monomials, by degree; the first is that of degree 0.
        orders: (l_max + 2,) monomials [orders[L], orders[L + 1]) have degree L.
        lowered: (M, 2) of each monomial a coordinate that it holds, and the monomial without it (but -1, -1 first).
        raised: (M, 3) the monomial times x, y or z; -1 beyond degree l_max.
        weight: factor of the whole block.
    """

    cell: NDArray[np.float64]
    inverse: NDArray[np.float64]
    images: NDArray[np.float64]
    centres: NDArray[np.float64]
    width: float
    cutoff: float
    multinomials: NDArray[np.float64]
    orders: NDArray[np.int64]
    lowered: NDArray[np.int64]
    raised: NDArray[np.int64]
    weight: float


@njit(**EXACT)
def neighbours(x, tables):
    """Pairs within the cutoff, each once: (P, 2) atoms i <= j, and (P, 4) of u from i to the image of j, and r.

    Of an atom's own images one of each T, -T is listed. u = v / r with r >= CORE, so that u vanishes with v.
    """
    cell, inverse, images, cutoff = tables.cell, tables.inverse, tables.images, tables.cutoff
    n = len(x)
    atoms, vectors = np.empty((64 * n, 2), np.int64), np.empty((64 * n, 4))
    count = 0
    for i in range(n):
        for j in range(i, n):
            d0, d1, d2 = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            for a in range(3):
                f = np.rint(d0 * inverse[0, a] + d1 * inverse[1, a] + d2 * inverse[2, a])
                d0 -= f * cell[a, 0]
                d1 -= f * cell[a, 1]
                d2 -= f * cell[a, 2]
            farthest = (cutoff + math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)) ** 2
            for t in range(1 if i == j else 0, len(images)):
                t0, t1, t2 = images[t, 0], images[t, 1], images[t, 2]
                if t0 * t0 + t1 * t1 + t2 * t2 > farthest:
                    break
                if i == j and (t0 < 0 or (t0 == 0 and (t1 < 0 or (t1 == 0 and t2 < 0)))):
                    continue
                v0, v1, v2 = d0 + t0, d1 + t1, d2 + t2
                r2 = v0 * v0 + v1 * v1 + v2 * v2
                if r2 >= cutoff * cutoff:
                    continue
                if count == len(atoms):
                    more_atoms, more_vectors = np.empty((2 * count, 2), np.int64), np.empty((2 * count, 4))
                    more_atoms[:count] = atoms
                    more_vectors[:count] = vectors
                    atoms, vectors = more_atoms, more_vectors
                r = max(math.sqrt(r2), CORE)
                atoms[count, 0], atoms[count, 1] = i, j
                vectors[count, 0], vectors[count, 1], vectors[count, 2], vectors[count, 3] = v0 / r, v1 / r, v2 / r, r
                count += 1
    return atoms[:count], vectors[:count]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _monomials(u, lowered, out):
    """out[m] = ux^lx uy^ly uz^lz of every monomial."""
    out[0] = 1.0
    for m in range(1, len(out)):
        out[m] = u[lowered[m, 0]] * out[lowered[m, 1]]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _shells(r, centres, width, cutoff, value, slope):
    """value[n] = h_n(r) = exp(-((r - r_n)/width)^2 / 2) (1 + cos(pi r/cutoff))/2, and its derivative."""
    angle = math.pi * r / cutoff
    envelope = 0.5 * (1.0 + math.cos(angle))
    steepness = -0.5 * math.pi / cutoff * math.sin(angle)
    for n in range(len(centres)):
        y = (r - centres[n]) / width
        gauss = math.exp(-0.5 * y * y)
        value[n] = gauss * envelope
        slope[n] = gauss * (steepness - y / width * envelope)


@njit(**FAST)
def _densities(n, atoms, vectors, tables):
    """(n, M, S) A_i = sum over neighbours of h_n(r) ux^lx uy^ly uz^lz."""
    orders = tables.orders
    shells = len(tables.centres)
    density = np.zeros((n, len(tables.multinomials), shells))
    y, value, slope = np.empty(density.shape[1]), np.empty(shells), np.empty(shells)
    for p in range(len(atoms)):
        i, j = atoms[p]
        _monomials(vectors[p], tables.lowered, y)
        _shells(vectors[p, 3], tables.centres, tables.width, tables.cutoff, value, slope)
        for order in range(len(orders) - 1):
            sign = 1.0 if order % 2 == 0 else -1.0  # seen from j the vector is reversed
            for m in range(orders[order], orders[order + 1]):
                for k in range(shells):
                    density[i, m, k] += y[m] * value[k]
                    density[j, m, k] += sign * y[m] * value[k]
    return density


@njit(**FAST)
def three_body(x, species, n_channels, tables, q, jt, jacobian):
    """Add the block to the last n_channels * (l_max + 1) * (2 S - 1) components of q (D,), its derivative to jt.

    The part of an atom at v from its centre, u = v/r, in A of degree L is h u^m. So the derivative by v of
    B_n B_n' = sum_m C_m A_mn A_mn' (C multinomials) needs, with the centre's A,

        G_z,n = L sum_{m of degree L - 1} C_m u^m A_{m + z, n},    P_n = sum_m C_m u^m A_mn = (u . G_n)/L

    and is  u_z (t_n P_n' + t_n' P_n) + (h_n G_z,n' + h_n' G_z,n)/r  with  t = dh/dr - L h/r.

    Args:
        x: (n, 3) scaled Cartesian positions.
        species: (n,) channels.
        tables: `ThreeBodyTables`.
        q: (D,); jt: (3n, D) the transposed Jacobian, untouched unless `jacobian`.
    """
    n = len(x)
    multinomials, orders, raised = tables.multinomials, tables.orders, tables.raised
    shells, n_orders = len(tables.centres), len(orders) - 1
    size = n_orders * (2 * shells - 1)
    offset = len(q) - n_channels * size
    atoms, vectors = neighbours(x, tables)
    density = _densities(n, atoms, vectors, tables)
    factor = tables.weight / n
    for i in range(n):
        for order in range(n_orders):
            o = offset + species[i] * size + order * (2 * shells - 1)
            for m in range(orders[order], orders[order + 1]):
                a = density[i, m]
                e = factor * multinomials[m]
                for k in range(shells):
                    q[o + k] += e * a[k] * a[k]
                for k in range(shells - 1):
                    q[o + shells + k] += e * a[k] * a[k + 1]
    if not jacobian:
        return
    y, u = np.empty(len(multinomials)), np.empty(3)
    value, slope, bent = np.empty(shells), np.empty(shells), np.empty(shells)
    along, across, radial = np.empty(shells), np.empty((3, shells)), np.empty(2 * shells - 1)
    for b in range(len(atoms)):
        if atoms[b, 0] == atoms[b, 1]:
            continue  # an atom moves together with its own images
        r = vectors[b, 3]
        _shells(r, tables.centres, tables.width, tables.cutoff, value, slope)
        for end in range(2):  # the centre is i with neighbour j, then j with neighbour i
            centre, other = atoms[b, end], atoms[b, 1 - end]
            for z in range(3):
                u[z] = -vectors[b, z] if end else vectors[b, z]
            _monomials(u, tables.lowered, y)
            for order in range(n_orders):
                o = offset + species[centre] * size + order * (2 * shells - 1)
                across[:] = 0.0
                if order == 0:
                    along[:] = density[centre, 0]
                else:
                    for m in range(orders[order - 1], orders[order]):
                        e = order * multinomials[m] * y[m]
                        for z in range(3):
                            for k in range(shells):
                                across[z, k] += e * density[centre, raised[m, z], k]
                    for k in range(shells):
                        along[k] = (u[0] * across[0, k] + u[1] * across[1, k] + u[2] * across[2, k]) / order
                for k in range(shells):
                    bent[k] = factor * (slope[k] - order / r * value[k])
                for k in range(shells):
                    radial[k] = 2 * bent[k] * along[k]
                for k in range(shells - 1):
                    radial[shells + k] = bent[k] * along[k + 1] + bent[k + 1] * along[k]
                e = factor / r
                for z in range(3):
                    here, there = jt[3 * centre + z, o : o + 2 * shells - 1], jt[3 * other + z, o : o + 2 * shells - 1]
                    for k in range(shells):
                        step = u[z] * radial[k] + 2 * e * value[k] * across[z, k]
                        here[k] -= step
                        there[k] += step
                    for k in range(shells - 1):
                        twist = value[k] * across[z, k + 1] + value[k + 1] * across[z, k]
                        step = u[z] * radial[shells + k] + e * twist
                        here[shells + k] -= step
                        there[shells + k] += step
