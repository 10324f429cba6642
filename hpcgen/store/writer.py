"""Writing an HDF5 file: all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgen import __version__
from hpcgen.errors import Failure
from hpcgen.store.disk import SteadyFile, publish, unwritable
from hpcgen.store.schema import CRYSTAL, STEP_OFFSET, Schema, schema_of
from hpcgen.store.table import ID, TEXT, Table, encode_ids, storable_text, write_failures

BLOCK = 4096  # records taken apart at a time where a digest is computed
STEP_CHUNK = 8192  # steps that are stored together: how many there will be is not known before
RESERVED_ATTRS = ("schema", "schema_version", "record_type", "content_digest", "count")


@dataclass(frozen=True)
class Extent:
    """How much a file is to hold.

    Attributes:
        records: M.
        atoms: N, of all crystals together.
        shapes: shape per record of each column of the kind `array`.
    """

    records: int
    atoms: int
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, table: Table) -> Extent:
        """The extent of a file that holds this table only."""
        shapes = {c.name: table.columns[c.name].shape[1:] for c in table.schema.columns if c.kind == "array"}
        return cls(len(table), 0 if table.crystals is None else len(table.crystals.numbers), shapes)


def write(
    path: str | Path,
    record_type: type,
    items: Iterable[Any],
    *,
    failures: Iterable[Failure] = (),
    header: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write records and failures to `path`, atomically: whoever opens it finds the old file or the whole new one.

    Args:
        path: the file; its folder must exist.
        record_type: a registered record type.
        items: records of that type, in the order of the file.
        failures: items that did not get through.
        header: provenance, as `provenance.header` makes it.
        attrs: further root attributes: text, numbers, flags or lists of them.

    Raises:
        StoreError: if the file cannot be written (no such folder, no space, no permission).
        TypeError, ValueError: if a record does not fit its schema; an older file is then untouched.
    """
    table = Table.of(schema_of(record_type), list(items))
    blocks = (table.rows(i, min(i + BLOCK, len(table))) for i in range(0, len(table), BLOCK))
    write_tables(
        Path(path), table.schema, Extent.of(table), blocks, list(failures), {**(header or {}), **(attrs or {})}
    )


