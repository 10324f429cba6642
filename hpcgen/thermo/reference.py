"""Reference sets: the competing phases of a hull, all on one energy scale."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgen import flow, store
from hpcgen.errors import Failure, ThermoError
from hpcgen.flow import ReferenceEntry, Relaxation
from hpcgen.thermo import scales

STAGE = "reference"
COLUMNS = ("formula", "formation_energy_per_atom")
ID_COLUMN = "material_id"


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """Competing phases and where they are from (`reference.h5`).

    Attributes:
        entries: the phases; their `entry_id` are unique.
        scale: energy scale of all of them, see `hpcgen.thermo.scales`.
        thermo_type: `GGA_GGA+U` for Materials Project without r2SCAN, else the calculator.
        date: how old it is, ISO; empty if nothing says so.
        source: one sentence for the report.

    Raises:
        ThermoError: if two entries have the same `entry_id`; names them.
    """

    entries: tuple[ReferenceEntry, ...]
    scale: str
    thermo_type: str
    date: str
    source: str

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
            reference = cls(
                tuple(f), str(attrs["scale"]), str(attrs["thermo_type"]), str(attrs["date"]), str(attrs["source"])
            )
        if attrs.get("reference_digest") != reference.digest:
            raise ThermoError(
                f"{path}: entries or scale are not those that were written",
                expected=f"digest {attrs.get('reference_digest')}, found {reference.digest}",
                remedy="restore the file or make the reference again",
            )
        return reference


def from_formation_energies(table: Path, elements: Path, run_digest: str) -> tuple[ReferenceSet, list[Failure], int]:
    """Total energies E = E_f + sum_e x_e E_e on the Materials Project scale, from formation energies.

    Args:
        table: CSV, plain or gzip, with the columns `formula` and `formation_energy_per_atom` (eV/atom, from the
            same elemental references) and, if its rows have names, `material_id`.
        elements: json or json.gz, a pymatgen ComputedEntry (as a dict) for each element symbol.
        run_digest: for the ids of the records.

    Returns:
        the set, elements first; failures (`bad-formula`, `bad-energy`, `no-element-reference`); rows and elements read.

    Raises:
        ThermoError: if a file is missing or not of that layout, or ids occur twice.
    """
    per_atom, date = _elements(elements)
    rows = _rows(table)
    named = [(f"element:{symbol}", f"{symbol}1", energy, True) for symbol, energy in sorted(per_atom.items())]
    failures: list[Failure] = []
    for number, row in enumerate(rows, start=1):
        place = f"row:{number}"
        try:
            fractions = parse_formula(row["formula"] or "")
        except ValueError as error:
            failures.append(Failure(place, STAGE, "bad-formula", str(error)))
            continue
        energy = _number(row["formation_energy_per_atom"])
        if energy is None:
            text = f"{row['formula']}: formation energy {row['formation_energy_per_atom']!r} is not a number"
            failures.append(Failure(place, STAGE, "bad-energy", text))
            continue
        unknown = sorted(set(fractions) - set(per_atom))
        if unknown:
            text = f"{row['formula']}: no elemental reference for {', '.join(unknown)} in {elements.name}"
            failures.append(Failure(place, STAGE, "no-element-reference", text))
            continue
        total = energy + sum(x * per_atom[symbol] for symbol, x in fractions.items())
        named.append((row.get(ID_COLUMN) or place, row["formula"].strip(), total, False))
    entries = tuple(
        ReferenceEntry(flow.make_id(run_digest, STAGE, i), entry_id, formula, energy, element)
        for i, (entry_id, formula, energy, element) in enumerate(named)
    )
    source = (
        f"a partial hull from the formation energies of {table.name} (sha256 {_sha256(table)}) and the elemental "
        f"references of {elements.name} "
        f"(sha256 {_sha256(elements)}); energies above it are lower bounds, because it lacks phases"
    )
    reference = ReferenceSet(entries, scales.MP2020, "GGA_GGA+U", date, source)
    return reference, failures, len(rows) + len(per_atom)


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


def _rows(table: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_text(table)))
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
    if missing:
        raise ThermoError(
            f"{table} has no column {' and '.join(missing)}",
            expected=f"the columns {', '.join(COLUMNS)}, found {', '.join(reader.fieldnames or []) or 'none'}",
        )
    return list(reader)


def _elements(path: Path) -> tuple[dict[str, float], str]:
    """Energy per atom (corrections included) of each element, and the date of the newest entry."""
    try:
        tree = json.loads(_text(path))
        energies, dates = {}, []
        for symbol, entry in tree.items():
            atoms = sum(entry["composition"].values())
            if set(entry["composition"]) != {symbol} or not atoms > 0:
                raise ValueError(f"the entry of {symbol} is of {entry['composition']}")
            energies[symbol] = (entry["energy"] + (entry.get("correction") or 0.0)) / atoms
            updated = (entry.get("data") or {}).get("last_updated")
            dates += [updated["string"][:10]] if isinstance(updated, dict) and "string" in updated else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ThermoError(
            f"{path} does not hold elemental references: {error}",
            expected="a JSON object with a ComputedEntry of the element for each element symbol",
        ) from None
    if not energies:
        raise ThermoError(f"{path} holds no element")
    return energies, max(dates, default="")


def _text(path: Path) -> str:
    if not path.is_file():
        raise ThermoError(f"there is no file {path}", remedy="check hull.reference and hull.elements")
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ThermoError(f"{path} cannot be read: {error}", expected="UTF-8 text, plain or gzip") from None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
