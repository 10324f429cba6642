"""Convex hulls of energy over composition: energies above them, and what a phase decomposes into.

Only entries inside a candidate's chemical system can compete with it, so no diagram of all elements is ever made.
Nor is a hull built: generated candidates have nearly as many chemical systems as there are candidates, and the one
facet below a composition is a linear programme of a few microseconds (`simplex.py`). What is kept, per chemical
system, is the list of its competitors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.flow import ReferenceEntry
from hpcgen.thermo.phases import Competitors, Phases, System, subsystems
from hpcgen.thermo.programme import lowest_energy
from hpcgen.thermo.reference import ReferenceSet, parse_formula
from hpcgen.thermo.simplex import lowest_mixture

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition

ITERATIONS = 10_000  # far beyond what any programme of real phases took (30)
KEPT_SYSTEMS = 4096  # chemical systems whose competitors are kept in memory
NEW_PHASE = 1e-6  # eV/atom below the reference from which on a phase is new and not a rounding error
_ROUNDING = 1e-11  # eV/atom: below, a difference of energies is zero
_SHARE = 5e-7  # of the atoms, below which a phase is not part of a mixture


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
        competitors: ids of these phases in the reference, in the same order, `mp-1960 + mp-2657`.
        reference_entries: entries of the reference inside the chemical system.
    """

    e_hull: float
    e_hull_self: float
    formation_energy: float
    decomposition: str
    competitors: str
    reference_entries: int

    @property
    def new_stable(self) -> bool:
        """Whether it lies below the reference hull."""
        return self.e_hull < -NEW_PHASE


