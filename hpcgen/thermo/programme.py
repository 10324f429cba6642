"""The same energies by another way: HiGHS on all entries of a chemical system, nothing left out, no hull anywhere.

`hpcgen hull --verify` and the tests hold the fast way (`simplex.py`) against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from hpcgen.errors import ThermoError
from hpcgen.thermo.phases import System, subsystems
from hpcgen.thermo.reference import ReferenceSet, parse_formula
from hpcgen.thermo.simplex import FloatArray

_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def lowest_energy(fractions: FloatArray, energies: FloatArray, composition: FloatArray) -> tuple[FloatArray, float]:
    """Shares (n,) and energy of the lowest mixture, by HiGHS.

    Args:
        fractions: (n, k) atomic fractions of the phases.
        energies: (n,) energies, eV/atom.
        composition: (k,) atomic fractions of the mixture.

    Raises:
        ThermoError: if no mixture has that composition.
    """
    from scipy.optimize import linprog

    result = linprog(energies, A_eq=fractions.T, b_eq=composition, bounds=(0, None), method="highs", options=_OPTIONS)
    if not result.success:
        raise ThermoError(
            f"no mixture of {len(energies)} phases has the composition {np.round(composition, 4).tolist()}: "
            f"{result.message}",
            expected="phases that span the composition",
        )
    return result.x, float(result.fun)


class Programme:
    """Total energies of the reference hull by HiGHS, from every entry as the reference holds it.

    Args:
        reference: the competing phases.
    """

    def __init__(self, reference: ReferenceSet) -> None:
        self._entries: dict[System, list[tuple[dict[str, float], float]]] = defaultdict(list)
        for e in reference.entries:
            fractions = parse_formula(e.formula)
            self._entries[tuple(sorted(fractions))].append((fractions, e.energy_per_atom))

    def hull_energy(self, fractions: Mapping[str, float]) -> float:
        """Energy per atom of the lowest mixture of entries with these atomic fractions by symbol, eV/atom.

        Raises:
            ThermoError: if the entries cannot make that composition.
        """
        system = tuple(sorted(fractions))
        inside = [entry for part in subsystems(system, self._entries) for entry in self._entries[part]]
        a = np.array([[x.get(symbol, 0.0) for symbol in system] for x, _ in inside]).reshape(-1, len(system))
        target = np.array([fractions[symbol] for symbol in system])
        return lowest_energy(a, np.array([energy for _, energy in inside]), target / target.sum())[1]
