"""Which crystals are equal: duplicates among themselves, and known ones among references.

Equal means `pymatgen.analysis.structure_matcher.StructureMatcher` with its default tolerances (ltol 0.2 of a
length, stol 0.3 of the mean free length per atom, angle_tol 5 degrees, volumes scaled, primitive cells), as
MatterGen's protocol for uniqueness and novelty uses the same matcher. CDVAE's reconstruction metric is laxer
(stol 0.5, angle_tol 10, ltol 0.3) and is not used here.

Only pairs of one reduced formula and equally many atoms per primitive cell are looked at, of these only those whose
lattices the matcher can map onto each other (`fingerprint.minima`): it would refuse all others itself, so nothing of
this changes an answer. Of those left the most alike (`fingerprint.fingerprint`) are compared first, since one match is
enough. Cells are reduced once per crystal instead of once per comparison.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.crystal import Crystal, to_structure
from hpcgen.screen.fingerprint import differences, fingerprint, minima

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

log = logging.getLogger("hpcgen")


LTOL = 0.2


@dataclass
class Effort:
    """What was compared.

    Attributes:
        all_pairs: pairs that a comparison of everything would look at.
        alike: of these, pairs of one reduced formula and equally many atoms in the primitive cell.
        other_lattice: of these, pairs whose lattices cannot be mapped onto each other.
        comparisons: pairs handed to StructureMatcher; the rest came after a match.
    """

    all_pairs: int = 0
    alike: int = 0
    other_lattice: int = 0
    comparisons: int = 0

    def __str__(self) -> str:
        return (
            f"{self.comparisons} comparisons instead of {self.all_pairs}: {self.alike} pairs of one formula and number "
            f"of atoms, {self.other_lattice} of them told apart by their lattices"
        )


class Matcher:
    """StructureMatcher with the tolerances above, on cells that are reduced beforehand."""

    def __init__(self) -> None:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        self._matcher: StructureMatcher = StructureMatcher(ltol=LTOL, stol=0.3, angle_tol=5)

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


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A crystal as it is compared: its reduced cell, its lattice's minima and its fingerprint."""

    structure: Structure
    minima: np.ndarray
    print: np.ndarray

    @classmethod
    def of(cls, crystal: Crystal, matcher: Matcher) -> _Reduced:
        structure = matcher.reduce(crystal)
        return cls(structure, minima(structure), fingerprint(crystal))


class _Bucket:
    """Crystals of one reduced formula and one number of atoms in the primitive cell."""

    def __init__(self) -> None:
        self.members: list[int] = []
        self._crystals: list[_Reduced] = []

    def add(self, index: int, crystal: _Reduced) -> None:
        self.members.append(index)
        self._crystals.append(crystal)

    def find(self, crystal: _Reduced, matcher: Matcher, effort: Effort) -> int:
        """Index of a member that the crystal equals, or -1."""
        if not self.members:
            return -1
        lattices = np.array([c.minima for c in self._crystals])
        possible = np.flatnonzero((lattices <= (1 + LTOL) * (1 + 1e-9) * crystal.minima).all(axis=1))
        effort.alike += len(lattices)
        effort.other_lattice += len(lattices) - len(possible)
        apart = differences(crystal.print, [self._crystals[i].print for i in possible])
        for i in possible[np.argsort(apart, kind="stable")]:
            effort.comparisons += 1
            if matcher.equal(self._crystals[i].structure, crystal.structure):
                return self.members[i]
        return -1


def find_duplicates(crystals: Sequence[Crystal], effort: Effort | None = None) -> list[int]:
    """For each crystal the index of an earlier crystal that it equals, the most alike, or -1.

    The matcher's equality is not transitive, so a crystal is compared only with earlier ones that are unique
    themselves, in order: the index returned always belongs to a crystal marked -1. `effort` is added to.
    """
    effort = Effort() if effort is None else effort
    effort.all_pairs += len(crystals) * (len(crystals) - 1) // 2
    matcher = Matcher()
    buckets: dict[tuple[str, int], _Bucket] = defaultdict(_Bucket)
    formulas = [crystal.formula for crystal in crystals]
    several = _repeated(formulas)
    answer = []
    for index, (crystal, formula) in enumerate(zip(crystals, formulas, strict=True)):
        earlier = -1
        if formula in several:
            reduced = _Reduced.of(crystal, matcher)
            bucket = buckets[formula, len(reduced.structure)]
            earlier = bucket.find(reduced, matcher, effort)
            if earlier < 0:
                bucket.add(index, reduced)
        answer.append(earlier)
    log.info("uniqueness of %d crystals: %s", len(answer), effort)
    return answer


def find_known(crystals: Sequence[Crystal], references: Iterable[Crystal], effort: Effort | None = None) -> list[bool]:
    """Whether each crystal equals one of the references. `effort` is added to.

    References of a formula that no crystal has are not even reduced; pass them lazily if they are many.
    """
    effort = Effort() if effort is None else effort
    matcher = Matcher()
    buckets: dict[tuple[str, int], _Bucket] = defaultdict(_Bucket)
    formulas = [crystal.formula for crystal in crystals]
    wanted, with_reference, total = set(formulas), set(), 0
    for reference in references:
        formula = reference.formula
        if formula in wanted:
            reduced = _Reduced.of(reference, matcher)
            buckets[formula, len(reduced.structure)].add(total, reduced)
            with_reference.add(formula)
        total += 1
    effort.all_pairs += len(crystals) * total
    answer = []
    for crystal, formula in zip(crystals, formulas, strict=True):
        if formula not in with_reference:
            answer.append(False)
            continue
        reduced = _Reduced.of(crystal, matcher)
        answer.append(buckets[formula, len(reduced.structure)].find(reduced, matcher, effort) >= 0)
    log.info("novelty of %d crystals among %d references: %s", len(answer), total, effort)
    return answer


def _repeated(formulas: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {formula for formula in formulas if formula in seen or seen.add(formula)}  # type: ignore[func-returns-value]
