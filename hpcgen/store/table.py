"""Records as columns and back, and the canonical bytes of a record that checksums and digests are taken of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import CrystalBatch
from hpcgen.errors import Failure
from hpcgen.flow import ID_LENGTH
from hpcgen.store.schema import STEP_OFFSET, Column, Schema

TEXT = h5py.string_dtype("utf-8")
ID = np.dtype(f"S{ID_LENGTH}")
FAILURE_COLUMNS = {
    "id": "id of the item, or `row:N` / `file:NAME`",
    "stage": "stage that gave up on it",
    "kind": "short word that the balance counts by",
    "message": "one sentence for a person",
}
_NUMPY_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}  # what may be stored as what without loss of meaning


@dataclass(frozen=True)
class Table:
    """M records as columns.

    Attributes:
        schema: what the records are.
        ids: (M,) S16.
        crystals: ragged crystals, or None for records without one.
        columns: name -> (M, ...) array, per-atom columns (sum n, ...), per-step columns (sum s,); text and ids as
            object arrays of str.
        steps: (M+1,) record i owns the steps steps[i]:steps[i+1]; None for records without columns per step.
    """

    schema: Schema
    ids: NDArray[np.bytes_]
    crystals: CrystalBatch | None
    columns: dict[str, NDArray[Any]]
    steps: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, schema: Schema, records: Sequence[Any]) -> Table:
        """Take records apart.

        Raises:
            TypeError: if a record is of another type, or a value of a type that its column cannot hold.
            ValueError: if an id is too long, or an array has another shape than declared or than its neighbours.
        """
        for record in records:
            if type(record) is not schema.record_type:
                raise TypeError(f"{schema.name} holds {schema.record_type.__name__}, not {type(record).__name__}")
        crystals = CrystalBatch.of([r.crystal for r in records]) if schema.has_crystal else None
        columns = {c.name: _gather(c, records) for c in schema.columns}
        return cls(schema, encode_ids([r.id for r in records]), crystals, columns, _count_steps(schema, records))

    @classmethod
    def read(cls, group: h5py.Group, schema: Schema, start: int = 0, stop: int | None = None) -> Table:
        """Records start:stop of an open file or group."""
        rows = slice(start, len(group["id"]) if stop is None else stop)
        atoms, crystals = slice(0, 0), None
        if schema.has_crystal:
            offset = group["atoms/offset"][rows.start : rows.stop + 1]
            atoms = slice(int(offset[0]), int(offset[-1]))
            crystals = CrystalBatch(
                lattice=group["lattice"][rows],
                offset=offset - offset[0],
                frac=group["atoms/frac"][atoms],
                numbers=group["atoms/number"][atoms],
            )
        steps = group[STEP_OFFSET][rows.start : rows.stop + 1] if schema.has_steps else None
        where = {"per_atom": atoms, "per_step": _span(steps)}
        columns = {c.name: read_column(group, c, where.get(c.kind, rows)) for c in schema.columns}
        return cls(schema, group["id"][rows], crystals, columns, None if steps is None else steps - steps[0])

    def rows(self, start: int, stop: int) -> Table:
        """Records start:stop, as views."""
        atoms, crystals = slice(0, 0), None
        if self.crystals is not None:
            offset = self.crystals.offset[start : stop + 1]
            atoms = slice(int(offset[0]), int(offset[-1]))
            crystals = CrystalBatch(
                lattice=self.crystals.lattice[start:stop],
                offset=offset - offset[0],
                frac=self.crystals.frac[atoms],
                numbers=self.crystals.numbers[atoms],
            )
        steps = None if self.steps is None else self.steps[start : stop + 1]
        where = {"per_atom": atoms, "per_step": _span(steps)}
        chosen = {c.name: where.get(c.kind, slice(start, stop)) for c in self.schema.columns}
        columns = {name: data[chosen[name]] for name, data in self.columns.items()}
        return Table(self.schema, self.ids[start:stop], crystals, columns, None if steps is None else steps - steps[0])

    def records(self) -> list[Any]:
        """The typed records.

        Raises:
            ValueError: if the crystal of a record is impossible; the message names the record.
        """
        offset = self.crystals.offset if self.crystals is not None else np.zeros(len(self) + 1, np.int64)
        out = []
        for i, identity in enumerate(self.ids):
            name = identity.decode("ascii")
            values: dict[str, Any] = {"id": name}
            if self.crystals is not None:
                try:
                    values["crystal"] = self.crystals[i]
                except ValueError as error:
                    raise ValueError(f"record {name}: {error}") from None
            for c in self.schema.columns:
                data = self.columns[c.name]
                if c.kind == "per_atom":
                    values[c.name] = data[offset[i] : offset[i + 1]].copy()
                elif c.kind == "per_step" and self.steps is not None:
                    values[c.name] = data[self.steps[i] : self.steps[i + 1]].copy()
                elif c.kind == "array":
                    values[c.name] = data[i].copy()
                else:
                    values[c.name] = data[i] if data.dtype == object else data[i].item()
            out.append(self.schema.record_type(**values))
        return out

    def canonical(self) -> Iterator[bytes]:
        """The bytes of each record's identity: no volatile columns, little-endian, lengths before what is ragged."""
        fixed = [self.ids.view(np.uint8).reshape(len(self), ID_LENGTH)]
        ragged: list[NDArray[Any]] = []
        stepped: list[NDArray[Any]] = []
        texts = []
        for c in self.schema.columns:
            data = self.columns[c.name]
            if c.volatile:
                continue
            if data.dtype == object:
                texts.append(data.tolist())
            elif c.kind in ("per_atom", "per_step"):
                (ragged if c.kind == "per_atom" else stepped).append(data)
            else:
                fixed.append(_bytes_of_rows(data))
        atoms = [0] * (len(self) + 1)
        if self.crystals is not None:
            fixed.append(_bytes_of_rows(self.crystals.lattice))
            atoms = self.crystals.offset.tolist()
            ragged += [self.crystals.numbers, self.crystals.frac]
        head = np.concatenate(fixed, axis=1)
        width, heads = head.shape[1], head.tobytes()
        # slices of one bytes object are several times faster than rows of an array
        flat, curves = _flat(ragged), _flat(stepped)
        steps = [] if self.steps is None else self.steps.tolist()
        for i in range(len(self)):
            parts = [heads[i * width : (i + 1) * width]]
            for text in texts:
                encoded = text[i].encode("utf-8")
                parts += [len(encoded).to_bytes(8, "little"), encoded]
            first, last = atoms[i], atoms[i + 1]
            parts.append((last - first).to_bytes(8, "little"))
            parts += [data[first * size : last * size] for size, data in flat]
            if steps:
                first, last = steps[i], steps[i + 1]
                parts.append((last - first).to_bytes(8, "little"))
                parts += [data[first * size : last * size] for size, data in curves]
            yield b"".join(parts)


