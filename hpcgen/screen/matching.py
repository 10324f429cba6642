"""Which crystals are equal: duplicates among themselves, and known ones among references.

Equal means `pymatgen.analysis.structure_matcher.StructureMatcher` with its default tolerances (ltol 0.2 of a
length, stol 0.3 of the mean free length per atom, angle_tol 5 degrees, volumes scaled, primitive cells), as
MatterGen's protocol for uniqueness and novelty uses the same matcher. CDVAE's reconstruction metric is laxer
(stol 0.5, angle_tol 10, ltol 0.3) and is not used here.

Only pairs of one reduced formula are looked at, of these only those whose fingerprints are less than `FAR` apart, and
of these only those with equally many atoms in their primitive cells. The first and the last the matcher would refuse
itself; `FAR` was measured (docs/stability.md says on what). Cells are reduced once per crystal, and only of crystals
that are compared at all.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.crystal import Crystal, to_structure
from hpcgen.screen.fingerprint import FAR, differences, fingerprint

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

log = logging.getLogger("hpcgen")


@dataclass
class Effort:
    """What was compared.

    Attributes:
        all_pairs: pairs that a comparison of everything would look at.
        same_formula: of these, pairs of one reduced formula that were looked at.
        far_apart: of these, told apart by their fingerprints.
        comparisons: pairs handed to StructureMatcher.
    """

    all_pairs: int = 0
    same_formula: int = 0
    far_apart: int = 0
    comparisons: int = 0

    def __str__(self) -> str:
        return (
            f"{self.comparisons} comparisons of {self.all_pairs} pairs: {self.same_formula} of one formula, "
            f"{self.far_apart} of them told apart by fingerprint"
        )


class Matcher:
    """StructureMatcher with the tolerances above, on cells that are reduced beforehand."""

    def __init__(self) -> None:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        self._matcher: StructureMatcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(self._matcher.fit(a, b, skip_structure_reduction=True))


@dataclass
class _Bucket:
    """Crystals of one reduced formula.

    Attributes:
        members: their indices among all that were given.
        crystals: the crystals.
        prints: their fingerprints.
        reduced: their reduced cells, as far as they were needed.
    """

    members: list[int] = field(default_factory=list)
    crystals: list[Crystal] = field(default_factory=list)
    prints: list[np.ndarray] = field(default_factory=list)
    reduced: dict[int, Structure] = field(default_factory=dict)

    def add(self, index: int, crystal: Crystal, own: np.ndarray) -> None:
        self.members.append(index)
        self.crystals.append(crystal)
        self.prints.append(own)

    def find(
        self, crystal: Crystal, own: np.ndarray, matcher: Matcher, effort: Effort, *, nearest_first: bool
    ) -> tuple[int, Structure | None]:
        """Index of a member that the crystal equals, or -1; and the crystal's reduced cell if it was made."""
        apart = differences(own, self.prints)
        near = np.flatnonzero(apart <= FAR)
        effort.same_formula += len(apart)
        effort.far_apart += len(apart) - len(near)
        structure = None
        for i in near[np.argsort(apart[near], kind="stable")] if nearest_first else near:
            structure = structure or matcher.reduce(crystal)
            if i not in self.reduced:
                self.reduced[i] = matcher.reduce(self.crystals[i])
            if len(self.reduced[i]) != len(structure):
                continue
            effort.comparisons += 1
            if matcher.equal(self.reduced[i], structure):
                return self.members[i], structure
        return -1, structure


def find_duplicates(crystals: Sequence[Crystal], effort: Effort | None = None) -> list[int]:
    """For each crystal the index of the earlier crystal that it equals, or -1.

    The matcher's equality is not transitive, so a crystal is compared only with earlier ones that are unique
    themselves, in order: the index returned always belongs to a crystal marked -1. `effort` is added to.
    """
    effort = Effort() if effort is None else effort
    effort.all_pairs += len(crystals) * (len(crystals) - 1) // 2
    matcher, buckets = Matcher(), dict[str, _Bucket]()
    formulas = [crystal.formula for crystal in crystals]
    several = _repeated(formulas)
    answer = []
    for index, (crystal, formula) in enumerate(zip(crystals, formulas, strict=True)):
        if formula not in several:
            answer.append(-1)
            continue
        bucket = buckets.setdefault(formula, _Bucket())
        own = fingerprint(crystal)
        earlier, structure = bucket.find(crystal, own, matcher, effort, nearest_first=False)
        if earlier < 0:
            if structure is not None:
                bucket.reduced[len(bucket.members)] = structure
            bucket.add(index, crystal, own)
        answer.append(earlier)
    log.info("uniqueness of %d crystals: %s", len(answer), effort)
    return answer


def find_known(crystals: Sequence[Crystal], references: Iterable[Crystal], effort: Effort | None = None) -> list[bool]:
    """Whether each crystal equals one of the references. `effort` is added to.

    References of a formula that no crystal has are not kept; pass them lazily if they are many.
    """
    effort = Effort() if effort is None else effort
    formulas = [crystal.formula for crystal in crystals]
    buckets: dict[str, _Bucket] = {formula: _Bucket() for formula in formulas}
    total = 0
    for reference in references:
        total += 1
        bucket = buckets.get(reference.formula)
        if bucket is not None:
            bucket.add(total - 1, reference, fingerprint(reference))
    effort.all_pairs += len(crystals) * total
    matcher = Matcher()
    answer = []
    for crystal, formula in zip(crystals, formulas, strict=True):
        bucket = buckets[formula]
        if not bucket.members:
            answer.append(False)
            continue
        # the nearest is most likely the same, and one is enough
        found, _ = bucket.find(crystal, fingerprint(crystal), matcher, effort, nearest_first=True)
        answer.append(found >= 0)
    log.info("novelty of %d crystals among %d references: %s", len(answer), total, effort)
    return answer


def _repeated(formulas: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {formula for formula in formulas if formula in seen or seen.add(formula)}  # type: ignore[func-returns-value]