def write_tables(
    target: Path,
    schema: Schema,
    extent: Extent,
    tables: Iterable[Table],
    failures: Sequence[Failure],
    attrs: Mapping[str, Any],
) -> None:
    """Write records that come table by table, so that never all of them are in memory; otherwise as `write`.

    Raises:
        ValueError: if the tables do not hold what `extent` says.
    """
    taken = set(RESERVED_ATTRS) & set(attrs)
    if taken:
        raise ValueError(f"attributes {sorted(taken)} are set by the store itself")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with SteadyFile(temporary) as raw:
            with h5py.File(raw, "w") as f:
                for key, value in {**marks(schema), "count": extent.records, "hpcgen_version": __version__}.items():
                    f.attrs[key] = value
                for key, value in attrs.items():
                    f.attrs[key] = _attribute(key, value)
                _create(f, schema, extent)
                state, rows, atoms, steps = start_digest(schema), 0, 0, 0
                for table in tables:
                    _fill(f, table, rows, atoms, steps, update_digest(state, table))
                    raw.check()
                    rows += len(table)
                    steps += 0 if table.steps is None else int(table.steps[-1])
                    atoms += 0 if table.crystals is None else len(table.crystals.numbers)
                    del table  # it may be part of a large one, which must go before the next is made
                if (rows, atoms) != (extent.records, extent.atoms):
                    raise ValueError(f"{rows} records of {atoms} atoms were to be {extent.records} of {extent.atoms}")
                write_failures(f, failures)
                f.attrs["content_digest"] = finish_digest(state, failures)
            raw.check()
        publish(temporary, target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def marks(schema: Schema) -> dict[str, Any]:
    """The attributes by which a file of `schema` is known."""
    return {
        "schema": schema.name,
        "schema_version": schema.version,
        "record_type": schema.record_type.__name__,
    }


def start_digest(schema: Schema) -> Any:
    """Start a content digest, which is fed block by block: equal if two runs agree in all but volatile columns."""
    columns = [(c.name, c.dtype) for c in schema.columns if not c.volatile]
    return hashlib.blake2b(repr((schema.name, schema.version, columns)).encode(), digest_size=16)


def update_digest(state: Any, table: Table) -> NDArray[np.uint32]:
    """Feed the records of `table`; returns the (M,) checksums of the records."""
    sums = np.empty(len(table), np.uint32)
    for i, record in enumerate(table.canonical()):
        state.update(len(record).to_bytes(8, "little") + record)
        sums[i] = zlib.crc32(record)
    return sums


def finish_digest(state: Any, failures: Sequence[Failure]) -> str:
    """Feed the failures and return the digest, 32 hexadecimal digits."""
    for f in failures:
        for text in ("failure", f.id, f.stage, f.kind, f.message):
            encoded = storable_text(text).encode()
            state.update(len(encoded).to_bytes(8, "little") + encoded)
    return state.hexdigest()


def _create(f: h5py.File, schema: Schema, extent: Extent) -> None:
    """All datasets of the records, empty, with units and descriptions."""
    m, n = extent.records, extent.atoms
    per_step = {c.path for c in schema.columns if c.kind == "per_step"}
    for path, dtype, shape, unit, doc in _datasets(schema, m, n, extent.shapes):
        growing = {"maxshape": (None,), "chunks": (STEP_CHUNK,)} if path in per_step else {}
        dataset = f.create_dataset(path, shape, dtype, **growing)
        for name, text in (("unit", unit), ("description", doc)):
            if text:
                dataset.attrs[name] = text
    if schema.has_crystal:
        f["atoms/offset"][0] = 0
    if schema.has_steps:
        f[STEP_OFFSET][0] = 0


def _datasets(
    schema: Schema, m: int, n: int, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Any, tuple[int, ...], str, str]]:
    """(path, type, shape, unit, description) of every dataset of the records."""
    yield "id", ID, (m,), "", "id of the record"
    if schema.has_crystal:
        sizes = ((m, 3, 3), (m + 1,), (n,), (n, 3))
        for (path, (dtype, _, unit, doc)), shape in zip(CRYSTAL.items(), sizes, strict=True):
            yield path, dtype, shape, unit, doc
    if schema.has_steps:
        yield STEP_OFFSET, np.dtype(np.int64), (m + 1,), "", "record i owns steps offset[i]:offset[i+1]"
    lengths = {"per_atom": n, "per_step": 0}
    for c in schema.columns:
        dtype = {"text": TEXT, "id": ID}.get(c.dtype, c.dtype)
        inner = shapes[c.name] if c.kind == "array" else tuple(int(size) for size in c.shape)
        yield c.path, dtype, (lengths.get(c.kind, m), *inner), c.unit, c.doc
    yield "crc32", np.dtype(np.uint32), (m,), "", "checksum of the record, volatile columns left out"


def _fill(f: h5py.File, table: Table, row: int, atom: int, step: int, sums: NDArray[np.uint32]) -> None:
    """Write the records of `table` from `row`, `atom` and `step` on."""
    rows = slice(row, row + len(table))
    atoms, steps = slice(atom, atom), slice(step, step)
    f["id"][rows], f["crc32"][rows] = table.ids, sums
    if (c := table.crystals) is not None:
        atoms = slice(atom, atom + len(c.numbers))
        f["lattice"][rows] = c.lattice
        f["atoms/offset"][row + 1 : row + 1 + len(table)] = atom + c.offset[1:]
        f["atoms/number"][atoms], f["atoms/frac"][atoms] = c.numbers, c.frac
    if table.steps is not None:
        steps = slice(step, step + int(table.steps[-1]))
        f[STEP_OFFSET][row + 1 : row + 1 + len(table)] = step + table.steps[1:]
    for column in table.schema.columns:
        data = table.columns[column.name]
        where = {"per_atom": atoms, "per_step": steps}.get(column.kind, rows)
        if column.kind == "per_step":
            f[column.path].resize((steps.stop,))
        f[column.path][where] = encode_ids(data.tolist()) if column.dtype == "id" else data


def _attribute(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, (bool, int, float, np.generic)):
        return value
    values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else None
    if values is not None and all(isinstance(v, str) for v in values) and values:
        return np.array([storable_text(v) for v in values], dtype=h5py.string_dtype("utf-8"))
    if values is not None and all(isinstance(v, (bool, int, float, np.generic)) for v in values):
        return np.array(values)
    raise TypeError(f"attribute {key} is {value!r}, expected text, a number, a flag or a list of them")
