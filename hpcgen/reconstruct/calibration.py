"""What a residual is worth: the measured chance that the crystal found is the one that the target was made of.

Measured by `benchmarks/calibrate_residual.py --n 40` on 21 November 2026 (120 crystals of perov_5_val, carbon_24_val
and mp_20_biternary_val, none a test row; nine levels of noise up to 80 % on every component and 3 % on lengths). The
tables are in `docs/reconstruction.md`.

Limits. The noise was synthetic and independent from component to component, where a network's errors hang together.
The targets were those of real crystals, with their composition right, and many of the crystals have few atoms, which
match by chance too. So the numbers are upper bounds for generated targets: they rank candidates and help to choose
`screen.max_residual`, and promise nothing. They hold for the default bins and solver.
"""

from __future__ import annotations

import math

CALIBRATED: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "pair-spectrum": ((0.85, 0.009), (2.02, 0.97))
}
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
