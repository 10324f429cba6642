"""What a residual is worth: the measured chance that the crystal found is the one that the target was made of.

Measured by `benchmarks/calibrate_residual.py`; the table is in `docs/reconstruction.md`. Limits: the noise was
synthetic and independent from component to component, where a network's errors hang together, and the targets were
those of real crystals with their own composition, so for generated targets the numbers are upper bounds and serve to
rank candidates and to set `screen.max_residual`, not to promise anything. They hold for the default bins and solver.
"""

from __future__ import annotations

import math

CALIBRATED: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {"pair-spectrum": ((0.5, 0.1), (1.5, 0.6))}
"""Slope, and residual of even odds, by descriptor: for one element, and for more.

A single element has one pair of channels: fewer numbers than a dozen atoms have coordinates, so that other crystals
have much the same spectrum.
"""


def match_probability(residual: float, n_elements: int, descriptor: str) -> float:
    """1 / (1 + (residual / middle)^slope); NaN for a descriptor that has not been calibrated.

    "Match" is equality as the screening judges it: StructureMatcher with its default tolerances.
    """
    if descriptor not in CALIBRATED:
        return math.nan
    slope, middle = CALIBRATED[descriptor][n_elements > 1]
    return 1.0 / (1.0 + (residual / middle) ** slope)
