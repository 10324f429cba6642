"""Reference sets from files of pymatgen ComputedEntries, in the layouts that data sets come in.

A JSON file (plain or gzip) may hold
- a list of entries, or of rows with an entry in one of their fields,
- an object with an entry for each id,
- a table by columns, as pandas writes it (Matbench Discovery: `material_id` and `entry`),
- a row on each line.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgen import flow
from hpcgen.errors import Failure, ThermoError
from hpcgen.flow import ReferenceEntry
from hpcgen.thermo import scales
from hpcgen.thermo.corrections import RefusedError, correct_entry
from hpcgen.thermo.files import read_text, sha256
from hpcgen.thermo.reference import STAGE, ReferenceSet, mark_elements, parse_formula
from hpcgen.thermo.tables import element_energies

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

Tree = dict[str, Any]

OTHER_CORRECTION = "other-correction"
BAD_ENTRY = "bad-entry"
_GGA = ("GGA", "GGA+U", "PBE", "PBE+U", "GGA_GGA+U")
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"
_MATTERGEN = (
    "from pathlib import Path; import json; "
    "from mattergen.evaluation.reference.reference_dataset_serializer import LMDBGZSerializer as S; "
    'json.dump([e.as_dict() for e in S().deserialize(Path("FILE.gz"))], open("FILE.json", "w"))'
)


def from_computed_entries(
    path: Path, run_digest: str, *, elements: Path | None = None, scale: str | None = None
) -> tuple[ReferenceSet, list[Failure], int]:
    """A set from ComputedEntries, on the Materials Project scale with the 2020 corrections applied exactly once.

    An entry whose energy adjustments are all of MP2020 keeps them; one without any is corrected; one with others is
    refused, for what its energy means cannot be known.

    Args:
        path: the file.
        run_digest: for the ids of the records.
        elements: elemental entries for elements that the file has no entry of.
        scale: of a calculator whose uncorrected energies these are; None for GGA and GGA+U of the Materials Project.

    Returns:
        the set; failures (`bad-entry`, `other-correction` and the kinds of `RefusedError`); entries read.

    Raises:
        ThermoError: if the file is missing or of no such layout, functionals are mixed, ids occur twice, or an element
            has no entry.
    """
    rows = list(_rows(path))
    if not rows:
        raise ThermoError(f"{path} holds no entry")
    if scale is None:
        _check_functionals(path, [tree for _, tree in rows])
    failures: list[Failure] = []
    named: list[tuple[str, str, float, float]] = []
    for name, tree in rows:
        try:
            named.append((name, *_energies(name, tree, scale)))
        except RefusedError as error:
            failures.append(Failure(name, STAGE, error.kind, str(error)))
    texts = [f"{len(rows)} ComputedEntries of {path.name} (sha256 {sha256(path)[:16]})"]
    if elements is not None:
        present = {symbol for _, formula, _, _ in named if len(x := parse_formula(formula)) == 1 for symbol in x}
        added = {s: e for s, e in sorted(element_energies(elements)[0].items()) if s not in present}
        named += [(f"element:{symbol}", f"{symbol}1", energy, math.nan) for symbol, energy in added.items()]
        texts.append(f"{len(added)} elements of {elements.name} (sha256 {sha256(elements)[:16]})")
    if not named:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.kind for f in failures).items())
        raise ThermoError(
            f"none of the {len(rows)} entries of {path} can be used ({kinds}); the first: {failures[0].message}",
            remedy="give entries of the Materials Project, or name the scale of a calculator's own energies (--scale)",
        )
    records = [
        ReferenceEntry(flow.make_id(run_digest, STAGE, i), name, formula, energy, False, raw)
        for i, (name, formula, energy, raw) in enumerate(named)
    ]
    reference = ReferenceSet(
        mark_elements(records),
        scale or scales.MP2020,
        scale or scales.GGA_GGA_U,
        _newest([tree for _, tree in rows]),
        " and ".join(texts),
        "" if scale else scales.MP2020_SCHEME,
    )
    return reference, failures, len(named) + len(failures)


def _energies(name: str, tree: Tree, scale: str | None) -> tuple[str, float, float]:
    """Full formula, corrected and uncorrected energy per atom.

    Raises:
        RefusedError: if the entry has no place on the scale.
    """
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    try:
        kind = ComputedStructureEntry if "structure" in tree else ComputedEntry
        entry: ComputedEntry = kind.from_dict(tree)
        atoms, raw = float(entry.composition.num_atoms), float(entry.uncorrected_energy)
        if not (atoms > 0 and math.isfinite(raw) and math.isfinite(float(entry.energy))):
            raise ValueError(f"energy {entry.energy} of {atoms:g} atoms")
        formula = str(entry.composition.formula)
        parse_formula(formula)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(BAD_ENTRY, f"{name} is no ComputedEntry: {type(error).__name__} {error}") from None
    names = [str(a.name) for a in entry.energy_adjustments]
    corrected = bool(names) or abs(float(entry.correction)) > 1e-12
    if corrected and (scale is not None or not all(n.startswith("MP2020") for n in names)):
        text = f"{name} carries the correction {', '.join(names) or 'without a name'} ({entry.correction:+.4f} eV)"
        raise RefusedError(OTHER_CORRECTION, f"{text}, which does not belong to the scale {scale or scales.MP2020}")
    if corrected or scale is not None:
        return formula, float(entry.energy) / atoms, raw / atoms
    parameters = tree.get("parameters") or {}
    known = bool(parameters.get("potcar_symbols") or parameters.get("potcar_spec"))
    return formula, correct_entry(entry, check_potcar=known).energy / atoms, raw / atoms


def _check_functionals(path: Path, trees: Sequence[Tree]) -> None:
    """Refuse functionals that have no common scale.

    Raises:
        ThermoError: if there are others than GGA and GGA+U.
    """
    counts = Counter(str(_functional(tree)) for tree in trees)
    others = {kind: n for kind, n in counts.items() if kind not in (*_GGA, "None")}
    if others:
        found = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
        raise ThermoError(
            f"{path} mixes thermo types: {found}",
            expected="GGA and GGA+U, which Materials Project's 2020 corrections bring onto one scale",
            remedy="fetch with the thermo type GGA_GGA+U alone, or remove the others: energies of two functionals make "
            "no hull",
        )


def _functional(tree: Tree) -> Any:
    for part in (tree.get("parameters") or {}, tree.get("data") or {}):
        for key in ("run_type", "thermo_type"):
            if part.get(key):
                return part[key]
    return None


def _newest(trees: Sequence[Tree]) -> str:
    """Date of the newest entry, ISO; empty if none has one."""
    found = ((tree.get("data") or {}).get("last_updated") for tree in trees)
    texts = (d.get("string", "") if isinstance(d, dict) else d for d in found)
    return max((t[:10] for t in texts if isinstance(t, str)), default="")


def _rows(path: Path) -> Iterator[tuple[str, Tree]]:
    """(name, entry as a dict) of every entry of the file."""
    _refuse_lmdb(path)
    text = read_text(path)
    try:
        tree = json.loads(text)
    except ValueError as error:
        try:
            tree = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ThermoError(
                f"{path} is no JSON: {error}", expected="entries in JSON, one of docs/stability.md"
            ) from None
    if isinstance(tree, dict):
        columns = [c for c, values in tree.items() if isinstance(values, (dict, list)) and _holds_entries(values)]
        if columns:  # pandas, by columns
            items = _pairs(tree[columns[0]])
            names = dict(_pairs(tree["material_id"])) if "material_id" in tree else {}
            yield from ((str(names.get(key) or _name(entry, key)), entry) for key, entry in items)
            return
        tree = [{**value, "entry_id": value.get("entry_id") or key} for key, value in tree.items() if _is_entry(value)]
    if not isinstance(tree, list) or not all(isinstance(row, dict) for row in tree):
        raise ThermoError(f"{path} holds a JSON {type(tree).__name__} without entries", expected="ComputedEntries")
    for number, row in enumerate(tree, start=1):
        if _is_entry(row):
            yield _name(row, f"row:{number}"), row
            continue
        entry = next((value for value in row.values() if isinstance(value, dict) and _is_entry(value)), None)
        name = row.get("material_id") or _name(entry or {}, f"row:{number}")
        yield str(name), entry or row


def _pairs(values: Any) -> list[tuple[str, Any]]:
    return list(values.items()) if isinstance(values, dict) else [(str(i), v) for i, v in enumerate(values)]


def _holds_entries(values: Any) -> bool:
    items = list(values.values()) if isinstance(values, dict) else values
    return bool(items) and all(isinstance(v, dict) and _is_entry(v) for v in items)


def _is_entry(tree: Any) -> bool:
    return isinstance(tree, dict) and "energy" in tree and ("composition" in tree or "structure" in tree)


def _name(entry: Tree, otherwise: str) -> str:
    return str(entry.get("entry_id") or (entry.get("data") or {}).get("material_id") or otherwise)


def _refuse_lmdb(path: Path) -> None:
    """MatterGen publishes its references as LMDB files of pickles, which run code when they are read."""
    if not path.is_file():
        return  # read_text says so
    import gzip

    with path.open("rb") as f:
        start = f.read(64)
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as f:
                start = f.read(64)
        except (OSError, EOFError):
            return
    if start[16:20] == _LMDB_MAGIC:
        raise ThermoError(
            f"{path} is MatterGen's LMDB file, whose records are pickles: reading them would run whatever they hold",
            expected="ComputedEntries in JSON",
            remedy=f"convert it where MatterGen is installed, then give FILE.json: python -c '{_MATTERGEN}'",
        )
