"""The pair function of one cell on a grid: what makes the loss of every position of an atom a few array passes.

RDF and structure factor are both (1/N) sum_{i<j} s Phi(x_j - x_i) of one function Phi on the lattice torus, so
that on a grid of positions a table of Phi replaces every distance and every phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT, FAST
from hpcgen.crystal import FloatArray
from hpcgen.represent.pair_kernels import CORE, FLAT, PairTables

DIVISIONS = np.array([4, 6, 8, 12, 16, 18, 24, 30, 36, 48, 60, 72])
"""Grid divisions allowed: many divisors, so that halves, thirds and quarters of the cell lie on the grid."""
RADIAL_STEP = 0.005  # angstrom (scaled): step of the table of phi_k(r)
BASIS_ERROR = 0.1  # share of a typical Phi that may be lost by projecting its components


@dataclass(frozen=True, eq=False)
class Grid:
    """Phi on the grid of one cell, in an orthonormal basis of the few directions that it spans.

    Attributes:
        shape: (n1, n2, n3) divisions of the cell.
        phi: (n1, n2, n3, K) float32, Phi of the displacement from the origin to a grid point.
        basis: (rdf_bins + s_bins, K) orthonormal columns; distances in it equal distances of the descriptor
            up to `BASIS_ERROR`. K is a multiple of 8, filled with zero columns.
    """

    shape: tuple[int, int, int]
    phi: NDArray[np.float32]
    basis: FloatArray


def divisions(cell: FloatArray, step: float) -> tuple[int, int, int]:
    """Divisions of the three lattice vectors of a scaled cell, so that no step is longer than `step` if possible."""
    wanted = np.linalg.norm(cell, axis=1) / step - 1e-6
    index = np.minimum(np.searchsorted(DIVISIONS, wanted), len(DIVISIONS) - 1)
    n1, n2, n3 = (int(n) for n in DIVISIONS[index])
    return n1, n2, n3


def build_grid(tables: PairTables, step: float) -> Grid:
    """The grid of a prepared cell with steps of about `step` (angstrom, scaled)."""
    shape = divisions(tables.cell, step)
    radial = _radial_table(tables.centres, tables.width, tables.cutoff)
    points, half = _half_grid(np.array(shape))
    phi = _pair_function(points, np.array(shape), math.lcm(*shape), tables, radial)
    basis = _row_basis(phi, BASIS_ERROR)
    return Grid(shape, _expand(_project(phi, basis), half).reshape(*shape, -1), basis)


def pair_targets(target: FloatArray, n_channels: int, bins: tuple[int, int], basis: FloatArray) -> NDArray[np.float32]:
    """(C, C, K) float32 target of each pair of channels in the grid's basis, symmetric in the pair."""
    rdf_bins, s_bins = bins
    pairs = n_channels * (n_channels + 1) // 2
    rdf, s = target[: pairs * rdf_bins], target[pairs * rdf_bins :]
    rows = np.concatenate([rdf.reshape(pairs, rdf_bins), s.reshape(pairs, s_bins)], axis=1)
    projected = _project(rows, basis)
    out = np.empty((n_channels, n_channels, basis.shape[1]), np.float32)
    p = 0
    for c in range(n_channels):
        for d in range(c, n_channels):
            out[c, d] = out[d, c] = projected[p]
            p += 1
    return out


def _radial_table(centres: FloatArray, width: float, cutoff: float) -> NDArray[np.float32]:
    """(cutoff / RADIAL_STEP + 2, rdf_bins) values of phi_k(r)."""
    r = np.maximum(np.arange(int(cutoff / RADIAL_STEP) + 2) * RADIAL_STEP, CORE)[:, None]
    envelope = np.where(r < cutoff, 0.5 * (1 + np.cos(math.pi * r / cutoff)), 0.0) * 3.0 / np.maximum(r, FLAT)
    return (np.exp(-0.5 * ((r - centres) / width) ** 2) * envelope).astype(np.float32)


@njit(**EXACT)
def _half_grid(shape):
    """One of each pair of points +-g: (p, 3) points, and for every grid point the row that stands for it."""
    n1, n2, n3 = shape
    points = np.empty((n1 * n2 * n3, 3), np.int64)
    half = np.full(n1 * n2 * n3, -1)
    m = 0
    for a in range(n1):
        for b in range(n2):
            for c in range(n3):
                here = (a * n2 + b) * n3 + c
                opposite = (((n1 - a) % n1) * n2 + (n2 - b) % n2) * n3 + (n3 - c) % n3
                if opposite < here:
                    half[here] = half[opposite]
                    continue
                half[here] = m
                points[m, 0], points[m, 1], points[m, 2] = a, b, c
                m += 1
    return points[:m].copy(), half


