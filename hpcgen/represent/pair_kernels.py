"""Compiled value and Jacobian of the pair spectrum in one prepared cell.

Everything here is in the scaled cell of `PairTables`. The Jacobian is kept transposed, (3n, D), because each
atom's row then is contiguous over the bins that it touches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT, FAST
from hpcgen.represent.images import inverse3, lattice_images, reciprocal_half_space

TAIL = 4.5  # Gaussians are cut where they have fallen to 4e-5
FLAT = 0.6  # angstrom (scaled): 3/r stops growing below, so that an overlap cannot dominate the vector
CORE = 0.3  # angstrom (scaled): closer pairs count as this close


class PairTables(NamedTuple):
    """Everything about a cell that does not depend on where its atoms are; lengths scaled.

    Attributes:
        cell, inverse: (3, 3) scaled lattice rows and its inverse.
        images: (t, 3) lattice vectors, shortest first.
        miller: (g, 3) int64 Miller indices of the half space; waves: (g, 3) the reciprocal vectors, 2 pi included.
        weights: (g, s_bins) a_m(|G|); first, last: (g,) the bins [first, last) that are not zero.
        centres: (rdf_bins,) r_k; width: sigma of the RDF; cutoff: its range.
    """

    cell: NDArray[np.float64]
    inverse: NDArray[np.float64]
    images: NDArray[np.float64]
    miller: NDArray[np.int64]
    waves: NDArray[np.float64]
    weights: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    centres: NDArray[np.float64]
    width: float
    cutoff: float


@njit(**EXACT)
def pair_tables(cell, n_atoms, centres, width, cutoff, wave_numbers, s_width, amplitude, damping):
    """`PairTables` of a scaled cell (3, 3) with `n_atoms` atoms.

    wave_numbers (s_bins,) are k_m, ascending; amplitude and damping (1/angstrom) are the A and the 6 of a_m.
    """
    inverse = inverse3(cell)
    bins = len(wave_numbers)
    miller = reciprocal_half_space(cell, wave_numbers[-1] + TAIL * s_width)
    waves, weights = np.empty((len(miller), 3)), np.zeros((len(miller), bins))
    first, last = np.zeros(len(miller), np.int64), np.zeros(len(miller), np.int64)
    for g in range(len(miller)):
        k2 = 0.0
        for z in range(3):
            h = inverse[z, 0] * miller[g, 0] + inverse[z, 1] * miller[g, 1] + inverse[z, 2] * miller[g, 2]
            waves[g, z] = 2 * math.pi * h
            k2 += waves[g, z] ** 2
        k = math.sqrt(k2)
        height = 2 * amplitude / n_atoms / k * math.exp(-k2 / damping**2)
        for m in range(bins):
            y = (k - wave_numbers[m]) / s_width
            if abs(y) <= TAIL:
                if last[g] == 0:
                    first[g] = m
                last[g] = m + 1
                weights[g, m] = height * math.exp(-0.5 * y * y)
    images = lattice_images(cell, cutoff)
    return PairTables(cell, inverse, images, miller, waves, weights, first, last, centres, width, cutoff)


@njit(**EXACT)
def pair_index(c, d, n_channels):
    """Position of the unordered pair (c, d) in the order (0,0), (0,1), ..., (1,1), ..."""
    if c > d:
        c, d = d, c
    return c * n_channels - c * (c - 1) // 2 + d - c


@njit(**FAST)
def rdf_block(x, species, n_channels, tables, q, jt, jacobian):
    """Add (1/N) sum_{i<j,T} s_cd phi_k(r) to q (D,) and its derivative to jt (3n, D)."""
    n = len(x)
    cell, inverse, images = tables.cell, tables.inverse, tables.images
    centres, cutoff = tables.centres, tables.cutoff
    bins = len(centres)
    spacing = centres[1] - centres[0] if bins > 1 else 1.0
    inv2 = 0.5 / tables.width**2
    ratio_step = math.exp(-2 * inv2 * spacing * spacing)
    reach = TAIL * tables.width
    value = np.empty(bins)
    grad = np.empty((3, bins))
    for i in range(n):
        for j in range(i + 1, n):
            value[:] = 0.0
            grad[:] = 0.0
            d0, d1, d2 = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
            for a in range(3):
                f = np.rint(d0 * inverse[0, a] + d1 * inverse[1, a] + d2 * inverse[2, a])
                # wrapped one axis after the other: subtracting a lattice vector leaves the other fractions alone
                d0 -= f * cell[a, 0]
                d1 -= f * cell[a, 1]
                d2 -= f * cell[a, 2]
            farthest = (cutoff + math.sqrt(d0 * d0 + d1 * d1 + d2 * d2)) ** 2
            for t in range(len(images)):
                t0, t1, t2 = images[t, 0], images[t, 1], images[t, 2]
                if t0 * t0 + t1 * t1 + t2 * t2 > farthest:
                    break
                v0, v1, v2 = d0 + t0, d1 + t1, d2 + t2
                r2 = v0 * v0 + v1 * v1 + v2 * v2
                if r2 >= cutoff * cutoff:
                    continue
                r = max(math.sqrt(r2), CORE)
                low = max(0, math.ceil((r - reach - centres[0]) / spacing))
                high = min(bins, math.floor((r + reach - centres[0]) / spacing) + 1)
                if high <= low:
                    continue
                damp = 3.0 / max(r, FLAT)
                angle = math.pi * r / cutoff
                envelope = 0.5 * (1.0 + math.cos(angle)) * damp
                slope = -0.5 * math.pi / cutoff * math.sin(angle) * damp - (envelope / r if r > FLAT else 0.0)
                y = r - centres[low]
                gauss = math.exp(-y * y * inv2)
                ratio = math.exp((2 * y - spacing) * spacing * inv2)
                for k in range(low, high):
                    phi = gauss * envelope
                    value[k] += phi
                    if jacobian:
                        e = (gauss * slope - 2 * inv2 * (r - centres[k]) * phi) / r
                        grad[0, k] += e * v0
                        grad[1, k] += e * v1
                        grad[2, k] += e * v2
                    gauss *= ratio
                    ratio *= ratio_step
            c, d = species[i], species[j]
            factor = (math.sqrt(2.0) if c == d else 1.0) / n
            o = pair_index(c, d, n_channels) * bins
            for k in range(bins):
                q[o + k] += factor * value[k]
            if jacobian:
                for z in range(3):
                    for k in range(bins):
                        e = factor * grad[z, k]
                        jt[3 * i + z, o + k] -= e
                        jt[3 * j + z, o + k] += e


@njit(**FAST)
def own_images(tables):
    """(rdf_bins,) sum_{T != 0} phi_k(|T|) over the images of one atom within the cutoff."""
    images, centres, cutoff = tables.images, tables.centres, tables.cutoff
    inv2 = 0.5 / tables.width**2
    reach = TAIL * tables.width
    out = np.zeros(len(centres))
    for t in range(1, len(images)):  # the first is no translation at all
        r2 = images[t, 0] ** 2 + images[t, 1] ** 2 + images[t, 2] ** 2
        if r2 >= cutoff * cutoff:
            break
        r = max(math.sqrt(r2), CORE)
        envelope = 0.5 * (1.0 + math.cos(math.pi * r / cutoff)) * 3.0 / max(r, FLAT)
        for k in range(len(centres)):
            y = r - centres[k]
            if abs(y) <= reach:
                out[k] += math.exp(-y * y * inv2) * envelope
    return out


@njit(**EXACT)
def self_terms(tables, counts, n_channels):
    """(D,) what atoms and their own periodic images add to both blocks; counts (C,) atoms of each channel."""
    rdf_bins, s_bins = len(tables.centres), tables.weights.shape[1]
    pairs = n_channels * (n_channels + 1) // 2
    total = 0.0
    for c in range(n_channels):
        total += counts[c]
    rdf, s = own_images(tables), np.zeros(s_bins)
    for g in range(len(tables.weights)):
        for m in range(tables.first[g], tables.last[g]):
            s[m] += tables.weights[g, m]
    out = np.zeros(pairs * (rdf_bins + s_bins))
    for c in range(n_channels):
        share = math.sqrt(0.5) * counts[c] / total
        pair = pair_index(c, c, n_channels)
        for k in range(rdf_bins):
            out[pair * rdf_bins + k] = share * rdf[k]
        for m in range(s_bins):
            out[pairs * rdf_bins + pair * s_bins + m] = share * s[m]
    return out


@njit(**FAST)
def phase_powers(x, inverse, miller):
    """cos and sin (3, 2m + 1, n) of 2 pi h f_a for every axis a, index h = -m..m and atom: one product per G then."""
    n = len(x)
    m = 0
    for g in range(len(miller)):
        for a in range(3):
            m = max(m, abs(miller[g, a]))
    cosine, sine = np.ones((3, 2 * m + 1, n)), np.zeros((3, 2 * m + 1, n))
    for i in range(n):
        for a in range(3):
            f = x[i, 0] * inverse[0, a] + x[i, 1] * inverse[1, a] + x[i, 2] * inverse[2, a]
            step_re, step_im = math.cos(2 * math.pi * f), math.sin(2 * math.pi * f)
            for h in range(m):
                re, im = cosine[a, m + h, i], sine[a, m + h, i]
                cosine[a, m + h + 1, i] = cosine[a, m - h - 1, i] = re * step_re - im * step_im
                sine[a, m + h + 1, i] = re * step_im + im * step_re
                sine[a, m - h - 1, i] = -sine[a, m + h + 1, i]
    return cosine, sine


@njit(**FAST)
def s_block(x, species, n_channels, tables, offset, q, jt, jacobian):
    """Add (1/N) sum_G a_m X_cd to q[offset:] and its derivative to jt[:, offset:].

    X_cc = (sqrt(2)/2) (|F_c|^2 - n_c), X_cd = Re F_c F_d*, F_c = sum_{j in c} exp(i G . x_j).
    """
    n = len(x)
    miller, waves, weights, first, last = tables.miller, tables.waves, tables.weights, tables.first, tables.last
    bins = weights.shape[1]
    power_re, power_im = phase_powers(x, tables.inverse, miller)
    middle = power_re.shape[1] // 2
    cosine, sine = np.empty(n), np.empty(n)
    re, im, count = np.empty(n_channels), np.empty(n_channels), np.zeros(n_channels)
    for i in range(n):
        count[species[i]] += 1.0
    inv_n = 1.0 / n
    root = math.sqrt(2.0)
    for g in range(len(waves)):
        h0, h1, h2 = middle + miller[g, 0], middle + miller[g, 1], middle + miller[g, 2]
        for i in range(n):
            c0, s0, c1, s1 = power_re[0, h0, i], power_im[0, h0, i], power_re[1, h1, i], power_im[1, h1, i]
            c01, s01 = c0 * c1 - s0 * s1, c0 * s1 + s0 * c1
            cosine[i] = c01 * power_re[2, h2, i] - s01 * power_im[2, h2, i]
            sine[i] = c01 * power_im[2, h2, i] + s01 * power_re[2, h2, i]
        re[:] = 0.0
        im[:] = 0.0
        for i in range(n):
            re[species[i]] += cosine[i]
            im[species[i]] += sine[i]
        lo, hi = first[g], last[g]
        for c in range(n_channels):
            for d in range(c, n_channels):
                o = offset + pair_index(c, d, n_channels) * bins
                product = re[c] * re[d] + im[c] * im[d]
                pair = product
                if c == d:  # |F|^2 of one atom is 1: say so exactly
                    pair = 0.5 * root * (product - count[c]) if count[c] > 1 else 0.0
                for m in range(lo, hi):
                    q[o + m] += weights[g, m] * pair * inv_n
        if not jacobian:
            continue
        for i in range(n):
            c = species[i]
            for d in range(n_channels):
                # dX_cd/dx_i = G (cos im_d - sin re_d); for d = c the factor sqrt(2)/2 and both sides of |F|^2
                e = (cosine[i] * im[d] - sine[i] * re[d]) * inv_n
                if c == d:
                    e *= root
                o = offset + pair_index(c, d, n_channels) * bins
                e0, e1, e2 = e * waves[g, 0], e * waves[g, 1], e * waves[g, 2]
                for m in range(lo, hi):
                    w = weights[g, m]
                    jt[3 * i, o + m] += e0 * w
                    jt[3 * i + 1, o + m] += e1 * w
                    jt[3 * i + 2, o + m] += e2 * w


@njit(**EXACT)
def pair_spectrum(x, species, n_channels, tables, q, jt, jacobian):
    """Value q (D,) and, if asked for, transposed Jacobian jt (3n, D) at scaled Cartesian positions x (n, 3)."""
    q[:] = 0.0
    if jacobian:
        jt[:] = 0.0
    offset = n_channels * (n_channels + 1) // 2 * len(tables.centres)
    rdf_block(x, species, n_channels, tables, q, jt, jacobian)
    s_block(x, species, n_channels, tables, offset, q, jt, jacobian)
