"""Reading an HDF5 file of a known schema, lazily."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import CrystalBatch
from hpcgen.errors import Failure, StoreError
from hpcgen.store.opening import DAMAGE, damaged, match, open_hdf5
from hpcgen.store.schema import STEP_OFFSET
from hpcgen.store.table import FAILURE_COLUMNS, Table, read_column, read_failures
from hpcgen.store.writer import BLOCK, finish_digest, start_digest, update_digest

READ_BLOCK = 1024


class File:
    """An open file: a sequence of typed records, and columns as arrays. Use it as a context manager.

    Attributes:
        path: the file.
        layout: its schema.
        attrs: root attributes as plain Python values.
    """

    def __init__(self, path: str | Path, record_type: type | None = None) -> None:
        self.path = Path(path)
        self._h5 = open_hdf5(self.path)
        try:
            self.layout = match(self.path, self._h5, record_type)
            self.attrs = {key: _plain(value) for key, value in self._h5.attrs.items()}
            self._count = self._check_counts()
        except StoreError:
            self._h5.close()
            raise
        except DAMAGE as error:
            self._h5.close()
            raise damaged(self.path, error) from error

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays already read stay valid."""
        self._h5.close()

    def __len__(self) -> int:
        return self._count

    @property
    def schema(self) -> str:
        """Name of the schema, such as `hpcgen.candidates`."""
        return self.layout.name

    @property
    def record_type(self) -> type:
        """Type of the records."""
        return self.layout.record_type

    @property
    def content_digest(self) -> str:
        """Digest of everything that is not volatile, as computed when the file was written."""
        return str(self.attrs["content_digest"])

    @property
    def ids(self) -> list[str]:
        """Ids, in the order of the file."""
        return [text.decode("ascii") for text in self._h5["id"][:]]

    @property
    def raw_ids(self) -> NDArray[np.bytes_]:
        """(M,) S16, ids as they lie in the file: 16 bytes each instead of the 65 of a `str`."""
        return self._h5["id"][:]

    @property
    def crystals(self) -> CrystalBatch:
        """All crystals.

        Raises:
            StoreError: if the records of this schema have none.
        """
        if not self.layout.has_crystal:
            raise StoreError(f"{self.path} holds {self.schema}, whose records have no crystal")
        f = self._h5
        return CrystalBatch(f["lattice"][:], f["atoms/offset"][:], f["atoms/frac"][:], f["atoms/number"][:])

    @property
    def failures(self) -> list[Failure]:
        """Failures, in the order of the file."""
        return read_failures(self._h5)

    def column(self, name: str) -> NDArray[Any]:
        """A whole column: (M, ...) numbers, object array of str for text and ids, (sum n, ...) if per atom.

        Columns per step are (sum s,), of which record i owns `step_offset[i]:step_offset[i + 1]`.

        Raises:
            KeyError: if there is no such column.
        """
        return read_column(self._h5, self.layout.column(name), slice(None))

    def steps(self, index: int) -> dict[str, NDArray[Any]]:
        """The columns per step of one record, (s,) each; nothing else is read."""
        columns = [c for c in self.layout.columns if c.kind == "per_step"]
        if not columns:
            return {}
        start, stop = self._h5[STEP_OFFSET][index : index + 2].tolist()
        return {c.name: self._h5[c.path][start:stop] for c in columns}

    @property
    def step_offset(self) -> NDArray[np.int64]:
        """(M+1,) where the steps of each record begin and end; zeros if the file has no columns per step."""
        if not self.layout.has_steps:
            return np.zeros(len(self) + 1, np.int64)
        return self._h5[STEP_OFFSET][:]

    def array(self, name: str) -> h5py.Dataset:
        """The dataset of a column, of which only the part indexed is read.

        Raises:
            KeyError: if there is no such column.
        """
        return self._h5[self.layout.column(name).path]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Record `index`, or the records of a slice (step 1)."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("only slices of step 1")
            return self._records(start, max(start, stop))
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._records(position, position + 1)[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), READ_BLOCK):
            yield from self._records(start, min(start + READ_BLOCK, len(self)))

    def verify(self) -> None:
        """Read everything and compare it with the checksums.

        Raises:
            StoreError: naming the records that are damaged, or saying that the failures are.
        """
        bad: list[str] = []
        state = start_digest(self.layout)
        try:
            stored = self._h5["crc32"][:]
            for start in range(0, len(self), BLOCK):
                table = Table.read(self._h5, self.layout, start, min(start + BLOCK, len(self)))
                wrong = np.flatnonzero(update_digest(state, table) != stored[start : start + BLOCK])
                bad += [f"{table.ids[i].decode('ascii', 'replace')} (number {start + i})" for i in wrong]
            found = finish_digest(state, self.failures)
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        if bad:
            shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
            raise StoreError(
                f"{self.path}: {len(bad)} of {len(self)} records are damaged: {shown}",
                expected="checksums as written",
                remedy="restore the file from a copy, or delete it and run its stage again",
            )
        if found != self.content_digest:
            raise damaged(self.path, ValueError("the content digest does not fit, though all records do"))

    def _records(self, start: int, stop: int) -> list[Any]:
        if start == stop:
            return []
        try:
            return Table.read(self._h5, self.layout, start, stop).records()
        except DAMAGE as error:
            raise damaged(self.path, error) from error

    def _check_counts(self) -> int:
        """Number of records, after every dataset was found to have as many rows as it should."""
        f, layout = self._h5, self.layout
        count = int(f.attrs["count"])
        rows = {"id": count, "crc32": count} | {f"failures/{n}": len(f["failures/id"]) for n in FAILURE_COLUMNS}
        atoms = 0
        if layout.has_crystal:
            offset = f["atoms/offset"][:]
            atoms = int(offset[-1])
            if offset[0] != 0 or (np.diff(offset) < 1).any():
                raise ValueError("/atoms/offset does not rise from 0")
            rows |= {"lattice": count, "atoms/offset": count + 1, "atoms/number": atoms, "atoms/frac": atoms}
        steps = 0
        if layout.has_steps:
            ends = f[STEP_OFFSET][:]
            if len(ends) != count + 1 or ends[0] != 0 or (np.diff(ends) < 0).any():
                raise ValueError(f"/{STEP_OFFSET} does not rise from 0, a number for each record")
            steps = int(ends[-1])
        lengths = {"per_atom": atoms, "per_step": steps}
        rows |= {c.path: lengths.get(c.kind, count) for c in layout.columns}
        for name, wanted in rows.items():
            if name not in f:
                raise ValueError(f"/{name} is missing")
            if len(f[name]) != wanted:
                raise ValueError(f"/{name} has {len(f[name])} rows instead of {wanted}")
        return count


def open_file(path: str | Path, record_type: type | None = None) -> File:
    """Open a file for reading; as many processes as like may do so at once.

    Args:
        path: the file.
        record_type: what it must hold; None takes whatever it holds.

    Raises:
        StoreError: if it is missing, no HDF5 file, truncated, damaged, of another schema or of a newer version.
    """
    return File(path, record_type)


def content_digest(path: str | Path) -> str:
    """The content digest of a file, as stored when it was written.

    Raises:
        StoreError: as `open_file`.
    """
    with File(path) as f:
        return f.content_digest


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value
