"""What competes with a crystal: its chemical system at 0 K, from the reference set and the crystals of the run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hpcgen import store
from hpcgen.flow import ReferenceEntry, Stability

System = tuple[str, ...]
LARGEST = 5
"""Elements of the largest system that is looked at: hulls grow quickly with them, and nobody reads more."""


@dataclass(frozen=True)
class Phase:
    """One phase of a chemical system.

    Attributes:
        formula: reduced.
        fractions: share of each element of the system, in its order.
        formation_energy: from the lowest entry of each element, eV/atom.
        above: energy above the reference hull, eV/atom; negative only for crystals of the run.
    """

    formula: str
    fractions: tuple[float, ...]
    formation_energy: float
    above: float


@dataclass(frozen=True)
class Landscape:
    """The chemical system of one crystal.

    Attributes:
        elements: their symbols, sorted.
        this: the crystal.
        stable: phases on the hull of the reference.
        others: other reference phases, the lowest of each formula.
        own: other crystals of the run in this system.
        ties: pairs of numbers in `stable` that are joined by an edge of the hull; only for two and three elements.
        products: what the crystal would decompose to, with shares of the atoms.
    """

    elements: System
    this: Phase
    stable: list[Phase]
    others: list[Phase]
    own: list[Phase]
    ties: list[tuple[int, int]]
    products: list[tuple[Phase, float]]


class Competitors:
    """The phases of reference.h5 that lie in the chemical systems of some crystals, and these crystals.

    Args:
        path: reference.h5.
        crystals: those of the run.
        shown: those whose landscape will be asked for.
    """

    def __init__(self, path: Path, crystals: Iterable[Stability], shown: Iterable[Stability]) -> None:
        wanted = {part for s in shown for part in _parts(s.crystal.elements) if len(s.crystal.elements) <= LARGEST}
        self._lowest: dict[System, dict[str, tuple[float, str]]] = defaultdict(dict)
        if wanted:
            with store.open(path, ReferenceEntry) as f:
                for formula, energy in zip(f.column("formula"), f.column("energy_per_atom").tolist(), strict=True):
                    system = tuple(sorted(set(re.findall(r"[A-Z][a-z]?", formula))))
                    if system in wanted:
                        self._add(system, formula, energy)
        self._own: dict[System, list[Stability]] = defaultdict(list)
        for s in crystals:
            self._own[s.crystal.elements].append(s)

    def _add(self, system: System, formula: str, energy: float) -> None:
        from pymatgen.core import Composition

        reduced = Composition(formula).reduced_formula
        known = self._lowest[system].get(reduced)
        if known is None or energy < known[0]:
            self._lowest[system][reduced] = (energy, formula)

    def landscape(self, s: Stability) -> Landscape | None:
        """The system of a crystal; None if the reference lacks one of its elements, or it has too many (`LARGEST`)."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition, Element

        elements = s.crystal.elements
        if len(elements) > LARGEST or any((e,) not in self._lowest for e in elements):
            return None
        entries = [
            PDEntry(c := Composition(formula), energy * c.num_atoms)
            for part in _parts(elements)
            for energy, formula in self._lowest.get(part, {}).values()
        ]
        diagram = PhaseDiagram(entries, [Element(e) for e in elements])

        def phase(entry: Any, above: float | None = None) -> Phase:
            c = entry.composition
            shares = tuple(float(c.get_atomic_fraction(e)) for e in elements)
            level = float(diagram.get_e_above_hull(entry) or 0.0) if above is None else above
            return Phase(c.reduced_formula, shares, float(diagram.get_form_energy_per_atom(entry)), level)

        def own(other: Stability) -> Phase:
            c = Composition.from_dict(_counts(other))
            entry = PDEntry(c, other.energy_per_atom * c.num_atoms)
            return phase(entry, float(other.energy_per_atom - diagram.get_hull_energy_per_atom(c)))

        stable = sorted(diagram.stable_entries, key=lambda e: e.composition.reduced_formula)
        place = {id(e): i for i, e in enumerate(stable)}
        edges: set[tuple[int, int]] = set()
        if len(elements) in (2, 3):
            for facet in diagram.facets:
                corners = sorted(place[id(diagram.qhull_entries[i])] for i in facet)
                edges |= set(combinations(corners, 2))
        composition = Composition.from_dict(_counts(s))
        parts = diagram.get_decomposition(composition)
        return Landscape(
            elements=elements,
            this=own(s),
            stable=[phase(e, 0.0) for e in stable],
            others=[phase(e) for e in diagram.unstable_entries],
            own=[own(o) for part in _parts(elements) for o in self._own.get(part, ()) if o.id != s.id],
            ties=sorted(edges),
            products=sorted(((phase(e, 0.0), float(x)) for e, x in parts.items()), key=lambda p: -p[1]),
        )


def _counts(s: Stability) -> dict[str, int]:
    from ase.data import chemical_symbols

    counts: dict[str, int] = defaultdict(int)
    for z in s.crystal.numbers.tolist():
        counts[chemical_symbols[z]] += 1
    return counts


def _parts(elements: System) -> list[System]:
    """All subsystems of a chemical system, itself included."""
    return [part for size in range(1, len(elements) + 1) for part in combinations(sorted(elements), size)]
