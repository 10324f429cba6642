"""Compiled parts of a gated MLP over messages on a CPU, forwards and backwards; `gated.py` puts them together.

Torch passes over the messages some forty times a layer, once for each elementwise function and its derivative; these
pass over them four times. A message is a row; its numbers depend on no other row. All arrays are float32 and
contiguous, widths are W = 64 and 2 W.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import FAST, FUSED

Array = NDArray[np.float32]
Index = NDArray[np.int64]

WIDTH = 64
ONE, HALF = np.float32(1), np.float32(0.5)
PER_ROW = np.float32(1 / WIDTH)
LIMIT = np.float32(7.90531110763549805)  # beyond it tanh is 1 in single precision
# tanh(x) = x P(x^2) / Q(x^2), the rational minimax approximation of Eigen, good to some 1e-7
P0, P1, P2, P3, P4, P5, P6 = (
    np.float32(c)
    for c in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
Q0, Q1, Q2, Q3 = (
    np.float32(c) for c in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)


@njit(**FAST)
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + exp(-x)), by arithmetic that the compiler can do for many at once."""
    t = min(max(HALF * x, -LIMIT), LIMIT)
    s = t * t
    p = P0 + s * (P1 + s * (P2 + s * (P3 + s * (P4 + s * (P5 + s * P6)))))
    q = Q0 + s * (Q1 + s * (Q2 + s * Q3))
    return HALF + HALF * t * p / q


@njit(**FUSED)
def multiply(x: Array, weight: Array, out: Array) -> None:
    """`out` (M, N) becomes x (M, K) @ weight (K, N), each number a chain of K multiply-adds in the order of the terms.

    A BLAS takes other paths for few rows (MKL one for a single row, on AMD's Zen also for two and three), whose sums
    have other last digits. Two rows at a time share the weights that are loaded, four terms a row of `out`; an odd
    last row goes with the one before it, once more.
    """
    rows, terms = x.shape
    whole = terms // 4 * 4
    for first in range(0, rows, 2):
        j = min(first + 1, rows - 1)
        i = max(j - 1, 0)
        for n in range(weight.shape[1]):
            out[i, n] = np.float32(0)
            out[j, n] = np.float32(0)
        for k in range(0, whole, 4):
            x0, x1, x2, x3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            y0, y1, y2, y3 = x[j, k], x[j, k + 1], x[j, k + 2], x[j, k + 3]
            for n in range(weight.shape[1]):
                w0, w1, w2, w3 = weight[k, n], weight[k + 1, n], weight[k + 2, n], weight[k + 3, n]
                s = out[i, n] + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3
                t = out[j, n] + y0 * w0 + y1 * w1 + y2 * w2 + y3 * w3
                out[i, n], out[j, n] = s, t
        for k in range(whole, terms):
            for n in range(weight.shape[1]):
                s, t = out[i, n] + x[i, k] * weight[k, n], out[j, n] + x[j, k] * weight[k, n]
                out[i, n], out[j, n] = s, t


@njit(**FAST)
def enter(
    own: Array, owned: bool, bias: Array, a: Array, ia: Index, b: Array, ib: Index, c: Array, ic: Index,
    active: bool, h: Array, core: Array, gate: Array,
) -> None:  # fmt: skip
    """Gather the first layer's parts of each message, add them up in `h`; SiLU of it, or itself, in `core` and `gate`.

    Args:
        own: (M, 2 W) a part of each message's own, looked at if `owned`.
        bias: (2 W,).
        a, b, c: (., 2 W) parts shared by messages; ia, ib, ic: (M,) their rows.
        active: whether a second layer follows, so that SiLU stands between.
        h: (M, 2 W); core, gate: (M, W): results.
    """
    for m in range(len(ia)):
        i, j, k = ia[m], ib[m], ic[m]
        for w in range(2 * WIDTH):
            h[m, w] = bias[w] + a[i, w] + b[j, w] + c[k, w]
        if owned:
            for w in range(2 * WIDTH):
                h[m, w] += own[m, w]
        if active:
            for w in range(WIDTH):
                core[m, w] = h[m, w] * sigmoid(h[m, w])
                gate[m, w] = h[m, WIDTH + w] * sigmoid(h[m, WIDTH + w])
        else:
            for w in range(WIDTH):
                core[m, w] = h[m, w]
                gate[m, w] = h[m, WIDTH + w]


