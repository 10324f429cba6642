"""What limits the counts of decoded clouds: how far apart atoms of one element are, in widths of the noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray

WIDTHS = (0.0, 2.0, 3.0, 4.0, 6.0, 8.0, np.inf)  # standard deviations of a coordinate's noise


def separation(crystal: Crystal) -> float:
    """Distance of the nearest two atoms of one element, fractional, on the torus; infinite if there are no two."""
    first, second = np.triu_indices(len(crystal), 1)
    like = crystal.numbers[first] == crystal.numbers[second]
    away = crystal.frac[first[like]] - crystal.frac[second[like]]
    return float(np.linalg.norm(away - np.rint(away), axis=1).min(initial=np.inf))


def by_separation(
    separations: FloatArray, exact: list[NDArray[np.bool_]], noise: float
) -> dict[str, tuple[int, float]] | None:
    """Rows, and share of them exact over all seeds, between the bounds `WIDTHS`; None without noise."""
    if not noise:
        return None
    place = np.digitize(separations / (noise / 2), WIDTHS[1:-1])  # what lies far apart or alone is in the last
    of_rows = np.mean(exact, axis=0)
    names = [f"{low:g} to {high:g}" for low, high in pairwise(WIDTHS)]
    return {names[k]: (int((place == k).sum()), round(float(of_rows[place == k].mean()), 5)) for k in np.unique(place)}
