"""A reference set from the Materials Project's API, as a frozen snapshot.

Compute nodes have no internet: fetch on a login node, then give every run the same file. The key is read from the
environment variable MP_API_KEY and appears in no file, no log and no message.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Protocol

from hpcgen import flow
from hpcgen.errors import DependencyError, Failure, ThermoError
from hpcgen.flow import ReferenceEntry
from hpcgen.thermo import scales
from hpcgen.thermo.check import Agreement, against_published
from hpcgen.thermo.reference import STAGE, ReferenceSet, mark_elements, parse_formula

KEY = "MP_API_KEY"
FIELDS = [
    "material_id",
    "thermo_type",
    "composition",
    "energy_per_atom",
    "uncorrected_energy_per_atom",
    "energy_above_hull",
    "deprecated",
    "last_updated",
]
SYSTEMS_AT_ONCE = 100  # chemical systems in one query


class Thermo(Protocol):
    """What is asked of `mp_api.client.MPRester().materials.thermo`."""

    def search(self, **query: Any) -> Sequence[dict[str, Any]]: ...


def connect() -> tuple[Any, str]:
    """A client of the Materials Project and the version of its database.

    Raises:
        DependencyError: if mp-api is not installed.
        ThermoError: if there is no key, or no connection.
    """
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise ThermoError(
            f"the environment variable {KEY} is not set",
            expected="your key of the Materials Project",
            remedy=f"get one at https://materialsproject.org/api, then: export {KEY}=...",
        )
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        lacks = str(getattr(error, "name", None) or "")
        state = f"cannot be imported: {error}" if lacks and not lacks.startswith("mp_api") else "is not installed"
        raise DependencyError(f"mp-api {state}", remedy="pip install 'hpcgen[mp]'") from None
    try:
        client = MPRester(api_key=key, use_document_model=False, mute_progress_bars=True)
        return client, str(client.db_version or "")
    except Exception as error:
        raise _unreachable(error) from None


def check_systems(systems: Sequence[Sequence[str]]) -> None:
    """Refuse what is no chemical system, before anybody is asked: `Li-TI-O` would be answered without titanium.

    Raises:
        ThermoError: if a symbol is of no element; names it.
    """
    from pymatgen.core import Element

    for system in systems:
        unknown = [symbol for symbol in system if not Element.is_valid_symbol(symbol)]
        if unknown:
            raise ThermoError(
                f"{'-'.join(system)} is no chemical system: there is no element {' or '.join(map(repr, unknown))}",
                expected="element symbols joined by `-`, such as Li-Ti-O",
            )


def fetch(
    thermo: Thermo, database_version: str, systems: Sequence[Sequence[str]], run_digest: str
) -> tuple[ReferenceSet, list[Failure], int, Agreement]:
    """Everything of the thermo type GGA_GGA+U, or what competes in some chemical systems.

    Args:
        thermo: the client's `materials.thermo`.
        database_version: for the record.
        systems: element symbols of each chemical system, subsystems are added; none for the whole database.
        run_digest: for the ids of the records.

    Returns:
        the set; failures (`deprecated`, `bad-entry`); documents received; computed against published energies above
        the hull, which agree if nothing is missing.

    Raises:
        ThermoError: if the server cannot be asked, answers with another thermo type or with nothing.
    """
    documents = list(_documents(thermo, systems))
    kinds = Counter(str(d.get("thermo_type")) for d in documents)
    if set(kinds) - {scales.GGA_GGA_U}:
        found = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        raise ThermoError(
            f"the Materials Project answered with mixed thermo types: {found}",
            expected=f"{scales.GGA_GGA_U} alone, as asked for",
            remedy="update mp-api; energies of two functionals make no hull",
        )
    failures: list[Failure] = []
    entries: list[ReferenceEntry] = []
    published: dict[str, float] = {}
    newest = ""
    for document in documents:
        name = str(document.get("material_id"))
        if document.get("deprecated"):
            failures.append(Failure(name, STAGE, "deprecated", f"{name} is deprecated by the Materials Project"))
            continue
        try:
            entry = _entry(name, document, flow.make_id(run_digest, STAGE, len(entries)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            failures.append(Failure(name, STAGE, "bad-entry", f"{name}: {type(error).__name__} {error}"))
            continue
        entries.append(entry)
        if document.get("energy_above_hull") is not None:
            published[name] = float(document["energy_above_hull"])
        newest = max(newest, str(document.get("last_updated") or "")[:10])
    if not entries:
        raise ThermoError(
            "the Materials Project has no entry of these chemical systems",
            remedy="check the element symbols, such as --systems Li-Ti-O",
        )
    without = sorted({symbol for s in systems for symbol in s} - {s for e in entries for s in parse_formula(e.formula)})
    if without:
        raise ThermoError(
            f"the Materials Project has no entry with {', '.join(without)}",
            expected="an energy of each element that was asked for",
            remedy="ask without it: no crystal that holds it can be judged",
        )
    what = ", ".join("-".join(s) for s in systems) if systems else "the whole database"
    source = f"Materials Project, database version {database_version or 'unknown'}, {what}, by its API"
    date = newest or datetime.now(UTC).date().isoformat()
    reference = ReferenceSet(
        mark_elements(entries), scales.MP2020, scales.GGA_GGA_U, date, source, scales.MP2020_SCHEME, database_version
    )
    return reference, failures, len(documents), against_published(reference, published)


def _documents(thermo: Thermo, systems: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Every document once, in the order of their ids, so that the set does not depend on the server's order."""
    names = sorted(
        {"-".join(part) for s in systems for n in range(1, len(s) + 1) for part in combinations(sorted(s), n)}
    )
    asked: list[list[str] | None] = [names[i : i + SYSTEMS_AT_ONCE] for i in range(0, len(names), SYSTEMS_AT_ONCE)]
    found: list[dict[str, Any]] = []
    for part in asked or [None]:
        query: dict[str, Any] = {"thermo_types": [scales.GGA_GGA_U], "fields": FIELDS, "all_fields": False}
        if part is not None:
            query["chemsys"] = part
        try:
            found += thermo.search(**query)
        except Exception as error:
            raise _unreachable(error) from None
    yield from sorted(found, key=lambda d: (len(str(d.get("material_id"))), str(d.get("material_id"))))


def _entry(name: str, document: dict[str, Any], identity: str) -> ReferenceEntry:
    """The record of a document.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: if it is none.
    """
    from pymatgen.core import Composition

    formula = Composition({str(symbol): float(n) for symbol, n in document["composition"].items()}).formula
    parse_formula(formula)
    energy, raw = float(document["energy_per_atom"]), document.get("uncorrected_energy_per_atom")
    if not math.isfinite(energy):
        raise ValueError(f"energy {energy}")
    return ReferenceEntry(identity, name, formula, energy, False, math.nan if raw is None else float(raw))


def _unreachable(error: Exception) -> ThermoError:
    text = str(error)
    key = os.environ.get(KEY, "").strip()
    if key:
        text = text.replace(key, "***")
    return ThermoError(
        f"the Materials Project cannot be asked: {type(error).__name__}: {text[:300]}",
        expected="a connection and a valid key",
        remedy=f"run this on a login node, which has internet, and check {KEY}",
    )
