"""Errors of denoised lattice lengths and coordinates as table 1 of the PCCD paper gives them (iScience 28, 111659).

The paper draws a box for each of a, b, c, x, y, z, takes the ends of its whiskers (1.5 times the distance between the
quartiles beyond them) as limits, and counts what lies within. Such limits follow from the errors themselves: wider
errors make wider limits. So the same errors are held against the paper's own limits as well.

Lengths are of the structures with the right number of atoms, coordinates of those with the right composition.
Coordinates are compared as differences in units of the cell's edge, to the nearest image; the paper says "relative
errors", took atoms on faces out, and paired atoms greedily.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcgen.crystal import FloatArray
from hpcgen.family.denoising import Denoised, paired

LENGTHS, COORDINATES = ("a", "b", "c"), ("x", "y", "z")
PAPER = {
    "a": (0.8848, -0.0512, 0.0381),
    "b": (0.9055, -0.0523, 0.0366),
    "c": (0.8940, -0.0490, 0.0357),
    "x": (0.7083, -0.0650, 0.1005),
    "y": (0.7160, -0.0384, 0.0544),
    "z": (0.7202, -0.0409, 0.0644),
}
"""Share within the limits, lower and upper limit: table 1 of the paper, after 1000 steps, on its training data."""
WHISKER = 1.5


def parity(rows: Sequence[Denoised]) -> dict[str, dict[str, float]]:
    """Of each of a, b, c, x, y, z: `within_paper`, the share within the paper's limits; `lower` and `upper`, the ends
    of our own whiskers; `within`, the share within these. NaN where nothing can be compared.

    Args:
        rows: of one starting step.
    """
    counted = [r.pair for r in rows if r.atoms_right and r.pair is not None]
    placed = [r.pair for r in rows if r.composition_right and r.pair is not None]
    lengths = [ours.parameters[:3] / real.parameters[:3] - 1 for real, ours in counted]
    ways = [paired(real, ours)[1] for real, ours in placed]
    errors = dict(zip(LENGTHS, np.array(lengths).reshape(-1, 3).T, strict=True))
    errors |= dict(zip(COORDINATES, np.concatenate([np.zeros((0, 3)), *ways]).T, strict=True))
    return {name: _box(values, *PAPER[name][1:]) for name, values in errors.items()}


def _box(values: FloatArray, low: float, high: float) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("within_paper", "lower", "upper", "within"), float("nan"))
    first, third = np.percentile(values, [25, 75])
    reach = WHISKER * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    return {
        "within_paper": float(((values >= low) & (values <= high)).mean()),
        "lower": float(inside.min()),
        "upper": float(inside.max()),
        "within": len(inside) / len(values),
    }
