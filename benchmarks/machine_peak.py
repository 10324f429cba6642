"""What one core can do: multiply-adds per second, and bytes per second by how much memory is gone through."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST

KIB = 1024
SIZES = [KIB * k for k in (12, 24, 36, 128, 512, 1024, 1536, 2048, 3072, 4096, 16384, 131072, 1048576)]
"""Working sets in bytes, over which the bandwidth is measured; the last is meant to lie in memory."""
BLOCK, LONGEST = 0.02, 3.0  # seconds of one timing, and of all timings of one call but the first two


def cpu_seconds(call: Callable[[], object], repeats: int = 7) -> float:
    """Least CPU time of one call, of several blocks of calls: other programs share the caches and the clock."""
    call()
    begin = time.thread_time()
    call()
    count = max(1, int(BLOCK / max(time.thread_time() - begin, 1e-7)))
    best, spent = np.inf, 0.0
    for repeat in range(repeats):
        begin = time.thread_time()
        for _ in range(count):
            call()
        taken = time.thread_time() - begin
        best, spent = min(best, taken / count), spent + taken
        if repeat >= 1 and spent > LONGEST:
            break
    return best


@njit(**FAST)
def _four(v, a, b):
    v = v * a + b
    v = v * a + b
    v = v * a + b
    return v * a + b


@njit(**FAST)
def _sixteen(v, a, b):
    return _four(_four(_four(_four(v, a, b), a, b), a, b), a, b)


@njit(**EXACT)
def _multiply_add(x, y, a, b):
    """192 multiply-adds for every element, in 12 chains that do not wait for each other."""
    for i in range(len(x)):
        v0, v1, v2 = x[i], x[i] + b, x[i] - b
        v3, v4, v5 = v0 * b, v1 * b, v2 * b
        v6, v7, v8 = v0 * a, v1 * a, v2 * a
        v9, v10, v11 = v3 - a, v4 - a, v5 - a
        first = _sixteen(v0, a, b) + _sixteen(v1, a, b) + _sixteen(v2, a, b) + _sixteen(v3, a, b)
        second = _sixteen(v4, a, b) + _sixteen(v5, a, b) + _sixteen(v6, a, b) + _sixteen(v7, a, b)
        y[i] = first + second + _sixteen(v8, a, b) + _sixteen(v9, a, b) + _sixteen(v10, a, b) + _sixteen(v11, a, b)


@njit(**FAST)
def _triad(a, b, c, factor, passes):
    for _ in range(passes):
        for i in range(len(a)):
            a[i] = b[i] + factor * c[i]


def peak(dtype: type[np.floating]) -> float:
    """Floating-point operations per second, two for a multiply-add, with the vectors that numba's compiler chooses."""
    x = np.ones(2048, dtype)
    y = np.empty_like(x)
    a, b = dtype(0.5), dtype(0.25)
    return 2 * 192 * len(x) / cpu_seconds(partial(_multiply_add, x, y, a, b), 21)


def bandwidths() -> dict[int, float]:
    """Bytes per second of a triad a = b + s c (24 bytes an element of each), for every working set of `SIZES`."""
    out = {}
    for size in SIZES:
        a, b, c = (np.ones(size // 24) for _ in range(3))
        passes = max(1, (1 << 24) // size)
        seconds = cpu_seconds(partial(_triad, a, b, c, 0.5, passes), 15)
        out[size] = 24 * len(a) * passes / seconds
    return out


def bandwidth(curve: dict[int, float], working_set: float) -> float:
    """Of the smallest measured working set that holds this one."""
    return next((curve[size] for size in SIZES if size >= working_set), curve[SIZES[-1]])
