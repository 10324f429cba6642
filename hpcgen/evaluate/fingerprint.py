"""The fingerprints of CDVAE's coverage: CrystalNN order parameters of the structure, Magpie statistics of the elements.

Definitions: `scripts/compute_metrics.py` of CDVAE (Xie et al., ICLR 2022). The structure's fingerprint is the mean over
its sites of matminer's `CrystalNNFingerprint.from_preset("ops")`; the composition's is matminer's
`ElementProperty.from_preset("magpie")`, standardised by the means and deviations that CDVAE ships, with 0 for what the
tables do not know.
"""

from __future__ import annotations

import json
import math
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import numpy as np

from hpcgen.crystal import Crystal, FloatArray, composition_of, to_structure
from hpcgen.errors import DependencyError

STRUCTURE_SIZE = 61
COMPOSITION_SIZE = 132
NEIGHBOUR_CUTOFF = 7.0  # angstrom, CrystalNN's
MAX_NEIGHBOURS = 5000
"""Atoms in the sphere of CrystalNN beyond which no fingerprint is tried; diamond has 254."""


def definition() -> dict[str, str]:
    """Name and versions of everything that determines a fingerprint.

    Raises:
        DependencyError: if matminer is not installed.
    """
    try:
        versions = {name: version(name) for name in ("matminer", "pymatgen-core")}
    except PackageNotFoundError as error:
        raise DependencyError(
            f"the package {error.name or 'matminer'} is not installed: fingerprints are its definitions",
            remedy="pip install 'hpcgen[evaluate]'",
        ) from None
    return {"fingerprint": "CrystalNN ops, mean over sites; Magpie, standardised as CDVAE does", **versions}


class StructureFingerprinter:
    """CrystalNN "ops" fingerprints, as matminer defines them.

    Raises:
        DependencyError: if matminer is not installed.
    """

    def __init__(self) -> None:
        definition()
        from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

        self._site = CrystalNNFingerprint.from_preset("ops")

    def of(self, crystal: Crystal) -> FloatArray:
        """(61,) mean over the sites; all NaN where no fingerprint can be had, which CDVAE counts as invalid."""
        sphere = 4 / 3 * math.pi * NEIGHBOUR_CUTOFF**3
        if len(crystal) / crystal.volume * sphere > MAX_NEIGHBOURS:
            return np.full(STRUCTURE_SIZE, np.nan)
        structure = to_structure(crystal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return np.mean([self._site.featurize(structure, i) for i in range(len(structure))], axis=0)
            # CrystalNN, Voronoi and qhull raise nearly any type on cells unlike a crystal; CDVAE catches them all too
            except Exception:
                return np.full(STRUCTURE_SIZE, np.nan)


class CompositionFingerprinter:
    """Magpie statistics of compositions, standardised as CDVAE does.

    Raises:
        DependencyError: if matminer is not installed.
    """

    def __init__(self) -> None:
        definition()
        from matminer.featurizers.composition.composite import ElementProperty

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # what a table does not know stays NaN here and becomes 0 below, the mean, as in CDVAE's scaler
            self._featurizer = ElementProperty.from_preset("magpie", impute_nan=False)
        scale = json.loads(files("hpcgen.evaluate").joinpath("cdvae_composition_scale.json").read_text("utf-8"))
        self._mean, self._deviation = np.array(scale["mean"]), np.array(scale["deviation"])

        self._known: dict[tuple[int, ...], FloatArray] = {}

    def of(self, crystal: Crystal) -> FloatArray:
        """(132,) of a crystal; all NaN if an element is beyond the tables."""
        numbers, counts = np.unique(crystal.numbers, return_counts=True)
        formula = tuple(np.repeat(numbers, counts // np.gcd.reduce(counts)).tolist())
        if formula not in self._known:
            self._known[formula] = self._of(formula)
        return self._known[formula]

    def _of(self, numbers: tuple[int, ...]) -> FloatArray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                raw = np.array(self._featurizer.featurize(composition_of(numbers)), dtype=float)
            except (KeyError, ValueError):
                return np.full(COMPOSITION_SIZE, np.nan)
        if np.isnan(raw).all():  # an element beyond every table
            return raw
        scaled = (raw - self._mean) / self._deviation
        return np.where(np.isnan(scaled), 0.0, scaled)


@cache
def structure_fingerprinter() -> StructureFingerprinter:
    """The one of this process."""
    return StructureFingerprinter()


@cache
def composition_fingerprinter() -> CompositionFingerprinter:
    """The one of this process."""
    return CompositionFingerprinter()
