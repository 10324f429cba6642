"""Which crystals are equal: duplicates among themselves, and known ones among references.

Equal means `pymatgen.analysis.structure_matcher.StructureMatcher` with its default tolerances (ltol 0.2 of a
length, stol 0.3 of the mean free length per atom, angle_tol 5 degrees, volumes scaled, primitive cells), as
MatterGen's protocol for uniqueness and novelty uses the same matcher. CDVAE's reconstruction metric is laxer
(stol 0.5, angle_tol 10, ltol 0.3) and is not used here.

Crystals are compared only inside a bucket of one reduced formula and one number of atoms in the primitive cell;
the matcher refuses every other pair itself, so the buckets change no answer. Reductions to primitive Niggli
cells are done once per crystal instead of once per comparison.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.crystal import Crystal, to_structure

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

log = logging.getLogger("hpcgen")


class Matcher:
    """A StructureMatcher that reduces each crystal once and counts what it compares.

    Attributes:
        comparisons: pairs that were handed to StructureMatcher so far.
    """

    def __init__(self) -> None:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        self._matcher: StructureMatcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
        self.comparisons = 0

    def reduce(self, crystal: Crystal) -> Structure:
        """Its primitive Niggli cell, as the matcher makes it; as it stands where a flat cell has none."""
        structure = to_structure(crystal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return structure

    def equal(self, a: Structure, b: Structure) -> bool:
        """Whether two reduced structures are the same crystal."""
        self.comparisons += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(self._matcher.fit(a, b, skip_structure_reduction=True))


def find_duplicates(crystals: Sequence[Crystal]) -> list[int]:
    """For each crystal the index of the earlier crystal that it equals, or -1.

    The matcher's equality is not transitive, so a crystal is compared only with earlier ones that are unique
    themselves, in order: the index returned always belongs to a crystal marked -1.
    """
    matcher = Matcher()
    kept: dict[tuple[str, int], list[tuple[int, Structure]]] = defaultdict(list)
    answer = []
    for index, crystal in enumerate(crystals):
        structure = matcher.reduce(crystal)
        bucket = kept[crystal.formula, len(structure)]
        earlier = next((i for i, other in bucket if matcher.equal(other, structure)), -1)
        if earlier < 0:
            bucket.append((index, structure))
        answer.append(earlier)
    log.info("uniqueness: %d crystals, %d comparisons", len(answer), matcher.comparisons)
    return answer


def find_known(crystals: Sequence[Crystal], references: Iterable[Crystal]) -> list[bool]:
    """Whether each crystal equals one of the references.

    References of a formula that no crystal has are not even reduced; pass them lazily if they are many.
    """
    matcher = Matcher()
    wanted = [c.formula for c in crystals]
    formulas = set(wanted)
    known: dict[tuple[str, int], list[Structure]] = defaultdict(list)
    for reference in references:
        formula = reference.formula
        if formula in formulas:
            structure = matcher.reduce(reference)
            known[formula, len(structure)].append(structure)
    with_reference = {formula for formula, _ in known}
    answer = []
    for crystal, formula in zip(crystals, wanted, strict=True):
        if formula not in with_reference:
            answer.append(False)
            continue
        structure = matcher.reduce(crystal)
        answer.append(any(matcher.equal(r, structure) for r in known.get((formula, len(structure)), [])))
    log.info("novelty: %d crystals, %d comparisons", len(answer), matcher.comparisons)
    return answer
