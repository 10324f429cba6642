"""Phases by chemical system, ready for linear programmes over composition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hpcgen.thermo.simplex import FloatArray

System = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Competitors:
    """The phases that may take part in a mixture inside a chemical system.

    Attributes:
        fractions: (n, k) atomic fractions, elements in alphabetical order.
        energies: (n,) formation energies, eV/atom.
        index: (n,) position of each phase among those that `Phases` was made of.
        total: phases of the chemical system, those included that can be in no lowest mixture.
    """

    fractions: FloatArray
    energies: FloatArray
    index: NDArray[np.int64]
    total: int


class Phases:
    """Phases sorted by chemical system.

    Only the lowest of each composition is kept, and of those only what lies below the elements: all others can be
    in no lowest mixture. That alone halves the programmes of the Materials Project.

    Args:
        phases: (atomic fractions by symbol, energy per atom in eV) of each phase.
        elements: energy per atom of each element, from which formation energies are taken, eV/atom.
    """

    def __init__(self, phases: Iterable[tuple[Mapping[str, float], float]], elements: Mapping[str, float]) -> None:
        lowest: dict[System, dict[tuple[float, ...], tuple[float, int, list[float]]]] = defaultdict(dict)
        self._total: dict[System, int] = defaultdict(int)
        for i, (fractions, energy) in enumerate(phases):
            system = tuple(sorted(fractions))
            self._total[system] += 1
            if any(symbol not in elements for symbol in system):
                continue  # no chemical system with it can be asked for
            formation = energy - sum(fractions[symbol] * elements[symbol] for symbol in system)
            composition = [fractions[symbol] for symbol in system]
            key = tuple(round(x, 10) for x in composition)
            if formation < min(0.0, lowest[system].get(key, (0.0,))[0]):
                lowest[system][key] = (formation, i, composition)
        self._groups = {
            system: (
                np.array([composition for _, _, composition in group.values()]),
                np.array([formation for formation, _, _ in group.values()]),
                np.array([i for _, i, _ in group.values()], dtype=np.int64),
            )
            for system, group in lowest.items()
            if group
        }

    def __len__(self) -> int:
        """Chemical systems with a phase below the elements."""
        return len(self._groups)

    def inside(self, system: System) -> Competitors:
        """The phases of a chemical system (sorted symbols) and of all its subsystems."""
        k = len(system)
        column = {symbol: i for i, symbol in enumerate(system)}
        fractions, energies, index = [np.zeros((0, k))], [np.zeros(0)], [np.zeros(0, np.int64)]
        for part in subsystems(system, self._groups):
            x, e, i = self._groups[part]
            wide = np.zeros((len(e), k))
            wide[:, [column[symbol] for symbol in part]] = x
            fractions.append(wide)
            energies.append(e)
            index.append(i)
        total = sum(self._total[part] for part in subsystems(system, self._total))
        return Competitors(np.concatenate(fractions), np.concatenate(energies), np.concatenate(index), total)


def subsystems(system: System, known: Mapping[System, object]) -> Iterator[System]:
    """Those of the `known` chemical systems that lie inside one, it included, always in the same order."""
    if 2 ** len(system) <= 4 * len(known):
        parts = (part for size in range(1, len(system) + 1) for part in combinations(system, size))
        return (part for part in parts if part in known)
    elements = set(system)
    return iter(sorted((part for part in known if elements.issuperset(part)), key=lambda part: (len(part), part)))
