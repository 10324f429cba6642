"""Reference sets: the competing phases of a hull, all on one energy scale."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcgen import flow, store
from hpcgen.errors import Failure, ThermoError
from hpcgen.flow import ReferenceEntry, Relaxation

STAGE = "reference"


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """Competing phases and where they are from (`reference.h5`).

    Attributes:
        entries: the phases; their `entry_id` are unique.
        scale: energy scale of all of them, see `hpcgen.thermo.scales`.
        thermo_type: `GGA_GGA+U` for Materials Project without r2SCAN, else the calculator.
        date: how old it is, ISO; empty if nothing says so.
        source: one sentence for the report.
        correction: the scheme that the energies were corrected by; empty if none was.
        database_version: of the database that they are from; empty if there is none.

    Raises:
        ThermoError: if two entries have the same `entry_id`; names them.
    """

    entries: tuple[ReferenceEntry, ...]
    scale: str
    thermo_type: str
    date: str
    source: str
    correction: str = ""
    database_version: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        double = [e.entry_id for e in self.entries if e.entry_id in seen or seen.add(e.entry_id)]  # type: ignore[func-returns-value]
        if double:
            raise ThermoError(
                f"the reference ({self.source}) holds {len(double)} ids more than once: {', '.join(double[:5])}",
                expected="one row per id",
                remedy="remove the duplicates: which of two energies is right cannot be guessed",
            )

    @property
    def digest(self) -> str:
        """Digest of scale, thermo type and all entries; not of dates and texts."""
        state = hashlib.blake2b(f"{self.scale}/{self.thermo_type}\n".encode(), digest_size=16)
        for e in self.entries:
            state.update(f"{e.entry_id}\t{e.formula}\t{e.energy_per_atom!r}\t{int(e.element)}\n".encode())
        return state.hexdigest()

    def write(
        self,
        path: Path,
        *,
        failures: Iterable[Failure] = (),
        header: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write reference.h5; `attrs` come beside the set's own attributes."""
        own = {"scale": self.scale, "thermo_type": self.thermo_type, "date": self.date, "source": self.source}
        own |= {"correction": self.correction, "database_version": self.database_version}
        own["reference_digest"] = self.digest
        store.write(
            path, ReferenceEntry, self.entries, failures=failures, header=header, attrs={**own, **(attrs or {})}
        )

    @classmethod
    def read(cls, path: Path) -> ReferenceSet:
        """The set that `write` wrote.

        Raises:
            StoreError: if the file is missing, damaged or holds something else.
            ThermoError: if it does not say its scale, or its entries are not those that were written.
        """
        with store.open(path, ReferenceEntry) as f:
            attrs = f.attrs
            missing = [key for key in ("scale", "thermo_type", "date", "source") if key not in attrs]
            if missing:
                raise ThermoError(
                    f"{path} does not say its {' and '.join(missing)}", remedy="write it with `hpcgen reference`"
                )
            texts = [str(attrs[key]) for key in ("scale", "thermo_type", "date", "source")]
            further = [str(attrs.get(key, "")) for key in ("correction", "database_version")]
            reference = cls(tuple(f), *texts, *further)
        if attrs.get("reference_digest") != reference.digest:
            raise ThermoError(
                f"{path}: entries or scale are not those that were written",
                expected=f"digest {attrs.get('reference_digest')}, found {reference.digest}",
                remedy="restore the file or make the reference again",
            )
        return reference


def from_relaxations(
    relaxations: Sequence[tuple[str, Relaxation]], scale: str, title: str, date: str, source: str, run_digest: str
) -> ReferenceSet:
    """A set from (name, relaxation) by one calculator. The lowest crystal of each element is its reference.

    Args:
        relaxations: unique names and what they relaxed to.
        scale: the calculator's.
        title: the calculator's name and version.
        date: ISO.
        source: one sentence that says what the set is and what it is not.
        run_digest: for the ids of the records.

    Raises:
        ThermoError: if a relaxation is of another scale, or names occur twice.
    """
    lowest: dict[str, tuple[float, str]] = {}
    for name, r in relaxations:
        if r.scale != scale:
            raise ThermoError(f"{name} has energies of the scale {r.scale!r}", expected=f"{scale!r}, as all others")
        if len(r.crystal.elements) == 1:
            symbol = r.crystal.elements[0]
            lowest[symbol] = min(lowest.get(symbol, (math.inf, "")), (r.energy / len(r.crystal), name))
    references = {name for _, name in lowest.values()}
    entries = tuple(
        ReferenceEntry(
            flow.make_id(run_digest, STAGE, i), name, full_formula(r), r.energy / len(r.crystal), name in references
        )
        for i, (name, r) in enumerate(relaxations)
    )
    return ReferenceSet(entries, scale, title, date, source)


def mark_elements(entries: Sequence[ReferenceEntry]) -> tuple[ReferenceEntry, ...]:
    """The entries with the lowest one of each element marked as its reference.

    Raises:
        ThermoError: if an element of a compound has no entry of its own; names them all.
    """
    lowest: dict[str, int] = {}
    used: set[str] = set()
    for i, e in enumerate(entries):
        symbols = list(parse_formula(e.formula))
        used.update(symbols)
        if len(symbols) == 1 and e.energy_per_atom < entries[lowest.setdefault(symbols[0], i)].energy_per_atom:
            lowest[symbols[0]] = i
    missing = sorted(used - set(lowest))
    if missing:
        raise ThermoError(
            f"the reference has compounds of {', '.join(missing)}, but no entry of the element itself",
            expected="an energy of each element: without it there are neither formation energies nor a hull",
            remedy="add the elements, or give a file of elemental entries (--elements)",
        )
    references = set(lowest.values())
    return tuple(replace(e, element=i in references) for i, e in enumerate(entries))


def full_formula(relaxation: Relaxation) -> str:
    """Full formula of the cell, such as `Ti2 O4`."""
    from hpcgen.crystal import composition_of

    return composition_of(relaxation.crystal.numbers).formula


def parse_formula(formula: str) -> dict[str, float]:
    """Atomic fractions by element symbol of a formula such as `Ti2 O4` or `Ca(OH)2`.

    Raises:
        ValueError: if it is no formula of known elements.
    """
    from pymatgen.core import Composition, Element

    text = formula.strip()
    simple = re.fullmatch(r"(?:[A-Z][a-z]?\d*\s*)+", text)
    if simple:
        amounts: dict[str, float] = {}
        for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", text):
            amounts[symbol] = amounts.get(symbol, 0.0) + (float(count) if count else 1.0)
    else:
        try:
            amounts = {str(e): float(n) for e, n in Composition(text, strict=True).items()}
        except (ValueError, TypeError, KeyError):
            amounts = {}
    total = sum(amounts.values())
    unknown = [symbol for symbol in amounts if not Element.is_valid_symbol(symbol)]
    if not total or unknown:
        raise ValueError(f"{formula!r} is no formula{': no element ' + ', '.join(unknown) if unknown else ''}")
    return {symbol: n / total for symbol, n in amounts.items() if n}
