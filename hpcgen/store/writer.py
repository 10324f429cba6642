"""Writing an HDF5 file: all of it or nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcgen import __version__
from hpcgen.errors import Failure, StoreError
from hpcgen.store.schema import Schema, schema_of
from hpcgen.store.table import Table, storable_text, write_failures

BLOCK = 4096  # records taken apart at a time where a digest is computed
RESERVED_ATTRS = ("schema", "schema_version", "record_type", "content_digest", "count")


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
    schema = schema_of(record_type)
    table = Table.of(schema, list(items))
    failed = list(failures)
    extra = {**(header or {}), **(attrs or {})}
    taken = set(RESERVED_ATTRS) & set(extra)
    if taken:
        raise ValueError(f"attributes {sorted(taken)} are set by the store itself")
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w", locking=False) as f:
            mark(f, schema, len(table))
            f.attrs["content_digest"] = digest(table, failed)
            for key, value in {"hpcgen_version": __version__, **extra}.items():
                f.attrs[key] = _attribute(key, value)
            table.write(f)
            write_failures(f, failed)
        publish(temporary, target)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error}",
            remedy="check that the folder exists, that it may be written to and that the file system has space",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def mark(f: h5py.File, schema: Schema, count: int | None = None) -> None:
    """Write the attributes by which a file of `schema` is known."""
    f.attrs["schema"] = schema.name
    f.attrs["schema_version"] = schema.version
    f.attrs["record_type"] = schema.record_type.__name__
    if count is not None:
        f.attrs["count"] = count


def publish(temporary: Path, target: Path) -> None:
    """Give a complete, closed file its final name so that it survives a crash: fsync, rename, fsync of the folder."""
    _fsync(temporary)
    temporary.replace(target)
    _fsync(target.parent)


def digest(table: Table, failures: Sequence[Failure]) -> str:
    """Digest of schema, ids, all columns that are not volatile, and failures: equal if two runs agree."""
    state = start_digest(table.schema)
    update_digest(state, table)
    return finish_digest(state, failures)


def start_digest(schema: Schema) -> Any:
    """Start a content digest, which may be fed block by block."""
    columns = [(c.name, c.dtype) for c in schema.columns if not c.volatile]
    return hashlib.blake2b(repr((schema.name, schema.version, columns)).encode(), digest_size=16)


def update_digest(state: Any, table: Table, volatile: bool = False) -> None:
    """Feed the records of `table`, with their times if `volatile`."""
    for record in table.canonical(volatile):
        state.update(len(record).to_bytes(8, "little"))
        state.update(record)


def finish_digest(state: Any, failures: Sequence[Failure]) -> str:
    """Feed the failures and return the digest, 32 hexadecimal digits."""
    for f in failures:
        for text in ("failure", f.id, f.stage, f.kind, f.message):
            encoded = storable_text(text).encode()
            state.update(len(encoded).to_bytes(8, "little") + encoded)
    return state.hexdigest()


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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
