"""Random numbers inside compiled kernels: one stream per search, passed in, so that nothing is global."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT

NEGLIGIBLE = 16.0  # positions whose Boltzmann weight is below exp(-16) of the best are left out


@njit(**EXACT)
def uniform(state):
    """Next number in [0, 1) of the splitmix64 stream (Steele, Lea and Flood 2014) in `state` (1,) uint64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(**EXACT)
def heat_bath(loss, inverse_temperature, state):
    """Index drawn with probability proportional to exp(-loss * inverse_temperature)."""
    best = int(np.argmin(loss))
    total = 0.0
    for g in range(len(loss)):
        e = (loss[g] - loss[best]) * inverse_temperature
        if e < NEGLIGIBLE:
            total += math.exp(-e)
    threshold = uniform(state) * total
    total = 0.0
    for g in range(len(loss)):
        e = (loss[g] - loss[best]) * inverse_temperature
        if e < NEGLIGIBLE:
            total += math.exp(-e)
            if total > threshold:
                return g
    return best
