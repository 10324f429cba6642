"""Oxidation states by which a composition balances.

An element has the states that it has in ICSD (the common ones where ICSD has none; both by pymatgen's tables), in a
compound one of them or two (mixed valence, as in Fe3O4). Of all assignments whose charges add up to zero those with the
least mixing come first, then those whose mixed states are nearest to each other (Mn2+ with Mn3+ in Mn3O4), then the
most frequent in ICSD. Whether there is one agrees with `pymatgen.core.Composition.oxi_state_guesses`, which walks
through the states of every atom, so that time explodes with the atoms, and which takes Mn2O3 for Mn2+ with Mn4+.

The one exception are peroxides: if nothing balances, O- is tried beside the most frequent state of all other elements.
Superoxides, azides and other anions of several atoms do not balance here. The composition validity of the screening is
another question with another table (`validity`): it allows no mixed valence and rare states.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import combinations
from typing import NamedTuple

from numpy.typing import ArrayLike

from hpcgen.screen.validity import Formula, smallest_formula, without_ions

YES, NO, UNKNOWN = "yes", "no", "unknown"

States = Mapping[int, float]
"""Oxidation states of an element and how often each occurs in ICSD."""
Cost = tuple[int, int, float]
"""Of an assignment: elements in two states, distances of these states, -log of the states' frequencies."""


class ChargeBalance(NamedTuple):
    """Whether oxidation states add up to zero.

    Attributes:
        balanced: `yes`, `no`, or `unknown` where the question has no answer: for elements, metals alone, and elements
            without known oxidation states.
        states: those that occur, electropositive elements first, such as `Fe2+ Fe3+ O2-`; empty unless balanced.
    """

    balanced: str
    states: str


def oxidation_balance(numbers: ArrayLike) -> ChargeBalance:
    """The balance of a composition.

    Args:
        numbers: (n,) atomic numbers.
    """
    return _of_formula(smallest_formula(numbers))


@lru_cache(maxsize=100_000)
def _of_formula(formula: Formula) -> ChargeBalance:
    """As `oxidation_balance`."""
    counts = dict(formula)
    known = {symbol: _states(symbol) for symbol in counts}
    if without_ions(counts) or not all(known.values()):
        return ChargeBalance(UNKNOWN, "")
    found = _neutral(counts, known)
    if found is None and "O" in counts:
        usual = {symbol: {max(states, key=states.__getitem__): 1.0} for symbol, states in known.items()}
        found = _neutral(counts, {**usual, "O": {-1: 1.0}})
    if found is None:
        return ChargeBalance(NO, "")
    ordered = sorted(found, key=lambda pair: (_electronegativity(pair[0]), pair[0], pair[1]))
    return ChargeBalance(YES, " ".join(_text(symbol, state) for symbol, state in ordered))


def _neutral(counts: Mapping[str, int], known: Mapping[str, States]) -> list[tuple[str, int]] | None:
    """(element, state) of every state in the best neutral assignment, None if there is none."""
    best: dict[int, tuple[Cost, list[tuple[str, int]]]] = {0: ((0, 0, 0.0), [])}
    for symbol, n in counts.items():
        longer: dict[int, tuple[Cost, list[tuple[str, int]]]] = {}
        for own, cost, states in _assignments(n, known[symbol]):
            for charge, (before, chosen) in best.items():
                total = charge + own
                together = (before[0] + cost[0], before[1] + cost[1], before[2] + cost[2])
                if total not in longer or together < longer[total][0]:
                    longer[total] = together, [*chosen, *((symbol, state) for state in states)]
        best = longer
    return best[0][1] if 0 in best else None


def _assignments(n: int, states: States) -> Iterator[tuple[int, Cost, tuple[int, ...]]]:
    """(charge, cost, states) of `n` atoms of an element in one state or two."""
    total = sum(states.values())
    rarity = {state: -math.log(max(often, 0.1) / max(total, 1.0)) for state, often in states.items()}
    for state in states:
        yield n * state, (0, 0, n * rarity[state]), (state,)
    for a, b in combinations(states, 2):
        for k in range(1, n):
            yield k * a + (n - k) * b, (1, abs(a - b), k * rarity[a] + (n - k) * rarity[b]), (a, b)


@cache
def _states(symbol: str) -> States:
    from pymatgen.core import Element, Species

    element = Element(symbol)
    states = sorted(element.icsd_oxidation_states or element.common_oxidation_states)
    return {int(state): float(_occurrence().get(Species(symbol, state), 0)) for state in states}


@cache
def _occurrence() -> dict[object, float]:
    """How often each species occurs in ICSD, by which pymatgen ranks its guesses."""
    from pymatgen.core import Composition

    Composition("NaCl").oxi_state_guesses()  # which reads the table
    table = Composition.oxi_prob
    assert table is not None
    return dict(table)


@cache
def _electronegativity(symbol: str) -> float:
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements that have none
        value = float(Element(symbol).X)
    return value if math.isfinite(value) else math.inf


def _text(symbol: str, state: int) -> str:
    size = "" if abs(state) == 1 else str(abs(state))
    return f"{symbol}{size}{'+' if state > 0 else '-'}" if state else f"{symbol}0"
