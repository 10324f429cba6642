"""Compiled kernels of decoding: a cloud as a mixture of n atoms of one common width, and how likely that is.

A point of element e comes from each of its m_e atoms equally often, or, with a share `STRAY`, from anywhere. Around its
atom it is normal; the covariance is one full 3 x 3 matrix for all atoms, in angstrom^2, because the noise of a network
is no sphere in a long cell. Means and covariance are found by expectation and maximisation (Dempster, Laird and Rubin
1977); what n explains is weighed by Laplace's approximation to the evidence (MacKay, Neural Comput. 4, 415, 1992).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT
from hpcgen.crystal import FloatArray

FLOOR = 0.02  # angstrom: the least width of an atom, which keeps exact clouds from splitting hairs
STRAY = 0.02  # prior share of points that belong to no atom
ROUNDS = 12  # of expectation and maximisation, at most
SETTLED = 0.1  # nats: a round that gains less ends them
NEAREST = 0.8  # angstrom: nearer than this there are no two atoms, but one that a network smeared
CROWDED = 50.0  # nats that two atoms in one place cost, falling to nothing at `NEAREST`
EXCESS = 2.0  # nats that each point costs by which an atom has too many or too few
LOST = 30.0  # nats behind the best n that no more rounds make up for, twice that after the first
FAR = 50.0  # squared distance in widths from which on a point is none of an atom's
TINY = 1e-12  # share of a point below which it does not count
LOG_2PI = math.log(2 * math.pi)


@njit(**EXACT)
def fit(
    frac: FloatArray,
    slot: NDArray[np.int64],
    atoms: NDArray[np.int64],
    start: NDArray[np.int64],
    lattice: FloatArray,
    share: FloatArray,
    mean: FloatArray,
    size: FloatArray,
    spread: FloatArray,
    best: float,
) -> float:
    """The mixture of n atoms that a first assignment leads to.

    Args:
        frac: (P, 3) points.
        slot: (P,) element of each.
        atoms: (E,) m_e; their sum is n.
        start: (E,) index of the first atom of each element.
        lattice: (3, 3) rows, angstrom.
        share: (P, >= m_e) of point p in atom start[slot[p]] + j; the first assignment goes in, the last comes out.
        mean: (n, 3) fractional; a first guess, such as any point of the atom, goes in.
        size: (n,) out: points of each atom.
        spread: (2,) out: sum of squared distances to the means, angstrom^2, and of their weights.
        best: score of the best number of atoms so far.

    Returns:
        The log evidence, nats; minus infinity if an atom is left without a point.
    """
    n = len(mean)
    points = len(frac)
    volume = abs(_determinant(lattice))
    covariance, form = np.empty((3, 3)), np.empty((3, 3))
    likelihood, log_det = -np.inf, 0.0
    for step in range(ROUNDS):
        _move_means(frac, slot, atoms, start, share, mean, size)
        for k in range(n):
            if size[k] < 0.5:
                return -np.inf
        _common_width(frac, slot, atoms, start, share, mean, lattice, covariance, spread)
        log_det = math.log(_determinant(covariance))
        _quadratic_form(covariance, lattice, form)
        previous = likelihood
        likelihood = _assign(frac, slot, atoms, start, mean, form, log_det, volume, share)
        if likelihood < previous + SETTLED:
            break
        lost = 2 * LOST if step == 0 else LOST
        if _evidence(likelihood, size, slot, atoms, log_det, volume, points) < best - lost:
            return -np.inf
    return _evidence(likelihood, size, slot, atoms, log_det, volume, points) - _crowding(mean, lattice)


@njit(**EXACT)
def _crowding(mean: FloatArray, lattice: FloatArray) -> float:
    """What pairs of atoms cost that are too near to each other, nats."""
    out = 0.0
    for i in range(len(mean)):
        for j in range(i):
            square = 0.0
            u, v, w = mean[i, 0] - mean[j, 0], mean[i, 1] - mean[j, 1], mean[i, 2] - mean[j, 2]
            u, v, w = u - np.rint(u), v - np.rint(v), w - np.rint(w)
            for x in range(3):
                square += (u * lattice[0, x] + v * lattice[1, x] + w * lattice[2, x]) ** 2
            out += CROWDED * max(0.0, 1.0 - math.sqrt(square) / NEAREST)
    return out


@njit(**EXACT)
def _move_means(
    frac: FloatArray,
    slot: NDArray[np.int64],
    atoms: NDArray[np.int64],
    start: NDArray[np.int64],
    share: FloatArray,
    mean: FloatArray,
    size: FloatArray,
) -> None:
    """The circular mean of each atom's points, by one step of Newton's method from the last mean."""
    shift = np.zeros_like(mean)
    size[:] = 0.0
    for p in range(len(frac)):
        e = slot[p]
        for j in range(atoms[e]):
            w = share[p, j]
            if w > TINY:
                k = start[e] + j
                size[k] += w
                for x in range(3):
                    d = frac[p, x] - mean[k, x]
                    shift[k, x] += w * (d - np.rint(d))
    for k in range(len(mean)):
        if size[k] > 0:
            for x in range(3):
                mean[k, x] += shift[k, x] / size[k]


@njit(**EXACT)
def _common_width(
    frac: FloatArray,
    slot: NDArray[np.int64],
    atoms: NDArray[np.int64],
    start: NDArray[np.int64],
    share: FloatArray,
    mean: FloatArray,
    lattice: FloatArray,
    covariance: FloatArray,
    spread: FloatArray,
) -> None:
    """The covariance of all points about the means of their atoms, which have cost degrees of freedom."""
    moment = np.zeros((3, 3))  # of fractional differences, the upper triangle
    total = 0.0
    for p in range(len(frac)):
        e = slot[p]
        for j in range(atoms[e]):
            weight = share[p, j]
            if weight > TINY:
                k = start[e] + j
                total += weight
                u, v, w = frac[p, 0] - mean[k, 0], frac[p, 1] - mean[k, 1], frac[p, 2] - mean[k, 2]
                u, v, w = u - np.rint(u), v - np.rint(v), w - np.rint(w)
                moment[0, 0] += weight * u * u
                moment[1, 1] += weight * v * v
                moment[2, 2] += weight * w * w
                moment[0, 1] += weight * u * v
                moment[0, 2] += weight * u * w
                moment[1, 2] += weight * v * w
    moment[1, 0], moment[2, 0], moment[2, 1] = moment[0, 1], moment[0, 2], moment[1, 2]
    for x in range(3):
        for y in range(3):
            covariance[x, y] = 0.0
            for a in range(3):
                for b in range(3):
                    covariance[x, y] += lattice[a, x] * moment[a, b] * lattice[b, y]
    spread[0] = covariance[0, 0] + covariance[1, 1] + covariance[2, 2]
    spread[1] = total
    covariance /= max(total - len(mean), 1.0)
    for x in range(3):
        covariance[x, x] += FLOOR * FLOOR


@njit(**EXACT)
def _assign(
    frac: FloatArray,
    slot: NDArray[np.int64],
    atoms: NDArray[np.int64],
    start: NDArray[np.int64],
    mean: FloatArray,
    form: FloatArray,
    log_det: float,
    volume: float,
    share: FloatArray,
) -> float:
    """Writes the share of each point in each atom; returns the log likelihood of the points."""
    stray = STRAY / volume
    likelihood = 0.0
    for p in range(len(frac)):
        e = slot[p]
        total = stray
        if atoms[e] > 0:
            peak = math.log((1 - STRAY) / atoms[e]) - 1.5 * LOG_2PI - 0.5 * log_det
            for j in range(atoms[e]):
                k = start[e] + j
                u, v, w = frac[p, 0] - mean[k, 0], frac[p, 1] - mean[k, 1], frac[p, 2] - mean[k, 2]
                u, v, w = u - np.rint(u), v - np.rint(v), w - np.rint(w)
                q = form[0, 0] * u * u + form[1, 1] * v * v + form[2, 2] * w * w
                q += 2 * (form[0, 1] * u * v + form[0, 2] * u * w + form[1, 2] * v * w)
                share[p, j] = math.exp(peak - 0.5 * q) if q < FAR else 0.0
                total += share[p, j]
        for j in range(atoms[e]):
            share[p, j] /= total
        likelihood += math.log(total)
    return likelihood


@njit(**EXACT)
def _evidence(
    likelihood: float,
    size: FloatArray,
    slot: NDArray[np.int64],
    atoms: NDArray[np.int64],
    log_det: float,
    volume: float,
    points: int,
) -> float:
    """Log evidence of n atoms: the likelihood, what n free positions cost, and how evenly the points are dealt out.

    Positions are uniform in the cell, and the atoms of an element may be exchanged. That atoms have P // n points or
    one more is far from what chance would give, so where it holds it speaks for n.
    """
    each = points // len(size)
    most = each + (points % len(size) > 0)
    out = likelihood
    for k in range(len(size)):
        out += 1.5 * LOG_2PI + 0.5 * log_det - 1.5 * math.log(size[k]) - math.log(volume)
        out -= EXCESS * max(0.0, size[k] - most, each - size[k])
    for e in range(len(atoms)):
        if atoms[e] > 0:
            count = 0
            for p in range(points):
                count += slot[p] == e
            low, more = count // atoms[e], count % atoms[e]
            ways = math.lgamma(count + 1.0) - more * math.lgamma(low + 2.0) - (atoms[e] - more) * math.lgamma(low + 1.0)
            out += math.lgamma(atoms[e] + 1.0) + count * math.log(atoms[e]) - ways
    return out


@njit(**EXACT)
def _quadratic_form(covariance: FloatArray, lattice: FloatArray, out: FloatArray) -> None:
    """`out` (3, 3) = L C^-1 L^T: squared distances in widths, of fractional differences."""
    inverse = np.empty((3, 3))
    determinant = _determinant(covariance)
    for x in range(3):
        for y in range(3):
            a, b, c, d = (x + 1) % 3, (x + 2) % 3, (y + 1) % 3, (y + 2) % 3
            minor = covariance[a, c] * covariance[b, d] - covariance[a, d] * covariance[b, c]
            inverse[y, x] = minor / determinant
    for x in range(3):
        for y in range(3):
            out[x, y] = 0.0
            for u in range(3):
                for v in range(3):
                    out[x, y] += lattice[x, u] * inverse[u, v] * lattice[y, v]


@njit(**EXACT)
def _determinant(m: FloatArray) -> float:
    a = m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
    b = m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
    return a - b + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