def read_column(group: h5py.Group, column: Column, rows: slice) -> NDArray[Any]:
    """Rows of one column as it lies in memory; ids and text as an object array of str."""
    data = group[column.path]
    if column.dtype == "text":
        return data.asstr()[rows]
    if column.dtype == "id":
        return data[rows].astype(f"U{ID_LENGTH}").astype(object)
    return data[rows]


def write_failures(group: h5py.Group, failures: Sequence[Failure]) -> None:
    """Write the failures below `group`."""
    for name, doc in FAILURE_COLUMNS.items():
        texts = text_array([storable_text(getattr(f, name)) for f in failures])
        dataset = group.create_dataset(f"failures/{name}", data=texts, dtype=TEXT)
        dataset.attrs["description"] = doc


def read_failures(group: h5py.Group) -> list[Failure]:
    """The failures below `group`."""
    if "failures" not in group:
        return []
    columns = [group[f"failures/{name}"].asstr()[:] for name in FAILURE_COLUMNS]
    return [Failure(*row) for row in zip(*columns, strict=True)]


def storable_text(text: str) -> str:
    """Text that HDF5 can hold: NUL and lone surrogates (of undecodable file names) are written as escapes."""
    if not isinstance(text, str):
        raise TypeError(f"text expected, found {type(text).__name__}")
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _gather(column: Column, records: Sequence[Any]) -> NDArray[Any]:
    values = [getattr(r, column.name) for r in records]
    if column.dtype in ("text", "id"):
        if column.dtype == "id":
            encode_ids(values)
        return text_array([storable_text(v) for v in values])
    dtype = np.dtype(column.dtype)
    if column.kind == "column":
        for record, value in zip(records, values, strict=True):
            if np.asarray(value).dtype.kind not in _NUMPY_KINDS[dtype.kind] or np.ndim(value) != 0:
                raise TypeError(f"{column.name} of {record.id} is {value!r}, expected a scalar of type {dtype.name}")
        return np.array(values, dtype)
    arrays = [np.asarray(v) for v in values]
    lengths: dict[str, int] = {}
    for record, value in zip(records, arrays, strict=True):
        shape: tuple[int | str, ...] = column.shape
        if column.kind == "per_atom":
            shape = (len(record.crystal), *shape)
        elif column.kind == "per_step":
            shape = (len(value) if value.ndim else 0,)
        if len(value.shape) != len(shape) or any(
            (lengths.setdefault(want, have) if isinstance(want, str) else want) != have
            for want, have in zip(shape, value.shape, strict=True)
        ):
            raise ValueError(f"{column.name} of {record.id} has shape {value.shape}, expected {shape} {lengths or ''}")
        if value.dtype.kind not in _NUMPY_KINDS[dtype.kind]:
            raise TypeError(f"{column.name} of {record.id} is {value.dtype}, expected {dtype.name}")
    if not arrays:
        return np.zeros((0, *(n if isinstance(n, int) else 0 for n in column.shape)), dtype)
    return np.stack(arrays).astype(dtype) if column.kind == "array" else np.concatenate(arrays).astype(dtype)


