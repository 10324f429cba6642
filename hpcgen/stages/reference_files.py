"""`hpcgen reference fetch` and `hpcgen reference build`: snapshots that campaigns use as `hull.reference: FILE.h5`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcgen import __version__, provenance, store
from hpcgen.errors import Failure, UsageError
from hpcgen.flow import Relaxation
from hpcgen.stages.context import Balance
from hpcgen.thermo import ReferenceSet, from_energies, from_formation_energies, from_relaxations
from hpcgen.thermo.check import Agreement
from hpcgen.thermo.entries import from_computed_entries
from hpcgen.thermo.fetch import check_systems, connect, fetch
from hpcgen.thermo.files import sha256
from hpcgen.thermo.reference import STAGE

log = logging.getLogger("hpcgen")


def fetch_snapshot(output: Path, systems: Sequence[Sequence[str]], client: tuple[Any, str] | None = None) -> Balance:
    """Write the Materials Project's energies, all or those of some chemical systems with their subsystems.

    Args:
        output: the file, which must not exist.
        systems: element symbols of each chemical system; none for all.
        client: an MPRester and the version of its database; made from the environment if not given.

    Raises:
        ThermoError, DependencyError: as `thermo.fetch` says.
    """
    _free(output)
    check_systems(systems)
    rester, version = client or connect()
    identity = _identity("fetch", version, ["-".join(s) for s in systems])
    reference, failures, entered, agreement = fetch(rester.materials.thermo, version, systems, identity)
    return _write(output, reference, failures, entered, {}, agreement)


def build_snapshot(output: Path, path: Path, *, elements: Path | None = None, scale: str | None = None) -> Balance:
    """Write a reference set from a file.

    Args:
        output: the file, which must not exist.
        path: ComputedEntries (.json, .json.gz), a table (.csv, .csv.gz) or relaxations of a run (.h5).
        elements: ComputedEntries of the elements (json or json.gz), for formation energies or missing elements.
        scale: energy scale of a calculator whose own energies these are; None for the Materials Project's.

    Raises:
        UsageError: if the output exists, or the file is of no known kind.
        ThermoError: if the file makes no reference set.
    """
    _free(output)
    name = path.name.lower()
    inputs = {p.name: sha256(p) for p in (path, elements) if p is not None and p.is_file()}
    identity = _identity("build", str(scale), list(inputs.values()))
    if name.endswith((".json", ".json.gz", ".jsonl", ".jsonl.gz", ".gz")) and ".csv" not in name:
        made = from_computed_entries(path, identity, elements=elements, scale=scale)
    elif name.endswith((".csv", ".csv.gz")) and scale is not None:
        made = from_energies(path, scale, identity)
    elif name.endswith((".csv", ".csv.gz")):
        if elements is None:
            raise UsageError(
                f"{path} is a table of formation energies, and no elemental entries are given",
                expected="--elements FILE, which gives the energies their zero; or --scale NAME for a table with the "
                "column energy_per_atom",
            )
        made = from_formation_energies(path, elements, identity)
    elif name.endswith((".h5", ".hdf5")):
        made = _from_run(path, identity)
    else:
        raise UsageError(f"{path} is of no known kind", expected=".json, .json.gz, .csv, .csv.gz or .h5")
    return _write(output, *made, inputs, None)


def _from_run(path: Path, identity: str) -> tuple[ReferenceSet, list[Failure], int]:
    """The converged relaxations of a run, by its own calculator."""
    with store.open(path, Relaxation) as f:
        items = list(f)
    failures = [
        Failure(r.id, STAGE, "not-converged", f"{r.crystal.formula} ({r.id}) is not fully relaxed")
        for r in items
        if not r.converged
    ]
    kept = [(r.id, r) for r in items if r.converged]
    if not kept:
        raise UsageError(f"{path} holds no converged relaxation", expected="relaxed-mlip.h5 of a run")
    title, scale = kept[0][1].calculator, kept[0][1].scale
    source = f"{len(kept)} relaxations of {path.name} by {title} (sha256 {sha256(path)[:16]})"
    date = datetime.now(UTC).date().isoformat()
    return from_relaxations(kept, scale, title, date, source, identity), failures, len(items)


def _write(
    output: Path,
    reference: ReferenceSet,
    failures: list[Failure],
    entered: int,
    inputs: dict[str, str],
    agreement: Agreement | None,
) -> Balance:
    balance = Balance.of(STAGE, entered, len(reference.entries), failures)
    attrs = {"balance": balance.to_json(), "sha256": json.dumps(inputs, sort_keys=True)}
    if agreement is not None:
        attrs["agreement"] = str(agreement)
    header = {
        "hpcgen_version": __version__,
        "git": provenance.git_commit(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": json.dumps(provenance.package_versions()),
    }
    reference.write(output, failures=failures, header=header, attrs=attrs)
    log.info("%s: %s", output, balance)
    log.info("scale %s, thermo type %s, %s", reference.scale, reference.thermo_type, reference.source)
    if agreement is not None:
        (log.warning if agreement.above else log.info)("%s", agreement)
    return balance


def _free(output: Path) -> None:
    if output.exists():
        raise UsageError(f"{output} exists already", remedy="give another name with -o: snapshots are never changed")


def _identity(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
