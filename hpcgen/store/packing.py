"""A commit of a shard as bytes: named arrays, one after the other, after a table of contents in JSON.

Text is two arrays: UTF-8 bytes, and where each text ends. Every array begins at a multiple of 8 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import CrystalBatch
from hpcgen.errors import Failure
from hpcgen.store.schema import CRYSTAL, STEP_OFFSET, Schema
from hpcgen.store.table import FAILURE_COLUMNS, ID, Table, encode_ids, storable_text, text_array

_ALIGN = 8
_ENDS = ":ends"


@dataclass(frozen=True)
class Commit:
    """What was committed together: M records, then F failures. Arrays are made when they are asked for.

    Attributes:
        payload: the bytes.
        contents: name -> type, shape and position in the bytes of each array.
    """

    payload: bytes
    contents: dict[str, tuple[str, tuple[int, ...], int]]

    @property
    def tasks(self) -> NDArray[np.bytes_]:
        """(M + F,) S16, ids of the tasks."""
        return self.array("task")

    @property
    def records(self) -> int:
        """M."""
        return self.contents["id"][1][0]

    @property
    def atoms(self) -> NDArray[np.int64]:
        """(M + F,) number of atoms of each result, 0 for those without a crystal."""
        atoms = np.zeros(self.contents["task"][1][0], np.int64)
        if "atoms/offset" in self.contents:
            offset = self.array("atoms/offset")
            atoms[: self.records] = offset[1:] - offset[:-1]
        return atoms

    def array(self, name: str) -> NDArray[Any]:
        """One array, as a view of the bytes.

        Raises:
            KeyError: if there is none of that name.
        """
        dtype, shape, position = self.contents[name]
        return np.frombuffer(self.payload, dtype, math.prod(shape), position).reshape(shape)

    def failures(self) -> list[Failure]:
        """The failures."""
        if len(self.tasks) == self.records:
            return []
        columns = [_texts(*(self.array(f"failures/{name}{end}") for end in ("", _ENDS))) for name in FAILURE_COLUMNS]
        return [Failure(*row) for row in zip(*columns, strict=True)]


def table_of(commits: Sequence[Commit], schema: Schema) -> Table:
    """The records of one or more commits, one after the other.

    Raises:
        KeyError, ValueError: if they hold no records of `schema`, or arrays of different lengths.
    """

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([c.array(name) for c in commits])

    def summed(name: str) -> list[NDArray[np.int64]]:
        """Positions that begin anew in each commit, made to go on."""
        parts = [c.array(name) for c in commits]
        shifts = np.cumsum([0, *(part[-1] if len(part) else 0 for part in parts)])
        return [part + shift for part, shift in zip(parts, shifts[:-1], strict=True)]

    crystals = None
    if schema.has_crystal:
        lattice, offset, numbers, frac = CRYSTAL
        offsets = [np.zeros(1, np.int64), *(part[1:] for part in summed(offset))]
        crystals = CrystalBatch(joined(lattice), np.concatenate(offsets), joined(frac), joined(numbers))
    steps = np.concatenate([np.zeros(1, np.int64), *(p[1:] for p in summed(STEP_OFFSET))]) if schema.has_steps else None
    columns: dict[str, NDArray[Any]] = {}
    for c in schema.columns:
        if c.dtype == "text":
            columns[c.name] = text_array(_texts(joined(c.path), np.concatenate(summed(c.path + _ENDS))))
        elif c.dtype == "id":
            columns[c.name] = joined(c.path).astype(f"U{ID.itemsize}").astype(object)
        else:
            columns[c.name] = joined(c.path)
    return Table(schema, joined("id"), crystals, columns, steps)


def pack(tasks: NDArray[np.bytes_], table: Table, failures: Sequence[Failure]) -> bytes:
    """The bytes of a commit; `tasks` names the records, then the failures."""
    arrays: dict[str, NDArray[Any]] = {"task": tasks, "id": table.ids}
    if (c := table.crystals) is not None:
        arrays |= dict(zip(CRYSTAL, (c.lattice, c.offset, c.numbers, c.frac), strict=True))
    if table.steps is not None:
        arrays[STEP_OFFSET] = table.steps
    for column in table.schema.columns:
        data = table.columns[column.name]
        if column.dtype == "text":
            arrays |= _bytes_and_ends(column.path, data.tolist())
        else:
            arrays[column.path] = encode_ids(data.tolist()) if column.dtype == "id" else data
    if failures:
        for name in FAILURE_COLUMNS:
            arrays |= _bytes_and_ends(f"failures/{name}", [storable_text(getattr(f, name)) for f in failures])
    contents = [(name, a.dtype.newbyteorder("<").str, a.shape) for name, a in arrays.items()]
    head = json.dumps(contents, separators=(",", ":")).encode()
    parts = [len(head).to_bytes(8, "little"), head]
    for a in arrays.values():
        parts.append(b"\0" * (-len(parts[-1]) % _ALIGN))
        parts.append(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes())
    return b"".join(parts)


def unpack(payload: bytes) -> Commit:
    """The commit of which these are the bytes.

    Raises:
        ValueError, KeyError, TypeError: if they are not the bytes of a commit.
    """
    position = 8 + int.from_bytes(payload[:8], "little")
    contents = {}
    for name, dtype, shape in json.loads(payload[8:position]):
        position += -position % _ALIGN
        contents[name] = (dtype, tuple(shape), position)
        position += _item_size(dtype) * math.prod(shape)
    if position != len(payload):
        raise ValueError(f"{len(payload)} bytes instead of {position}")
    return Commit(payload, contents)


@cache
def _item_size(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _bytes_and_ends(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return {name: np.frombuffer(b"".join(encoded), np.uint8), name + _ENDS: ends}


def _texts(joined: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[str]:
    text, stops = joined.tobytes(), ends.tolist()
    return [text[start:stop].decode() for start, stop in zip([0, *stops], stops, strict=False)]
