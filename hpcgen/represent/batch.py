"""Encodes many crystals, in threads if asked: the compiled kernels release Python's lock while they work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.composition import species_channels

Encode = Callable[[Crystal, NDArray[np.int64], int], FloatArray]
_CHUNK = 64  # crystals that a thread takes at a time


def encode_each(
    encode: Encode, crystals: Sequence[Crystal], n_channels: int, length: int, threads: int = 1
) -> FloatArray:
    """(M, D) the vector of every crystal by `encode`, each into its own row: the same bits for any number of threads.

    Args:
        encode: the descriptor's `encode(crystal, species, n_channels)`.
        crystals: (M,) of them; their channels are those of `species_channels`.
        n_channels: C.
        length: D.
        threads: at work at the same time.

    Raises:
        ValueError: if there is no thread, and what `encode` raises, for the first crystal that does not fit.
    """
    if threads < 1:
        raise ValueError(f"at least one thread is needed, not {threads}")
    out = np.empty((len(crystals), length))

    def work(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(crystals))):
            out[i] = encode(crystals[i], species_channels(crystals[i].numbers)[0], n_channels)

    starts = range(0, len(crystals), _CHUNK)
    if threads == 1:
        for start in starts:
            work(start)
        return out
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, start) for start in starts]:
            done.result()
    return out
