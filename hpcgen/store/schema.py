"""Schemas of the HDF5 files, derived from the record types of `hpcgen.flow` and the families' sample types.

A column is declared once, on the field of its dataclass; this registry turns the declarations into paths, types,
units and descriptions, from which writer, reader, `hpcgen inspect` and `docs/hdf5.md` work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from hpcgen import flow

VERSION = 1
DATASET_VERSION = 2  # since 2 an entry carries the properties that samples can be asked for
CANDIDATE_VERSION = 2  # since 2: attempt, attempts
RELAXED_VERSION = 2  # since 2: energies and forces of every step
STABILITY_VERSION = 3  # since 2: new_stable, sun, competitors, correction; since 3: oxidation states
REFERENCE_VERSION = 2  # since 2: uncorrected energies
PHONONS_VERSION = 2  # since 2: forces, scale, max_force
CRYSTAL: dict[str, tuple[str, str, str, str]] = {
    "lattice": ("float64", "(M, 3, 3)", "angstrom", "lattice vectors, one per row"),
    "atoms/offset": ("int64", "(M+1,)", "", "record i owns atoms offset[i]:offset[i+1]"),
    "atoms/number": ("uint8", "(N,)", "", "atomic numbers"),
    "atoms/frac": ("float64", "(N, 3)", "1", "fractional coordinates in [0, 1)"),
}
"""Datasets of the crystal: type, shape, unit, description."""

STEP_OFFSET = "steps/offset"
"""Dataset that says which steps are a record's, in files whose records have columns per step."""

RESERVED = ("id", "atoms", "steps", "lattice", "table", "failures", "crc32")

STAGES: dict[str, tuple[str, str]] = {
    "hpcgen.dataset": ("data", "dataset.h5"),
    "hpcgen.samples": ("sample", "samples.h5"),
    "hpcgen.candidates": ("reconstruct", "candidates.h5"),
    "hpcgen.roundtrip": ("reconstruct --structures", "roundtrip.h5"),
    "hpcgen.survivors": ("screen", "survivors.h5"),
    "hpcgen.relaxed": ("relax", "relaxed-mlip.h5"),
    "hpcgen.stability": ("hull", "stability.h5"),
    "hpcgen.selected": ("select", "selected.h5"),
    "hpcgen.relaxed_dft": ("dft", "relaxed-vasp.h5"),
    "hpcgen.reference": ("reference", "reference.h5"),
    "hpcgen.dynamics": ("dynamics", "dynamics.h5"),
    "hpcgen.simulations": ("dynamics", "its shards"),
    "hpcgen.phonons": ("phonons", "phonons.h5"),
}
"""Stage and usual file name of each schema, for messages."""


@dataclass(frozen=True)
class Column:
    """One stored column.

    Attributes:
        name: the field of the record.
        kind: `column` (scalar), `per_atom` and `per_step` (ragged) or `array` (fixed shape per record).
        dtype: numpy type string, `id` or `text`.
        shape: shape per record or atom; a name stands for a length that the file decides.
        path: where it lies in the file.
        unit: physical unit, empty for words and flags.
        doc: description.
        volatile: not part of the record's identity (a time).
        since: version of the schema that it came with; 0 if it was always there.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | str, ...]
    path: str
    unit: str
    doc: str
    volatile: bool
    since: int


@dataclass(frozen=True)
class Schema:
    """Layout of one record type. `columns` leaves out `/id` and the crystal, which are the same everywhere.

    Attributes:
        oldest: version of the oldest files that can still be read: what they lack has a default.
    """

    name: str
    version: int
    record_type: type
    has_crystal: bool
    columns: tuple[Column, ...]
    oldest: int

    @property
    def has_steps(self) -> bool:
        """Whether records have columns per step."""
        return any(c.kind == "per_step" for c in self.columns)

    def at(self, version: int) -> Schema:
        """The layout of files of an older version."""
        columns = tuple(c for c in self.columns if c.since <= version)
        return dataclasses.replace(self, version=version, columns=columns)

    def column(self, name: str) -> Column:
        """The column called `name`.

        Raises:
            KeyError: if there is none; the message lists those there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name!r}, only {', '.join(c.name for c in self.columns)}")


_registry: dict[type, Schema] = {}


def register(record_type: type, name: str, version: int = VERSION, oldest: int = 0) -> None:
    """Make a record type storable under the schema `name`.

    Args:
        record_type: the dataclass.
        name: of the schema.
        version: of the schema.
        oldest: version that can still be read, if it is another: columns that came later say so (`since`).

    Several record types may share a name (every family's samples are `hpcgen.samples`); a file then tells them
    apart by its attribute `record_type`. Registering a type again under the same name does nothing.

    Raises:
        TypeError: if the declaration of a field cannot be stored.
        ValueError: if another type of the same name is registered: files could not tell them apart.
    """
    if record_type in _registry and _registry[record_type].name == name:
        return
    for other in _registry:
        modules = {other.__module__, record_type.__module__}
        # a program that defines a type and is imported by its own name too has it twice: that is one type
        if other.__name__ == record_type.__name__ and len(modules - {"__main__"}) == 2:
            raise ValueError(
                f"two record types are called {other.__name__}: {other.__module__} and {record_type.__module__}"
            )
    if not dataclasses.is_dataclass(record_type):
        raise TypeError(f"{record_type.__name__} is not a dataclass")
    declared = dataclasses.fields(record_type)
    if not declared or declared[0].name != "id":
        raise TypeError(f"{record_type.__name__}: the first field must be `id`")
    has_crystal = any(f.name == "crystal" for f in declared)
    columns = tuple(_column(record_type, f, has_crystal) for f in declared if f.name not in ("id", "crystal"))
    _registry[record_type] = Schema(name, version, record_type, has_crystal, columns, oldest or version)