@njit(**FAST)
def enter_backwards(
    d_core: Array, d_gate: Array, active: bool, h: Array, ia: Index, ib: Index, ic: Index,
    da: Array, db: Array, dc: Array,
) -> None:  # fmt: skip
    """Gradients by what `enter` gathered, added to `da`, `db`, `dc`; `h` becomes the gradient by itself."""
    for m in range(len(ia)):
        i, j, k = ia[m], ib[m], ic[m]
        if active:
            for w in range(WIDTH):
                s = sigmoid(h[m, w])
                h[m, w] = d_core[m, w] * s * (ONE + h[m, w] * (ONE - s))
                s = sigmoid(h[m, WIDTH + w])
                h[m, WIDTH + w] = d_gate[m, w] * s * (ONE + h[m, WIDTH + w] * (ONE - s))
        else:
            for w in range(WIDTH):
                h[m, w] = d_core[m, w]
                h[m, WIDTH + w] = d_gate[m, w]
        for w in range(2 * WIDTH):
            da[i, w] += h[m, w]
        for w in range(2 * WIDTH):
            db[j, w] += h[m, w]
        for w in range(2 * WIDTH):
            dc[k, w] += h[m, w]


@njit(**FAST)
def normalise(x: Array, m: int, bias: Array, eps: np.float32, out: Array) -> np.float32:
    """Row m of `x` plus `bias`, to mean 0 and variance 1, into `out` (W,); returns the factor."""
    mean = np.float32(0)
    for w in range(WIDTH):
        out[w] = x[m, w] + bias[w]
        mean += out[w]
    mean *= PER_ROW
    variance = np.float32(0)
    for w in range(WIDTH):
        out[w] -= mean
        variance += out[w] * out[w]
    factor = ONE / np.sqrt(variance * PER_ROW + eps)
    for w in range(WIDTH):
        out[w] *= factor
    return factor


@njit(**FAST)
def leave(
    core: Array, gate: Array, layer: Array, eps: np.float32, weight: Array, weighted: bool, iw: Index,
    owner: Index, total: Array,
) -> None:  # fmt: skip
    """Both layer norms, SiLU(core) sigmoid(gate) times the weight of each message, added up by owner.

    Args:
        core, gate: (M, W) of the last linear layer, without bias.
        layer: (6, W) bias, factor and shift of the core's norm, then of the gate's.
        eps: of the norms.
        weight: (., W), looked at if `weighted`; iw: (M,) its rows.
        owner: (M,) row of `total` (., W), to which the messages are added in their order.
    """
    c, g = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    for m in range(len(owner)):
        normalise(core, m, layer[0], eps, c)
        normalise(gate, m, layer[3], eps, g)
        for w in range(WIDTH):
            n = c[w] * layer[1, w] + layer[2, w]
            c[w] = n * sigmoid(n) * sigmoid(g[w] * layer[4, w] + layer[5, w])
        if weighted:
            for w in range(WIDTH):
                c[w] *= weight[iw[m], w]
        for w in range(WIDTH):
            total[owner[m], w] += c[w]


@njit(**FAST)
def leave_backwards(
    d_total: Array, core: Array, gate: Array, layer: Array, eps: np.float32, weight: Array, weighted: bool, iw: Index,
    owner: Index, d_weight: Array,
) -> None:  # fmt: skip
    """`core` and `gate` become the gradients by themselves; those by the weights are added to `d_weight`."""
    c, g = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    dc, dg = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    for m in range(len(owner)):
        factor_c = normalise(core, m, layer[0], eps, c)
        factor_g = normalise(gate, m, layer[3], eps, g)
        o, r = owner[m], iw[m] if weighted else 0
        for w in range(WIDTH):
            n = c[w] * layer[1, w] + layer[2, w]
            s, t = sigmoid(n), sigmoid(g[w] * layer[4, w] + layer[5, w])
            d = d_total[o, w]
            if weighted:
                d_weight[r, w] += d * n * s * t
                d *= weight[r, w]
            dc[w] = d * t * s * (ONE + n * (ONE - s)) * layer[1, w]
            dg[w] = d * n * s * t * (ONE - t) * layer[4, w]
        _normalise_backwards(dc, c, factor_c, core, m)
        _normalise_backwards(dg, g, factor_g, gate, m)


@njit(**FAST)
def _normalise_backwards(d: Array, normal: Array, factor: np.float32, out: Array, m: int) -> None:
    """Gradient by row m of what `normalise` took, from that by what it gave."""
    mean, along = np.float32(0), np.float32(0)
    for w in range(WIDTH):
        mean += d[w]
        along += d[w] * normal[w]
    mean *= PER_ROW
    along *= PER_ROW
    for w in range(WIDTH):
        out[m, w] = factor * (d[w] - mean - normal[w] * along)
