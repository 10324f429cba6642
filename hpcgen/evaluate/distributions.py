"""Distances between distributions of a property: the earth mover's distance of CDVAE, with its draws made explicit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SAMPLES = 1000
"""Valid samples that CDVAE draws for every distance."""


class Mean(NamedTuple):
    """Mean over draws and their standard deviation (0 for one draw)."""

    value: float
    spread: float

    @classmethod
    def of(cls, values: ArrayLike) -> Mean:
        """Of the values of several draws or sets."""
        array = np.asarray(values, dtype=float)
        return cls(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0)


def earth_movers(values: ArrayLike, reference: ArrayLike, *, draws: int = 5, seed: int = 0) -> Mean:
    """Wasserstein-1 distance between a property of at most `SAMPLES` valid samples and of the whole reference.

    Args:
        values: (G,) of the valid samples, in the unit of the result. With more than `SAMPLES` of them, the mean over
            `draws` draws without replacement; CDVAE makes one draw.
        reference: (R,) of the reference.
        draws: number of draws.
        seed: of the draws.

    Returns:
        NaN if there is no value on one of the sides.
    """
    from scipy.stats import wasserstein_distance

    x, y = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if not len(x) or not len(y):
        return Mean(float("nan"), 0.0)
    if len(x) <= SAMPLES:
        return Mean(float(wasserstein_distance(x, y)), 0.0)
    rng = np.random.default_rng(seed)
    return Mean.of([wasserstein_distance(rng.choice(x, SAMPLES, replace=False), y) for _ in range(draws)])