@njit(**FAST)
def _pair_function(points, shape, period, tables, radial):
    """(p, rdf_bins + s_bins) Phi at grid points: sum_T phi_k(|d + T|) and sum_{G half} a_m(|G|) cos(G . d)."""
    cell, images, miller = tables.cell, tables.images, tables.miller
    rdf_bins = radial.shape[1]
    out = np.zeros((len(points), rdf_bins + tables.weights.shape[1]))
    row = np.empty(rdf_bins, np.float32)
    cosine = np.cos(2 * math.pi * np.arange(period) / period)  # phases of grid points are multiples of 2 pi/period
    step = np.empty((len(miller), 3), np.int64)
    for g in range(len(miller)):
        for a in range(3):
            step[g, a] = miller[g, a] % shape[a] * (period // shape[a])
    for p in range(len(points)):
        d0, d1, d2 = 0.0, 0.0, 0.0
        for a in range(3):
            f = points[p, a] / shape[a]
            if f > 0.5:
                f -= 1.0
            d0 += f * cell[a, 0]
            d1 += f * cell[a, 1]
            d2 += f * cell[a, 2]
        farthest = (tables.cutoff + math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)) ** 2
        row[:] = 0
        for t in range(len(images)):
            t0, t1, t2 = images[t, 0], images[t, 1], images[t, 2]
            if t0 * t0 + t1 * t1 + t2 * t2 > farthest:
                break
            r2 = (d0 + t0) ** 2 + (d1 + t1) ** 2 + (d2 + t2) ** 2
            if r2 < tables.cutoff**2:
                entry = int(math.sqrt(r2) / RADIAL_STEP + 0.5)
                for k in range(rdf_bins):
                    row[k] += radial[entry, k]
        for k in range(rdf_bins):
            out[p, k] = row[k]
        p0, p1, p2 = points[p]
        for g in range(len(miller)):
            w = cosine[(step[g, 0] * p0 + step[g, 1] * p1 + step[g, 2] * p2) % period]
            for m in range(tables.first[g], tables.last[g]):
                out[p, rdf_bins + m] += tables.weights[g, m] * w
    return out


@njit(**FAST)
def _dot(a, b):
    total = 0.0
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@njit(**FAST)
def _row_basis(rows, error):
    """(D, K) orthonormal basis of the rows (p, D), by Gram-Schmidt with the largest remainder as the next pivot.

    Stops when no remainder exceeds `error` times the root mean square of the rows; K is padded to a multiple
    of 8 by zero columns. Needs no LAPACK and so gives the same bits everywhere.
    """
    count, size = rows.shape
    remainder = np.empty(count)
    for p in range(count):
        remainder[p] = _dot(rows[p], rows[p])
    floor = error * error * _dot(remainder, np.ones(count)) / count
    basis = np.zeros((size + 8, size))
    k = 0
    while k < size:
        pivot = np.argmax(remainder)
        if remainder[pivot] <= floor:
            break
        v = rows[pivot].copy()
        for _ in range(2):  # twice is enough
            for b in range(k):
                v -= _dot(basis[b], v) * basis[b]
        norm = math.sqrt(_dot(v, v))
        if norm * norm <= 1e-3 * floor:
            break
        basis[k] = v / norm
        for p in range(count):
            remainder[p] -= _dot(rows[p], basis[k]) ** 2
        k += 1
    return basis[: max(8, (k + 7) // 8 * 8)].T.copy()


@njit(**FAST)
def _project(rows, basis):
    """rows @ basis, without BLAS, whose results depend on its threads."""
    out = np.zeros((len(rows), basis.shape[1]))
    for p in range(len(rows)):
        for d in range(basis.shape[0]):
            for k in range(basis.shape[1]):
                out[p, k] += rows[p, d] * basis[d, k]
    return out


@njit(**EXACT)
def _expand(rows, half):
    """The table of all grid points, float32, from that of one of each pair."""
    out = np.empty((len(half), rows.shape[1]), np.float32)
    for g in range(len(half)):
        for k in range(rows.shape[1]):
            out[g, k] = rows[half[g], k]
    return out
