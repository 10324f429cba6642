"""Reference sets from tables: formation energies with elemental references, or a calculator's own energies."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from pathlib import Path

from hpcgen import flow
from hpcgen.errors import Failure, ThermoError
from hpcgen.flow import ReferenceEntry
from hpcgen.thermo import scales
from hpcgen.thermo.check import against_published
from hpcgen.thermo.files import read_text, sha256
from hpcgen.thermo.reference import STAGE, ReferenceSet, mark_elements, parse_formula

COLUMNS = ("formula", "formation_energy_per_atom")
ENERGY = "energy_per_atom"
PUBLISHED = "e_above_hull"
ID_COLUMN = "material_id"

log = logging.getLogger("hpcgen")


def from_formation_energies(table: Path, elements: Path, run_digest: str) -> tuple[ReferenceSet, list[Failure], int]:
    """Total energies E = E_f + sum_e x_e E_e on the Materials Project scale, from formation energies.

    Args:
        table: CSV, plain or gzip, with the columns `formula` and `formation_energy_per_atom` (eV/atom, from the
            same elemental references) and, if there are any, `material_id` (names) and `e_above_hull` (the published
            energies above the hull, eV/atom: where they contradict the others a warning says so).
        elements: json or json.gz, a pymatgen ComputedEntry (as a dict) for each element symbol.
        run_digest: for the ids of the records.

    Returns:
        the set, elements first; failures (`bad-formula`, `bad-energy`, `no-element-reference`); rows and elements read.

    Raises:
        ThermoError: if a file is missing or not of that layout, or ids occur twice.
    """
    per_atom, date = element_energies(elements)
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
    entries = _records(named, run_digest)
    source = (
        f"a partial hull from the formation energies of {table.name} (sha256 {sha256(table)[:16]}) and the elemental "
        f"references of {elements.name} "
        f"(sha256 {sha256(elements)[:16]}); energies above it are lower bounds, because it lacks phases"
    )
    reference = ReferenceSet(entries, scales.MP2020, scales.GGA_GGA_U, date, source, scales.MP2020_SCHEME)
    published = {row.get(ID_COLUMN) or f"row:{n}": _number(row.get(PUBLISHED)) for n, row in enumerate(rows, start=1)}
    agreement = against_published(reference, {name: e for name, e in published.items() if e is not None})
    if agreement.above:
        log.warning("%s contradicts itself: %s", table.name, agreement)
    return reference, failures, len(rows) + len(per_atom)


def from_energies(table: Path, scale: str, run_digest: str) -> tuple[ReferenceSet, list[Failure], int]:
    """A set from a calculator's own energies.

    Args:
        table: CSV, plain or gzip, with the columns `formula` and `energy_per_atom` (eV/atom, by that calculator, not
            corrected) and, if its rows have names, `material_id`.
        scale: the calculator's energy scale: candidates by the same calculator only may meet it.
        run_digest: for the ids of the records.

    Returns:
        the set; failures (`bad-formula`, `bad-energy`); rows read.

    Raises:
        ThermoError: if the file is missing or not of that layout, ids occur twice, or an element has no entry.
    """
    rows = _rows(table, (COLUMNS[0], ENERGY))
    failures: list[Failure] = []
    named: list[tuple[str, str, float, bool]] = []
    for number, row in enumerate(rows, start=1):
        place = f"row:{number}"
        energy = _number(row[ENERGY])
        try:
            parse_formula(row["formula"] or "")
        except ValueError as error:
            failures.append(Failure(place, STAGE, "bad-formula", str(error)))
            continue
        if energy is None:
            failures.append(Failure(place, STAGE, "bad-energy", f"{row['formula']}: {row[ENERGY]!r} is not a number"))
            continue
        named.append((row.get(ID_COLUMN) or place, row["formula"].strip(), energy, False))
    source = f"energies of {table.name} (sha256 {sha256(table)[:16]}) on the scale {scale}"
    reference = ReferenceSet(mark_elements(_records(named, run_digest)), scale, scale, "", source)
    return reference, failures, len(rows)


def _records(named: list[tuple[str, str, float, bool]], run_digest: str) -> tuple[ReferenceEntry, ...]:
    return tuple(
        ReferenceEntry(flow.make_id(run_digest, STAGE, i), entry_id, formula, energy, element)
        for i, (entry_id, formula, energy, element) in enumerate(named)
    )


def _rows(table: Path, columns: tuple[str, ...] = COLUMNS) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(table)))
    missing = [c for c in columns if c not in (reader.fieldnames or [])]
    if missing:
        raise ThermoError(
            f"{table} has no column {' and '.join(missing)}",
            expected=f"the columns {', '.join(columns)}, found {', '.join(reader.fieldnames or []) or 'none'}",
        )
    return list(reader)


def element_energies(path: Path) -> tuple[dict[str, float], str]:
    """Energy per atom (corrections included) of each element, and the date of the newest entry."""
    try:
        tree = json.loads(read_text(path))
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


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
