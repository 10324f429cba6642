"""What a residual is worth: the measured chance that the crystal found is the one that the target was made of.

Measured by `benchmarks/calibrate_residual.py --n 40` on 21 November 2026 (on the 22nd for one element; 40 crystals each
of perov_5_val, carbon_24_val and mp_20_biternary_val, none a test row; nine levels of noise up to 80 % on every
component and 3 % on lengths). The tables are in `docs/reconstruction.md`.

Limits. The noise was synthetic and independent from component to component, where a network's errors hang together.
The targets were those of real crystals, with their composition right, and many of the crystals have few atoms, which
match by chance too. So the numbers are upper bounds for generated targets: they rank candidates and help to choose
`screen.max_residual`, and promise nothing. They hold for the default bins and solver.
"""

from __future__ import annotations

import math

from hpcgen.config import PairSpectrumConfig, RepresentationConfig

CALIBRATED: dict[tuple[int, int], tuple[float, float]] = {
    (1, 1): (1.57, 0.061),
    (2, 1): (0.85, 0.009),
    (2, 2): (2.02, 0.97),
}
"""Slope, and residual of even odds, by the elements (one, or more) of the data and of the crystal.

Data of more elements have wide bins of the structure factor, in which a single element has fewer numbers than a dozen
atoms have coordinates, so that other crystals have much the same spectrum.
"""


def match_probability(residual: float, n_elements: int, representation: RepresentationConfig) -> float:
    """1 / (1 + (residual / middle)^slope); NaN for a descriptor, or bins, that have not been calibrated.

    "Match" is equality as the screening judges it: StructureMatcher with its default tolerances.

    Args:
        residual: of the crystal.
        n_elements: in the crystal.
        representation: settings of the descriptor; those left open are as for several elements.
    """
    settings = representation.pair_spectrum.resolved(2)
    if representation.descriptor == "pair-spectrum":
        for (data, crystal), (slope, middle) in CALIBRATED.items():
            if crystal == min(n_elements, 2) and settings == PairSpectrumConfig().resolved(data):
                return 1.0 / (1.0 + (residual / middle) ** slope)
    return math.nan