def _column(record_type: type, f: dataclasses.Field[Any], has_crystal: bool) -> Column:
    where = f"{record_type.__name__}.{f.name}"
    meta = f.metadata
    kind = meta.get("kind")
    if kind not in ("column", "per_atom", "per_step", "array"):
        raise TypeError(f"{where} is not declared by flow.column, flow.per_atom, flow.per_step or flow.array")
    if kind == "per_atom" and not has_crystal:
        raise TypeError(f"{where} is per atom, but the record has no crystal")
    if kind == "per_atom" and f.name in ("offset", "number", "frac"):
        raise TypeError(f"{where}: the name is taken by the crystal")
    if kind == "per_step" and f.name == "offset":
        raise TypeError(f"{where}: the name is taken")
    if kind == "array" and meta["group"] in RESERVED:
        raise TypeError(f"{where}: the group {meta['group']!r} is taken")
    if kind != "column" and meta["dtype"] in ("id", "text"):
        raise TypeError(f"{where}: only scalars may be text")
    folder = {"column": "table", "per_atom": "atoms", "per_step": "steps", "array": meta.get("group", "")}[kind]
    facts = (meta["unit"], meta["doc"], meta["volatile"], meta.get("since", 0))
    return Column(f.name, kind, meta["dtype"], meta["shape"], f"{folder}/{f.name}", *facts)


def schema_of(record_type: type) -> Schema:
    """The schema of a record type.

    Raises:
        TypeError: if it was never registered.
    """
    if record_type not in _registry:
        raise TypeError(f"{record_type.__name__} is not registered: call store.register(type, 'hpcgen.…') first")
    return _registry[record_type]


def find_schema(name: str, record_type: str) -> Schema | None:
    """The schema that a file names, or None. Families are imported only if it may be one of their sample types."""
    for attempt in range(2):
        for schema in _registry.values():
            if schema.name == name and schema.record_type.__name__ == record_type:
                return schema
        if name == "hpcgen.samples" and attempt == 0:
            import_families()
    return None


def import_families() -> None:
    """Import every family, so that its sample type registers itself; one that cannot be imported is left out.

    Families lie above the store, so they are found by name, as plug-ins are.
    """
    families = import_module("hpcgen.family").FAMILIES
    modules = {target.partition(":")[0] for target in families.values()}
    modules |= {entry.module for entry in entry_points(group="hpcgen.families")}
    for module in sorted(modules):
        try:
            import_module(module)
        except ImportError:  # an optional package of another family is no reason not to read this file
            continue


def schemas() -> list[Schema]:
    """All schemas, in the order of the stages."""
    import_families()
    order = list(STAGES)
    known = {name: i for i, name in enumerate(order)}
    return sorted(_registry.values(), key=lambda s: (known.get(s.name, len(order)), s.record_type.__name__))


def describe(schema: Schema) -> list[tuple[str, str, str, str, str]]:
    """Rows (path, type, shape, unit, description) of every dataset of a schema, for people."""
    rows = [("/id", "S16", "(M,)", "", "id of the record")]
    if schema.has_crystal:
        rows += [(f"/{path}", *facts) for path, facts in CRYSTAL.items()]
    if schema.has_steps:
        rows.append((f"/{STEP_OFFSET}", "int64", "(M+1,)", "", "record i owns steps offset[i]:offset[i+1]"))
    for c in schema.columns:
        lengths = [{"per_atom": "N", "per_step": "S"}.get(c.kind, "M"), *map(str, c.shape)]
        shape = f"({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"
        doc = f"{c.doc} (volatile)" if c.volatile else c.doc
        rows.append((f"/{c.path}", type_name(c.dtype), shape, c.unit, doc))
    return rows


def type_name(dtype: str) -> str:
    """The readable name of a declared type."""
    import numpy as np

    return {"id": "S16", "text": "UTF-8 text"}.get(dtype) or np.dtype(dtype).name


register(flow.Entry, "hpcgen.dataset", DATASET_VERSION)
for _type, _name in (
    (flow.RoundTrip, "hpcgen.roundtrip"),
    (flow.Survivor, "hpcgen.survivors"),
    (flow.Dynamics, "hpcgen.dynamics"),
    (flow.Simulation, "hpcgen.simulations"),
    (flow.Selected, "hpcgen.selected"),
):
    register(_type, _name)
register(flow.Candidate, "hpcgen.candidates", CANDIDATE_VERSION, oldest=1)
register(flow.Relaxation, "hpcgen.relaxed", RELAXED_VERSION, oldest=1)
register(flow.DftRelaxation, "hpcgen.relaxed_dft", RELAXED_VERSION, oldest=1)
register(flow.Stability, "hpcgen.stability", STABILITY_VERSION, oldest=2)
register(flow.Phonons, "hpcgen.phonons", PHONONS_VERSION, oldest=1)
register(flow.ReferenceEntry, "hpcgen.reference", REFERENCE_VERSION)
