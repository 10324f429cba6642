"""Convex hulls of energy over composition, one per chemical system, built when first asked for and kept.

Only entries inside a candidate's chemical system can compete with it, so no diagram of all elements is ever made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hpcgen.thermo.reference import ReferenceSet, parse_formula

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

System = tuple[str, ...]


class MissingElementError(Exception):
    """The reference has no entry for an element of the candidate; the message names it."""


@dataclass(frozen=True)
class Verdict:
    """Where one phase lies.

    Attributes:
        e_hull: energy above the hull of the reference, eV/atom; negative for a new stable phase.
        e_hull_self: energy above the hull of the reference and the own candidates, eV/atom; never negative.
        formation_energy: from the lowest reference entry of each element, eV/atom.
        decomposition: competing phases of the reference and their share of the atoms, `0.60 Li2O + 0.40 TiO2`.
        reference_entries: entries of the reference inside the chemical system.
    """

    e_hull: float
    e_hull_self: float
    formation_energy: float
    decomposition: str
    reference_entries: int


class Hulls:
    """The hulls of a reference set, with and without a run's own candidates.

    Args:
        reference: the competing phases.
        candidates: (composition, energy per atom) of the run's own phases, on a scale that may meet the reference.
    """

    def __init__(self, reference: ReferenceSet, candidates: Iterable[tuple[Composition, float]] = ()) -> None:
        self._reference: dict[System, list[tuple[str, float]]] = defaultdict(list)
        for e in reference.entries:
            self._reference[tuple(sorted(parse_formula(e.formula)))].append((e.formula, e.energy_per_atom))
        self._own: dict[System, list[PDEntry]] = defaultdict(list)
        for composition, energy in candidates:
            self._own[system_of(composition)].append(_entry(composition, energy))
        self._diagrams: dict[tuple[System, bool], PhaseDiagram] = {}
        self._entries: dict[System, list[PDEntry]] = {}

    def judge(self, composition: Composition, energy_per_atom: float) -> Verdict:
        """Where a phase of this composition and energy (eV/atom) lies.

        Raises:
            MissingElementError: if the reference has no entry for one of its elements.
        """
        system = system_of(composition)
        missing = [symbol for symbol in system if (symbol,) not in self._reference]
        if missing:
            raise MissingElementError(f"the reference has no entry for the element {' and '.join(missing)}")
        diagram = self.diagram(system)
        parts, hull_energy = diagram.get_decomp_and_hull_energy_per_atom(composition)
        _, own_energy = self.diagram(system, own=True).get_decomp_and_hull_energy_per_atom(composition)
        elements = sum(
            composition.get_atomic_fraction(e) * entry.energy_per_atom for e, entry in diagram.el_refs.items()
        )
        return Verdict(
            e_hull=float(energy_per_atom - hull_energy),
            e_hull_self=max(0.0, float(energy_per_atom - min(own_energy, energy_per_atom))),
            formation_energy=float(energy_per_atom - elements),
            decomposition=decomposition_text([(e.composition.reduced_formula, x) for e, x in parts.items()]),
            reference_entries=len(self.entries(system)),
        )

    def diagram(self, system: System, *, own: bool = False) -> PhaseDiagram:
        """The hull of a chemical system; with `own` the run's candidates inside it compete too."""
        from pymatgen.analysis.phase_diagram import PhaseDiagram

        key = (system, own)
        if key not in self._diagrams:
            entries = self.entries(system)
            candidates = [e for part in _subsystems(system) for e in self._own.get(part, ())] if own else []
            if own and not candidates:
                return self.diagram(system)
            self._diagrams[key] = PhaseDiagram([*entries, *candidates])
        return self._diagrams[key]

    def entries(self, system: System) -> list[PDEntry]:
        """The reference entries inside a chemical system (sorted symbols), subsystems included."""
        if system not in self._entries:
            from pymatgen.core import Composition

            self._entries[system] = [
                _entry(Composition(formula), energy)
                for part in _subsystems(system)
                for formula, energy in self._reference.get(part, ())
            ]
        return self._entries[system]


def system_of(composition: Composition) -> System:
    """Element symbols in alphabetical order."""
    return tuple(sorted(e.symbol for e in composition.elements))


def decomposition_text(parts: Sequence[tuple[str, float]]) -> str:
    """`0.60 Li2O + 0.40 TiO2` from formulas and shares of atoms, the largest share first."""
    ordered = sorted(parts, key=lambda part: (-round(part[1], 6), part[0]))
    return " + ".join(f"{share:.2f} {formula}" for formula, share in ordered)


def _entry(composition: Composition, energy_per_atom: float) -> PDEntry:
    from pymatgen.analysis.phase_diagram import PDEntry

    return PDEntry(composition, energy_per_atom * composition.num_atoms)


def _subsystems(system: System) -> Iterable[System]:
    return (part for size in range(1, len(system) + 1) for part in combinations(system, size))