class Hulls:
    """The hulls of a reference set, with and without a run's own candidates.

    Args:
        reference: the competing phases.
        candidates: (composition, energy per atom) of the run's own phases, on a scale that may meet the reference.
    """

    def __init__(self, reference: ReferenceSet, candidates: Iterable[tuple[Composition, float]] = ()) -> None:
        self.reference = reference
        parsed = [parse_formula(e.formula) for e in reference.entries]
        self._element: dict[str, int] = {}
        for i, fractions in enumerate(parsed):
            if len(fractions) == 1:
                symbol = next(iter(fractions))
                if self._energy(i) < self._energy(self._element.setdefault(symbol, i)):
                    self._element[symbol] = i
        elements = {symbol: self._energy(i) for symbol, i in self._element.items()}
        self.elements = elements
        self._phases = Phases(zip(parsed, (e.energy_per_atom for e in reference.entries), strict=True), elements)
        self._own = Phases(((_fractions(c), energy) for c, energy in candidates), elements)
        self._systems: dict[System, list[int]] | None = None
        self._parsed = parsed
        self._competitors = lru_cache(KEPT_SYSTEMS)(self._assemble)

    def above(self, fractions: Mapping[str, float], energy_per_atom: float) -> float:
        """Energy above the hull of the reference alone, eV/atom, from atomic fractions by symbol.

        Raises:
            MissingElementError: if the reference has no entry for one of its elements.
        """
        system, x, formation = self._point(fractions, energy_per_atom)
        return _exact(formation - _lowest(self._competitors(system)[0], x)[2])

    def judge(self, composition: Composition, energy_per_atom: float) -> Verdict:
        """Where a phase of this composition and energy (eV/atom) lies.

        Raises:
            MissingElementError: if the reference has no entry for one of its elements.
        """
        system, x, formation = self._point(_fractions(composition), energy_per_atom)
        known, all_known = self._competitors(system)
        basis, shares, hull = _lowest(known, x)
        own = hull if all_known is known else _lowest(all_known, x)[2]
        parts = [(-round(float(s), 6), known.index[b]) for b, s in zip(basis, shares, strict=True) if s > _SHARE]
        named = sorted((share, self._formula(i), self.reference.entries[i].entry_id) for share, i in parts)
        return Verdict(
            e_hull=_exact(formation - hull),
            e_hull_self=max(0.0, _exact(formation - own)),
            formation_energy=formation,
            decomposition=decomposition_text([(formula, -share) for share, formula, _ in named]),
            competitors=" + ".join(name for _, _, name in named),
            reference_entries=known.total,
        )

    def entries(self, system: System) -> list[ReferenceEntry]:
        """The reference entries inside a chemical system (sorted symbols), subsystems included."""
        if self._systems is None:
            self._systems = {}
            for i, fractions in enumerate(self._parsed):
                self._systems.setdefault(tuple(sorted(fractions)), []).append(i)
        inside = [i for part in subsystems(system, self._systems) for i in self._systems[part]]
        return [self.reference.entries[i] for i in inside]

    def diagram(self, system: System) -> PhaseDiagram:
        """pymatgen's phase diagram of the reference in a chemical system (sorted symbols), to be drawn."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition

        compositions = [(Composition(e.formula), e) for e in self.entries(system)]
        return PhaseDiagram([PDEntry(c, e.energy_per_atom * c.num_atoms, e.entry_id) for c, e in compositions])

    def _point(self, fractions: Mapping[str, float], energy: float) -> tuple[System, np.ndarray, float]:
        """Chemical system, (k,) atomic fractions and formation energy."""
        system = tuple(sorted(fractions))
        missing = [symbol for symbol in system if symbol not in self.elements]
        if missing:
            raise MissingElementError(f"the reference has no entry for the element {' and '.join(missing)}")
        x = np.array([fractions[symbol] for symbol in system])
        return system, x, float(energy - sum(fractions[symbol] * self.elements[symbol] for symbol in system))

    def _assemble(self, system: System) -> tuple[Competitors, Competitors]:
        """The reference's competitors, elements first; and the same with the own candidates, if there are any."""
        known = self._phases.inside(system)
        k = len(system)
        elements = [self._element[symbol] for symbol in system]
        known = Competitors(
            np.concatenate([np.eye(k), known.fractions]),
            np.concatenate([np.zeros(k), known.energies]),
            np.concatenate([elements, known.index]).astype(np.int64),
            known.total,
        )
        if not len(self._own):
            return known, known
        own = self._own.inside(system)
        if not len(own.energies):
            return known, known
        fractions = np.concatenate([known.fractions, own.fractions])
        return known, Competitors(fractions, np.concatenate([known.energies, own.energies]), known.index, known.total)

    def _energy(self, i: int) -> float:
        return self.reference.entries[i].energy_per_atom

    def _formula(self, entry: int) -> str:
        return _reduced(self.reference.entries[entry].formula)


def decomposition_text(parts: Sequence[tuple[str, float]]) -> str:
    """`0.60 Li2O + 0.40 TiO2` from formulas and shares of atoms, the largest share first."""
    ordered = sorted(parts, key=lambda part: (-round(part[1], 6), part[0]))
    return " + ".join(f"{share:.2f} {formula}" for formula, share in ordered)


def _lowest(phases: Competitors, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Phases, shares of the atoms and formation energy of the lowest mixture of composition x."""
    basis, shares, energy, proven = lowest_mixture(phases.fractions, phases.energies, x, ITERATIONS)
    if proven:
        return basis, shares, float(energy)
    shares, energy = lowest_energy(phases.fractions, phases.energies, x)
    basis = np.flatnonzero(shares > _SHARE)
    return basis, shares[basis], energy


def _exact(difference: float) -> float:
    return 0.0 if abs(difference) < _ROUNDING else float(difference)


def _fractions(composition: Composition) -> dict[str, float]:
    amounts = composition.get_el_amt_dict()
    total = sum(amounts.values())
    return {symbol: n / total for symbol, n in amounts.items()}


@lru_cache(100_000)
def _reduced(formula: str) -> str:
    from pymatgen.core import Composition

    return Composition(formula).reduced_formula
