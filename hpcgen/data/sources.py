"""Where structures come from: one generator of raw items per file layout, nothing parsed yet.

Every source yields `RawItem`s in a fixed order: rows as the table has them, files sorted by path. The label is
what failures and records are found again by: `row:N` counts the rows of a table or the frames of an extxyz
from 1 (in an ASE database it is the row's id), `file:PATH` is relative to the folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from hpcgen.errors import DataError

log = logging.getLogger("hpcgen")

LAYOUTS = (
    "a CSV (.csv, .csv.gz) with a `cif` column, a CIF or POSCAR or a folder of them, an extxyz (.extxyz, .xyz) "
    "or an ASE .db"
)
MAX_LABEL = 96
_CELL_LIMIT = 1 << 30  # characters in one CSV cell; the csv module's default of 128 KiB cuts long CIFs


class RawItem(NamedTuple):
    """One structure before parsing.

    Attributes:
        label: `row:N` or `file:PATH`.
        layout: `cif`, `poscar` or `extxyz` with text as payload, `atoms` with ASE Atoms.
        payload: what the parser of that layout takes.
        properties: (name, value) of the columns asked for that it has, as the source gives them.
    """

    label: str
    layout: str
    payload: Any
    properties: tuple[tuple[str, Any], ...] = ()


def raw_items(path: Path, columns: Sequence[str] = (), optional: Collection[str] = ()) -> Iterator[RawItem]:
    """The raw items of a file or folder.

    Args:
        path: the file or folder.
        columns: names of the properties that items carry: columns of a CSV, keys of an extxyz's comment lines or of
            an ASE database. CIFs and POSCARs carry none.
        optional: those of them that may be missing.

    Raises:
        DataError: if it is missing, empty, of no known layout, a CSV without `cif`, or cannot be read; or if no item
            has one of the columns (a CSV is asked before its rows are read, the others after).
    """
    if not path.exists():
        raise DataError(f"no data at {path}", expected=LAYOUTS, remedy="correct data.source, or use `builtin`")
    wanted = Wanted(path, tuple(columns), frozenset(optional))
    if path.is_dir():
        wanted.check(())
        return _folder(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", expected=LAYOUTS, remedy="fetch or export the data set again")
    name = path.name.lower().removesuffix(".gz")
    for suffixes, source in (((".csv",), _table), ((".extxyz", ".xyz"), _extxyz), ((".db",), _ase_database)):
        if name.endswith(suffixes):
            return source(path, wanted)
    if _file_layout(path):
        wanted.check(())
        return iter([_structure_file(path, label_of_file(path.name))])
    raise DataError(f"{path} has no known layout", expected=LAYOUTS, remedy="rename or convert the file")


class Wanted(NamedTuple):
    """The columns that are asked for of a source, and those of them that it need not have."""

    path: Path
    columns: tuple[str, ...]
    optional: frozenset[str]

    def of(self, row: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """(name, value) of those that a row has."""
        return tuple((name, row[name]) for name in self.columns if name in row)

    def check(self, names: Collection[str]) -> None:
        """Return if the source has all that it must have.

        Raises:
            DataError: naming what is missing, and what there is.
        """
        if missing := [name for name in self.columns if name not in names and name not in self.optional]:
            there = ", ".join(sorted(names)[:40]) + (", ..." if len(names) > 40 else "") if names else "none at all"
            raise DataError(
                f"{self.path} has no column {', '.join(f'`{name}`' for name in missing)}; its columns are: {there}",
                expected="the columns that conditions.scalars and conditions.categories name",
                remedy="correct the names, or remove them",
            )


def source_digest(path: Path) -> str:
    """Digest of a file's bytes, or of the names and bytes of a folder's structure files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in structure_files(path) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def structure_files(folder: Path) -> list[Path]:
    """CIF and POSCAR files below a folder, sorted by relative path."""
    return sorted((f for f in folder.rglob("*") if f.is_file() and _file_layout(f)), key=lambda f: f.as_posix())


def label_of_file(relative: str) -> str:
    """`file:PATH`; a path longer than a label may be keeps its end and gets a digest, so that it stays unique."""
    if len(relative) <= MAX_LABEL - 5:
        return f"file:{relative}"
    digest = hashlib.blake2b(relative.encode(), digest_size=4).hexdigest()
    return f"file:{digest}...{relative[-(MAX_LABEL - 16) :]}"


