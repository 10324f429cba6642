"""Coverage of CDVAE: how many real crystals have a generated one near them (recall), and the reverse (precision).

A crystal is near another set if its smallest distance to it in the structure fingerprint and its smallest distance in
the composition fingerprint, each sought on its own, are both within their thresholds (`compute_cov` of CDVAE).
Recall goes over the reference; precision counts what has no fingerprint as not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray

BLOCK = 512  # rows of the distance matrix at a time: 10,000 by 10,000 in double precision are 800 MB


class Thresholds(NamedTuple):
    """Largest distances that count as near, in the units of the fingerprints."""

    structure: float
    composition: float

    @property
    def name(self) -> str:
        """`10, 0.4`: composition, structure."""
        return f"{self.composition:g}, {self.structure:g}"


CDVAE: Mapping[str, Thresholds] = {
    "perov": Thresholds(0.2, 4),
    "carbon": Thresholds(0.2, 4),
    "mp": Thresholds(0.4, 10),
}
"""`COV_Cutoffs` of CDVAE's script, by kind of data."""

STRUCTREPDIFF: Mapping[str, Thresholds] = {
    "perov": Thresholds(0.8, 6),
    "carbon": Thresholds(1.0, 4),
    "mp": Thresholds(0.6, 12),
}
"""Those of StructRepDiff (arXiv 2408.07213), which are laxer: numbers of the two are not comparable."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """Smallest distances between two sets.

    Attributes:
        recall_structure: (R,) of each reference crystal to the generated ones.
        recall_composition: (R,) likewise.
        precision_structure: (G,) of each generated crystal to the reference; infinite without fingerprint.
        precision_composition: (G,) likewise.
    """

    recall_structure: FloatArray
    recall_composition: FloatArray
    precision_structure: FloatArray
    precision_composition: FloatArray

    def covered(self, thresholds: Thresholds) -> NDArray[np.bool_]:
        """(R,) which reference crystals are covered."""
        return (self.recall_structure <= thresholds.structure) & (self.recall_composition <= thresholds.composition)

    def recall(self, thresholds: Thresholds) -> float:
        """COV-R: share of the reference that is covered."""
        return float(self.covered(thresholds).mean())

    def precision(self, thresholds: Thresholds) -> float:
        """COV-P: share of everything generated that is near the reference."""
        near = self.precision_structure <= thresholds.structure
        return float((near & (self.precision_composition <= thresholds.composition)).mean())


def nearest(
    structure: FloatArray, composition: FloatArray, ref_structure: FloatArray, ref_composition: FloatArray
) -> Nearest:
    """Smallest distances between generated and reference crystals.

    Args:
        structure: (G, 61) fingerprints of what was generated; rows of NaN have none.
        composition: (G, 132) likewise; a crystal that lacks one of the two counts as having none.
        ref_structure: (R, 61) of the reference; rows without fingerprint are left out.
        ref_composition: (R, 132).

    Raises:
        ValueError: if no reference crystal has fingerprints, or nothing was generated.
    """
    good, real = known(structure, composition), known(ref_structure, ref_composition)
    if not real.any() or not len(good):
        raise ValueError(f"coverage of {real.sum()} reference crystals by {len(good)} generated ones is undefined")
    recall, precision = [], []
    for a, b in ((structure, ref_structure), (composition, ref_composition)):
        columns, rows = _smallest(a[good], b[real])
        whole = np.full(len(good), np.inf)
        whole[good] = rows
        recall.append(columns)
        precision.append(whole)
    return Nearest(recall[0], recall[1], precision[0], precision[1])


def known(structure: FloatArray, composition: FloatArray) -> NDArray[np.bool_]:
    """(M,) which rows have both fingerprints: no NaN in (M, 61) and (M, 132)."""
    return np.isfinite(np.concatenate([structure, composition], axis=1)).all(axis=1)


def _smallest(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smallest distance of each row of b to a, and of each row of a to b."""
    from scipy.spatial.distance import cdist

    columns, rows = np.full(len(b), np.inf), np.full(len(a), np.inf)
    for start in range(0, len(a), BLOCK):
        distances = cdist(a[start : start + BLOCK], b)
        columns = np.minimum(columns, distances.min(axis=0))
        rows[start : start + BLOCK] = distances.min(axis=1)
    return columns, rows
