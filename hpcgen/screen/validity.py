"""Structure validity and composition validity of a crystal.

The two validities are CDVAE's (Xie et al., ICLR 2022, and its evaluation code), with one difference that is a
correction: an atom's own periodic images count as neighbours too.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.crystal import Crystal

Formula = tuple[tuple[str, int], ...]
"""Symbol and number of atoms of each element."""

MIN_VOLUME = 0.1
"""Cell volume below which CDVAE calls a structure invalid, cubic angstrom."""

OXIDATION_STATES = "smact14"
"""Table of oxidation states: the default of the smact 2.x that the published validities were computed with."""


@cache
def spacegroup_symbol(number: int) -> str:
    """Short Hermann-Mauguin symbol such as `Pm-3m`, or a question mark for 0."""
    if number == 0:
        return "?"
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    return sg_symbol_from_int_number(number)


def structure_problem(crystal: Crystal, min_distance: float, distance: float | None = None) -> str:
    """Why a structure is invalid, empty if it is valid.

    Args:
        crystal: the crystal judged.
        min_distance: smallest distance allowed between two atoms, own periodic images included, angstrom.
        distance: `crystal.smallest_distance()` where the caller has it already.

    Returns:
        `cell-collapsed` (volume below `MIN_VOLUME`), `atoms-too-close`, or an empty string.
    """
    if crystal.volume < MIN_VOLUME:
        return "cell-collapsed"
    if (crystal.smallest_distance() if distance is None else distance) < min_distance:
        return "atoms-too-close"
    return ""


def structure_valid(crystal: Crystal, min_distance: float = 0.5) -> bool:
    """Whether the volume and all distances (angstrom) are those of a possible crystal."""
    return not structure_problem(crystal, min_distance)


def smallest_formula(numbers: ArrayLike) -> Formula:
    """The composition in smallest whole numbers, by atomic number.

    Args:
        numbers: (n,) atomic numbers.
    """
    from ase.data import chemical_symbols

    z, counts = np.unique(np.asarray(numbers), return_counts=True)
    smallest = counts // np.gcd.reduce(counts)
    return tuple((chemical_symbols[i], n) for i, n in zip(z.tolist(), smallest.tolist(), strict=True))


def without_ions(symbols: Collection[str]) -> bool:
    """Whether these elements make no ions together: a single element, or metals alone."""
    return len(symbols) == 1 or all(symbol in metals() for symbol in symbols)


def composition_valid(numbers: ArrayLike) -> bool:
    """CDVAE's composition validity by SMACT: charge neutrality and order of electronegativities.

    Single elements and compositions of metals only pass. Otherwise one oxidation state per element (`smact14`
    table) must exist so that the charges add up to zero and every cation is less electronegative (Pauling) than
    every anion. An element without electronegativity or without oxidation states makes it invalid.

    CDVAE's code walks through the product of all oxidation states, which explodes for many elements; here the
    electronegativities are cut in two and the sums of charges are collected instead, with the same verdict
    (the tests compare with `smact.screening.smact_validity`).

    Args:
        numbers: (n,) atomic numbers.
    """
    return _formula_valid(smallest_formula(numbers))


@lru_cache(maxsize=100_000)
def _formula_valid(formula: Formula) -> bool:
    """As `composition_valid`."""
    import smact

    counts = dict(formula)
    if without_ions(counts):
        return True
    elements = []
    for symbol, count in counts.items():
        try:
            element = smact.Element(symbol)
        except (NameError, KeyError, ValueError):  # beyond the tables
            return False
        states = element.oxidation_states_smact14
        if element.pauling_eneg is None or not states:
            return False
        elements.append((float(element.pauling_eneg), count, tuple(states)))
    return _neutral(elements)


def _neutral(elements: list[tuple[float, int, tuple[int, ...]]]) -> bool:
    """Whether charges of (electronegativity, count, oxidation states) balance with cations below all anions.

    The Pauling order holds exactly if one cut through the sorted electronegativities has no anion below and no
    cation above it; elements of equal electronegativity lie on the same side.
    """
    levels = sorted({e for e, _, _ in elements})
    for cut in [(a + b) / 2 for a, b in pairwise(levels)] + [levels[0] - 1.0, levels[-1] + 1.0]:
        charges = {0}
        for electronegativity, count, states in elements:
            allowed = {s * count for s in states if (s >= 0 if electronegativity < cut else s <= 0)}
            charges = {total + charge for total in charges for charge in allowed}
        if 0 in charges:
            return True
    return False


@cache
def metals() -> frozenset[str]:
    """Symbols of the elements that smact counts among the metals."""
    import smact

    return frozenset(smact.metals)
