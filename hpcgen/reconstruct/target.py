"""Which generated targets no crystal can have, whatever its atoms do.

A network's target is never exact, and a little below zero is nothing: so what counts is how near any crystal can come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray
from hpcgen.represent.descriptor import Descriptor

HOPELESS = 0.5  # least relative residual beyond which no crystal found would have to do with the target
ZERO = 1e-9  # a target this small says nothing: every crystal has neighbours


def never_negative(descriptor: Descriptor, n_channels: int) -> NDArray[np.bool_]:
    """(D,) True where every crystal has a value of zero or more.

    Those are the sums of positive terms (`rdf`; `max`, `min` and `distance` of EAD) and of squares: in `s` the pairs
    (c, c), which hold |F_c|^2. Its pairs (c, d) hold Re F_c F_d* and may be negative, as may the products of two
    shells in `three_body`, which is left out as a whole.
    """
    out = np.zeros(descriptor.length(n_channels), dtype=bool)
    for name, part in descriptor.blocks(n_channels).items():
        if name == "s":
            c, d = np.triu_indices(n_channels)
            out[part] = np.repeat(c == d, (part.stop - part.start) // len(c))
        elif name != "three_body":
            out[part] = True
    return out


def least_residual(descriptor: Descriptor, target: FloatArray, n_channels: int) -> float:
    """Relative residual that every crystal must exceed: the share of the target's norm that is negative in vain.

    1 for a target of zeros.
    """
    norm = float(np.sqrt(np.sum(target * target)))
    if norm < ZERO:
        return 1.0
    below = np.minimum(target[never_negative(descriptor, n_channels)], 0.0)
    return float(np.sqrt(np.sum(below * below))) / norm
