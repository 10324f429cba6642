"""Piecewise polynomials in place of the Gaussians of the embedded atom density.

A sum over pairs of a smooth function of the distance needs the pairs only through their moments: where the function
is a polynomial of degree 7 on each bin of distances, sum_j w_j f(r_j) = sum over bins b, powers d of
f[b, d] * sum over the j in b of w_j x_j^d, with x in [-1, 1) the position in the bin. So a pair costs eight
multiplications and additions whatever the number of widths and centres, and the gradient of a loss is the derivative
of one polynomial. Wider Gaussians take wider bins (levels of the grid): the moments of two neighbouring bins are
exactly those of their union, shifted.

The functions are g(r) = exp(-eta (r - Rs)^2) fc(r), with fc the cosine cutoff. On bins of 1.05 standard deviations the
largest error is 1e-7 of the height, and 1e-8 of a crystal's vector.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray

POWERS = 8  # of a polynomial of degree 7: one vector register of double precision
_BIN = 1.3  # widest bin, in standard deviations of a Gaussian
_BINS_OF_CUTOFF = 8  # fewest bins between 0 and the cutoff, for the cosine
_NEGLIGIBLE = 1e-9  # coefficients below this of a Gaussian's height are dropped


class RadialTables(NamedTuple):
    """The functions as polynomials; B bins of level l are 2^l times as wide as the narrowest.

    Attributes:
        cutoff: angstrom.
        width: angstrom, of the narrowest bins.
        starts: (levels + 1,) where each level's bins begin in a row of all levels' moments, in bins.
        first: (E, K) where the band of a function begins in that row, in numbers.
        length: (E,) numbers in a band.
        bands: (E, K, longest) coefficients of each function, by bin and power.
    """

    cutoff: float
    width: float
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    bands: FloatArray


def radial_tables(cutoff: float, etas: FloatArray, centres: FloatArray) -> RadialTables:
    """Tables of all products of a Gaussian (E widths `etas`, 1/angstrom^2; K `centres`, angstrom) and the cutoff."""
    widest = np.minimum(_BIN / np.sqrt(2 * etas), cutoff / _BINS_OF_CUTOFF)
    level = np.floor(np.log2(widest / widest.min()) + 1e-9).astype(np.int64)
    coarsest = 2 ** int(level.max())
    bins = coarsest * math.ceil(cutoff / widest.min() / coarsest)
    width = cutoff / bins
    starts = np.concatenate([[0], np.cumsum([bins >> k for k in range(int(level.max()) + 1)])])

    functions = [
        _polynomials(cutoff, eta, centres, width * 2.0**k, bins >> int(k)) for eta, k in zip(etas, level, strict=True)
    ]
    spans = [_spans(f) for f in functions]
    longest = max(int((high - low).max()) for low, high in spans)
    first = np.zeros((len(etas), len(centres)), dtype=np.int64)
    length = np.zeros(len(etas), dtype=np.int64)
    bands = np.zeros((len(etas), len(centres), longest * POWERS))
    for e, (f, (low, high)) in enumerate(zip(functions, spans, strict=True)):
        n = int((high - low).max())
        low = np.minimum(low, len(f) - n)
        for k in range(len(centres)):
            bands[e, k, : n * POWERS] = f[low[k] : low[k] + n, :, k].ravel()
        first[e] = (starts[level[e]] + low) * POWERS
        length[e] = n * POWERS
    return RadialTables(cutoff, width, starts, first, length, bands)


def _polynomials(cutoff: float, eta: float, centres: FloatArray, width: float, bins: int) -> FloatArray:
    """(bins, POWERS, K) coefficients in x in [-1, 1], by interpolation at Chebyshev points."""
    x = np.cos(np.pi * (np.arange(POWERS) + 0.5) / POWERS)
    r = (np.arange(bins)[:, None] + 0.5 + 0.5 * x) * width
    fc = 0.5 * (1 + np.cos(np.pi * r / cutoff))
    values = fc[..., None] * np.exp(-eta * (r[..., None] - centres) ** 2)
    return np.linalg.inv(np.vander(x, increasing=True)) @ values


def _spans(f: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) first bin that each function reaches, and (K,) one past its last."""
    reached = np.abs(f).max(axis=1) > _NEGLIGIBLE
    reached[-1] |= ~reached.any(axis=0)  # a centre at the cutoff may reach no bin
    return np.argmax(reached, axis=0), len(f) - np.argmax(reached[::-1], axis=0)
