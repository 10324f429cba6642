"""Materials Project's 2020 corrections of PBE and PBE+U energies, applied exactly once.

`pymatgen.entries.compatibility.MaterialsProject2020Compatibility` (Wang et al., Sci. Rep. 11, 15496, 2021) moves
anions to the experimental scale and mixes PBE with PBE+U energies. It holds for runs with the settings of MPRelaxSet
only: for the same POTCARs and the same U values. What it refuses has no place on a Materials Project hull, and is
refused here by name, never passed on uncorrected.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hpcgen.crystal import Crystal, to_structure

if TYPE_CHECKING:
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

ALREADY_CORRECTED = "already-corrected"
RUN_TYPE = "wrong-functional"
POTCAR = "wrong-potcar"
HUBBARD_U = "wrong-u"
NO_STRUCTURE = "no-structure"
UNCORRECTABLE = "not-correctable"

_SAME_FUNCTIONAL = {"PBE": "GGA", "PBE+U": "GGA+U"}
"""What pymatgen's Vasprun calls a run that names PBE in its INCAR, instead of taking it from the POTCAR."""


class RefusedError(Exception):
    """An energy that MP2020 does not hold for.

    Attributes:
        kind: for the balance: `already-corrected`, `wrong-functional`, `wrong-potcar`, `wrong-u`, `no-structure`,
            `not-correctable`.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True)
class Corrected:
    """A corrected energy and what it is made of.

    Attributes:
        energy: corrected total energy of the cell, eV.
        correction: what was added to the raw energy, eV.
        adjustments: (name, eV) of each part, such as `("MP2020 anion correction (oxide)", -0.687)`.
    """

    energy: float
    correction: float
    adjustments: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        parts = "; ".join(f"{name} {value:+.4f}" for name, value in self.adjustments)
        return f"{self.correction:+.4f} eV ({parts})" if parts else "+0.0000 eV"


def corrected(
    crystal: Crystal,
    energy: float,
    *,
    run_type: str,
    hubbards: Mapping[str, float],
    potcar_symbols: Sequence[str],
    name: str = "",
) -> Corrected:
    """The MP2020 energy of a VASP calculation.

    Args:
        crystal: the relaxed crystal: its bonds tell peroxides and polysulfides from oxides and sulfides.
        energy: raw total energy of the cell, eV, as vasprun.xml has it.
        run_type: as `pymatgen.io.vasp.Vasprun.run_type` says: `GGA`, `GGA+U`, or `PBE`, `PBE+U`, which are the same.
        hubbards: U by element symbol, eV, as `Vasprun.hubbards` says; zeros may be left out.
        potcar_symbols: titles such as `PAW_PBE Ni_pv 06Sep2000`, as `Vasprun.potcar_symbols` says.
        name: for messages.

    Raises:
        RefusedError: with the reason, if the calculation is not of Materials Project's kind.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entry = ComputedStructureEntry(
        to_structure(crystal),
        energy,
        parameters={
            "run_type": _SAME_FUNCTIONAL.get(run_type, run_type),
            "hubbards": {symbol: float(u) for symbol, u in hubbards.items()},
            "potcar_symbols": list(potcar_symbols),
        },
        entry_id=name or None,
    )
    return correct_entry(entry)


def correct_entry(entry: ComputedEntry, *, check_potcar: bool = True) -> Corrected:
    """The MP2020 energy of an entry that carries no correction yet; the entry itself is left as it is.

    Args:
        entry: a pymatgen ComputedEntry, better a ComputedStructureEntry, with `run_type`, `hubbards` and
            `potcar_symbols` or `potcar_spec` among its parameters.
        check_potcar: False for entries of the Materials Project database itself that do not name their POTCARs.

    Raises:
        RefusedError: as `corrected`; also if the entry carries corrections already.
    """
    if entry.energy_adjustments or abs(entry.correction) > 0:
        raise RefusedError(
            ALREADY_CORRECTED,
            f"{entry.entry_id} carries a correction of {entry.correction:+.4f} eV already: it would count twice",
        )
    adjustments = _adjustments(entry, check_potcar)
    correction = sum(value for _, value in adjustments)
    return Corrected(float(entry.uncorrected_energy) + correction, correction, adjustments)


def recompute_correction(entry: ComputedEntry) -> Corrected:
    """As `correct_entry` for an entry that may carry corrections: they are dropped and computed anew.

    Raises:
        RefusedError: as `corrected`.
    """
    adjustments = _adjustments(entry, _names_potcars(entry))
    correction = sum(value for _, value in adjustments)
    return Corrected(float(entry.uncorrected_energy) + correction, correction, adjustments)


def _adjustments(entry: ComputedEntry, check_potcar: bool) -> tuple[tuple[str, float], ...]:
    from pymatgen.analysis.compatibility import CompatibilityError

    u = {symbol: u for symbol, u in (entry.parameters.get("hubbards") or {}).items() if u}
    if u and len(entry.composition) == 1:  # which pymatgen lets pass
        raise RefusedError(HUBBARD_U, f"{entry.entry_id}: an element run with U ({u}); Materials Project uses none")
    for symbol, key in (("S", "sulfide_type"), ("O", "oxide_type")):
        # by the formula alone pymatgen takes every sulfate for a sulfide, which is off by 0.503 eV per S
        compound = symbol in entry.composition and len(entry.composition) > 1
        if compound and not hasattr(entry, "structure") and not entry.data.get(key):
            text = f"{entry.entry_id} has neither a structure nor a {key}, on which its correction depends"
            raise RefusedError(NO_STRUCTURE, text)
    copy = entry.copy()
    copy.data = dict(entry.data)  # pymatgen writes oxidation states into it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of guessed oxidation states: the scheme's own rule then applies
        try:
            found = _scheme(check_potcar).get_adjustments(copy)
        except CompatibilityError as error:
            raise RefusedError(*_reason(entry, str(error))) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError(UNCORRECTABLE, f"{entry.entry_id}: MP2020 cannot judge it: {error}") from None
    return tuple((a.name, float(a.value)) for a in found)


@cache
def _scheme(check_potcar: bool) -> MaterialsProject2020Compatibility:
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=check_potcar)


def _names_potcars(entry: ComputedEntry) -> bool:
    return bool(entry.parameters.get("potcar_symbols") or entry.parameters.get("potcar_spec"))


def _reason(entry: ComputedEntry, text: str) -> tuple[str, str]:
    """Kind and sentence for what pymatgen says, without the whole entry that it prints."""
    parameters: dict[str, Any] = entry.parameters
    name = f"{entry.entry_id or 'entry'} ({entry.composition.reduced_formula})"
    if "run type" in text:
        return RUN_TYPE, f"{name} is a run of the type {parameters.get('run_type')}, MP2020 takes GGA and GGA+U only"
    if "POTCAR" in text:
        return POTCAR, f"{name}: {text}; the energies of other POTCARs are not on Materials Project's scale"
    u = re.match(r"Invalid U value of (\S+) on (\w+), expected (\S+) for", text)
    if u:
        return HUBBARD_U, f"{name} was run with U = {u[1]} eV on {u[2]}, MP2020 holds for {u[3]} eV in this compound"
    return UNCORRECTABLE, f"{name}: {text.partition(' for {')[0]}"
