"""Compiled kernels of phase retrieval: structure factors, their density on a grid, its peaks, and the data constraint.

F(G) = sum_j exp(i G . x_j) is kept as two arrays re, im (g,) over the half space of `PairTables.miller`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST
from hpcgen.represent.pair_kernels import phase_powers

FLAT_TOP = 1e-12  # curvature below which a peak has no summit between grid points


@njit(**FAST)
def structure_factors(x, inverse, miller, re, im):
    """F of point atoms at Cartesian x (n, 3) into re, im (g,)."""
    cosine, sine = phase_powers(x, inverse, miller)
    middle = cosine.shape[1] // 2
    for g in range(len(miller)):
        h0, h1, h2 = middle + miller[g, 0], middle + miller[g, 1], middle + miller[g, 2]
        sum_re, sum_im = 0.0, 0.0
        for i in range(len(x)):
            c = cosine[0, h0, i] * cosine[1, h1, i] - sine[0, h0, i] * sine[1, h1, i]
            s = cosine[0, h0, i] * sine[1, h1, i] + sine[0, h0, i] * cosine[1, h1, i]
            sum_re += c * cosine[2, h2, i] - s * sine[2, h2, i]
            sum_im += c * sine[2, h2, i] + s * cosine[2, h2, i]
        re[g], im[g] = sum_re, sum_im


@njit(**EXACT)
def fourier_table(size, points):
    """cos and sin (2 size + 1, points) of 2 pi h p / points, h = -size..size."""
    cosine, sine = np.empty((2 * size + 1, points)), np.empty((2 * size + 1, points))
    for h in range(-size, size + 1):
        for p in range(points):
            phase = 2 * math.pi * ((h * p) % points) / points
            cosine[h + size, p], sine[h + size, p] = math.cos(phase), math.sin(phase)
    return cosine, sine


@njit(**FAST)
def density(re, im, damp, miller, tables, rho):
    """rho (n1, n2, n3) = 2 sum_G damp Re(F exp(-i G . x)), one axis after the other; no FFT, whose bits are its own.

    Args:
        re, im, damp: (g,).
        tables: `fourier_table` of the three axes, each for the largest index along it.
    """
    n1, n2, n3 = rho.shape
    (cos1, sin1), (cos2, sin2), (cos3, sin3) = tables
    m1, m2, m3 = len(cos1) // 2, len(cos2) // 2, len(cos3) // 2
    width = m3 + 1
    f_re, f_im = np.zeros((2 * m1 + 1, 2 * m2 + 1, width)), np.zeros((2 * m1 + 1, 2 * m2 + 1, width))
    for g in range(len(miller)):
        sign = -1 if miller[g, 2] < 0 else 1  # F(-G) is the conjugate of F(G)
        h0, h1, h2 = sign * miller[g, 0] + m1, sign * miller[g, 1] + m2, sign * miller[g, 2]
        f_re[h0, h1, h2] = 2 * damp[g] * re[g]
        f_im[h0, h1, h2] = 2 * damp[g] * sign * im[g]
    one_re, one_im = np.empty((2 * m2 + 1, width)), np.empty((2 * m2 + 1, width))
    two_re, two_im = np.empty(width), np.empty(width)
    for a in range(n1):
        one_re[:] = 0.0
        one_im[:] = 0.0
        for h0 in range(2 * m1 + 1):
            c, s = cos1[h0, a], sin1[h0, a]
            for h1 in range(2 * m2 + 1):
                for h2 in range(width):
                    one_re[h1, h2] += f_re[h0, h1, h2] * c + f_im[h0, h1, h2] * s
                    one_im[h1, h2] += f_im[h0, h1, h2] * c - f_re[h0, h1, h2] * s
        for b in range(n2):
            two_re[:] = 0.0
            two_im[:] = 0.0
            for h1 in range(2 * m2 + 1):
                c, s = cos2[h1, b], sin2[h1, b]
                for h2 in range(width):
                    two_re[h2] += one_re[h1, h2] * c + one_im[h1, h2] * s
                    two_im[h2] += one_im[h1, h2] * c - one_re[h1, h2] * s
            row = rho[a, b]
            row[:] = 0.0
            for h2 in range(width):
                c, s = two_re[h2], two_im[h2]
                cosine, sine = cos3[m3 + h2], sin3[m3 + h2]
                for p in range(n3):
                    row[p] += c * cosine[p] + s * sine[p]


@njit(**EXACT)
def _summit(here, below, above):
    """Offset in grid steps, and rise, of the summit of the parabola through three points."""
    curvature = 2 * here - below - above
    if curvature < FLAT_TOP:
        return 0.0, 0.0
    slope = above - below
    return min(max(0.5 * slope / curvature, -0.5), 0.5), slope * slope / (8 * curvature)


@njit(**EXACT)
def _close(f, others, count, cell, images, closest):
    """Whether the fractional f (3,) lies within `closest` of one of the first `count` others or its images."""
    d = np.empty(3)
    for j in range(count):
        d[:] = 0.0
        for a in range(3):
            wrapped = f[a] - others[j, a]
            wrapped -= np.rint(wrapped)
            for z in range(3):
                d[z] += wrapped * cell[a, z]
        farthest = (closest + math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])) ** 2
        for t in range(len(images)):
            t0, t1, t2 = images[t, 0], images[t, 1], images[t, 2]
            if t0 * t0 + t1 * t1 + t2 * t2 > farthest:
                break
            if (d[0] + t0) ** 2 + (d[1] + t1) ** 2 + (d[2] + t2) ** 2 < closest * closest:
                return True
    return False


@njit(**EXACT)
def highest_peaks(rho, cell, images, closest, frac):
    """The highest maxima of rho (n1, n2, n3) that lie no closer to each other than `closest`.

    Args:
        images: lattice vectors, shortest first.
        closest: scaled angstrom.
        frac: (n, 3) fractional places of the peaks, highest first, between grid points by parabolas.

    Returns:
        How many were found, at most n; rows of `frac` beyond are unchanged.
    """
    n1, n2, n3 = rho.shape
    place, height = np.empty((rho.size, 3)), np.empty(rho.size)
    m = 0
    for a in range(n1):
        for b in range(n2):
            for c in range(n3):
                v = rho[a, b, c]
                low1, up1 = rho[a - 1, b, c], rho[a + 1 if a + 1 < n1 else 0, b, c]
                if v <= low1 or v < up1:
                    continue
                low2, up2 = rho[a, b - 1, c], rho[a, b + 1 if b + 1 < n2 else 0, c]
                if v <= low2 or v < up2:
                    continue
                low3, up3 = rho[a, b, c - 1], rho[a, b, c + 1 if c + 1 < n3 else 0]
                if v <= low3 or v < up3:
                    continue
                s1, rise1 = _summit(v, low1, up1)
                s2, rise2 = _summit(v, low2, up2)
                s3, rise3 = _summit(v, low3, up3)
                place[m, 0], place[m, 1], place[m, 2] = (a + s1) / n1, (b + s2) / n2, (c + s3) / n3
                height[m] = v + rise1 + rise2 + rise3
                m += 1
    found = 0
    for p in np.argsort(-height[:m], kind="mergesort"):
        if found == len(frac):
            break
        if not _close(place[p], frac, found, cell, images, closest):
            frac[found] = place[p]
            found += 1
    return found


@njit(**FAST)
def _solve_banded(lower, band, b):
    """Solve A x = b in place, A positive definite: `lower[i, j - i + band]` holds its lower band (Cholesky)."""
    n = len(b)
    for i in range(n):
        for j in range(max(0, i - band), i + 1):
            total = lower[i, j - i + band]
            for k in range(max(0, i - band), j):
                total -= lower[i, k - i + band] * lower[j, k - j + band]
            if i == j:
                lower[i, band] = math.sqrt(total)
            else:
                lower[i, j - i + band] = total / lower[j, band]
    for i in range(n):
        for k in range(max(0, i - band), i):
            b[i] -= lower[i, k - i + band] * b[k]
        b[i] /= lower[i, band]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, min(n, i + band + 1)):
            b[i] -= lower[k, i - k + band] * b[k]
        b[i] /= lower[i, band]


@njit(**FAST)
def meet_bins(re, im, tables, wanted, n, damping, unseen, lower, step, to_re, to_im):
    """The structure factors next to F whose intensities I fill the bins: sum_g a_gm (I_g - n) = wanted_m.

    One Gauss-Newton step of min sum |F' - F|^2 under that condition, with the phases kept: I' = I + D W^T y, where
    (W D W^T + damping) y = wanted - W (I - n) and D = I + unseen. In a bin of several reflections the
    difference so is dealt out in proportion to the intensities that the model has (as Le Bail's refinement of powder
    patterns does); a lone reflection gets its measured intensity. Reflections outside all bins stay.

    Args:
        re, im: (g,) F.
        tables: `PairTables` of the cell.
        wanted: (bins,).
        n: number of atoms.
        damping: relative to the mean diagonal.
        unseen: intensity that a reflection of none is treated as having, so that it can rise.
        lower, step: (bins, band + 1) and (bins,) working space; band >= the bins of one reflection - 1.
        to_re, to_im: (g,) the result.
    """
    weights, first, last = tables.weights, tables.first, tables.last
    bins, band = len(wanted), lower.shape[1] - 1
    lower[:] = 0.0
    step[:] = wanted
    for g in range(len(re)):
        intensity = re[g] * re[g] + im[g] * im[g]
        for m in range(first[g], last[g]):
            w = weights[g, m]
            step[m] -= w * (intensity - n)
            w *= intensity + unseen
            for k in range(first[g], m + 1):
                lower[m, k - m + band] += w * weights[g, k]
    mean = 0.0
    for m in range(bins):
        mean += lower[m, band] / bins
    for m in range(bins):
        lower[m, band] += damping * mean + 1e-12
    _solve_banded(lower, band, step)
    for g in range(len(re)):
        change = 0.0
        for m in range(first[g], last[g]):
            change += weights[g, m] * step[m]
        intensity = re[g] * re[g] + im[g] * im[g]
        scale = math.sqrt(max(intensity + (intensity + unseen) * change, 0.0) / max(intensity, 1e-20))
        to_re[g], to_im[g] = scale * re[g], scale * im[g]