def _count_steps(schema: Schema, records: Sequence[Any]) -> NDArray[np.int64] | None:
    """`Table.steps` of records.

    Raises:
        ValueError: if the columns per step of a record are not equally long.
    """
    names = [c.name for c in schema.columns if c.kind == "per_step"]
    if not names:
        return None
    counts = np.zeros(len(records) + 1, np.int64)
    for i, record in enumerate(records, 1):
        lengths = {name: len(getattr(record, name)) for name in names}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the steps of {record.id} are not equally many: {lengths}")
        counts[i] = lengths[names[0]]
    return np.cumsum(counts)


def _span(offset: NDArray[np.int64] | None) -> slice:
    return slice(0, 0) if offset is None else slice(int(offset[0]), int(offset[-1]))


def _flat(columns: Sequence[NDArray[Any]]) -> list[tuple[int, bytes]]:
    """Bytes of a row, and the bytes of all rows, of each column."""
    return [(data.itemsize * int(np.prod(data.shape[1:])), _little(data).tobytes()) for data in columns]


def encode_ids(ids: Sequence[str]) -> NDArray[np.bytes_]:
    """Ids as S16.

    Raises:
        ValueError: if one is no id: it must not be cut off silently.
    """
    for text in ids:
        if not isinstance(text, str) or not text.isascii() or len(text) > ID_LENGTH or "\0" in text:
            raise ValueError(f"{text!r} is no id: at most {ID_LENGTH} ASCII characters")
    return np.array([text.encode("ascii") for text in ids], dtype=ID)


def text_array(texts: Sequence[str]) -> NDArray[Any]:
    """(M,) object array of str."""
    out = np.empty(len(texts), dtype=object)
    out[:] = texts
    return out


def _little(data: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))


def _bytes_of_rows(data: NDArray[Any]) -> NDArray[np.uint8]:
    rows = _little(data).reshape(len(data), -1) if data.size else np.zeros((len(data), 0), np.uint8)
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(data), -1) if rows.size else rows.view(np.uint8)