def _file_layout(file: Path) -> str | None:
    name = file.name.lower().removesuffix(".gz")
    if name.endswith(".cif"):
        return "cif"
    if name.startswith(("poscar", "contcar")) or name.endswith((".poscar", ".vasp")):
        return "poscar"
    return None


def _open(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("r", encoding="utf-8-sig", newline="")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read: {error or type(error).__name__}",
        expected="UTF-8 text, plain or gzip",
        remedy="check that the file is complete, and fetch or export it again",
    )


def _table(path: Path, wanted: Wanted) -> Iterator[RawItem]:
    csv.field_size_limit(_CELL_LIMIT)
    try:
        with _open(path) as stream:
            rows = csv.reader(stream)
            header = next((row for row in rows if row), None)
            if header is None:
                raise DataError(f"{path} is empty", expected=LAYOUTS, remedy="fetch or export the data set again")
            columns = [name.strip() for name in header]
            if "cif" not in columns:
                shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
                raise DataError(
                    f"{path} has no column `cif`; its columns are: {shown[:400]}",
                    expected="a column named `cif` that holds the text of one CIF per row",
                    remedy="rename the column with the structures to `cif`",
                )
            column = columns.index("cif")
            wanted.check({*columns} - {"cif"})
            for number, row in enumerate((row for row in rows if row), start=1):
                properties = wanted.of(dict(zip(columns, row, strict=False))) if wanted.columns else ()
                yield RawItem(f"row:{number}", "cif", row[column] if column < len(row) else "", properties)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise _unreadable(path, error) from error


def _folder(path: Path) -> Iterator[RawItem]:
    files = structure_files(path)
    others = sum(1 for f in path.rglob("*") if f.is_file()) - len(files)
    if not files:
        raise DataError(
            f"no CIF or POSCAR files in {path} ({others} other files)",
            expected="files named *.cif, POSCAR*, CONTCAR*, *.poscar or *.vasp, plain or gzip",
            remedy="correct data.source, or rename the files",
        )
    if others:
        log.info("data: %d files of %s are neither CIF nor POSCAR by name and are not read", others, path)
    for file in files:
        yield _structure_file(file, label_of_file(file.relative_to(path).as_posix()))


def _structure_file(file: Path, label: str) -> RawItem:
    try:
        with _open(file) as stream:
            return RawItem(label, _file_layout(file) or "", stream.read())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        return RawItem(label, "unreadable", str(error))


def _extxyz(path: Path, wanted: Wanted) -> Iterator[RawItem]:
    # Frames are cut out here and parsed one by one, so that a broken frame does not end the file.
    names: set[str] = set()
    try:
        with _open(path) as stream:
            number = 0
            for line_number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                number += 1
                if not line.strip().isdecimal():
                    raise DataError(
                        f"{path}: frame {number} does not begin with its number of atoms but with {line.strip()[:40]!r}"
                        + (f" (line {line_number})" if number == 1 else ""),
                        expected="extended XYZ: number of atoms, comment with Lattice=..., one line per atom",
                        remedy="mend the frame before it, or convert the file again",
                    )
                frame = [line, *(stream.readline() for _ in range(int(line) + 1))]
                comment = _comment(frame[1]) if wanted.columns else {}
                names.update(comment)
                yield RawItem(f"row:{number}", "extxyz", "".join(frame), wanted.of(comment))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise _unreadable(path, error) from error
    wanted.check(names)


def _comment(line: str) -> dict[str, Any]:
    """Keys and values of a comment line but those that describe the structure; none if it is broken."""
    from ase.io.extxyz import key_val_str_to_dict

    try:
        return {k: v for k, v in key_val_str_to_dict(line).items() if k not in ("Lattice", "Properties", "pbc")}
    except (ValueError, KeyError, IndexError):
        return {}


def _ase_database(path: Path, wanted: Wanted) -> Iterator[RawItem]:
    import sqlite3

    from ase.db import connect

    names: set[str] = set()
    try:
        for row in connect(str(path), type="db", append=True).select():
            names.update(row.key_value_pairs)
            yield RawItem(f"row:{row.id}", "atoms", row.toatoms(), wanted.of(row.key_value_pairs))
    except (sqlite3.Error, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as an ASE database: {error}",
            expected="an SQLite file written by ase.db",
            remedy="check that the file is complete, and export it again",
        ) from error
    wanted.check(names)
