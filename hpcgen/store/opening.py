"""Opening a file and saying what is wrong with it: missing, foreign, truncated, of another schema, too new."""

from __future__ import annotations

from pathlib import Path

import h5py

from hpcgen.errors import StoreError
from hpcgen.store.schema import STAGES, Schema, find_schema, schema_of

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# what h5py raises on damaged files: nearly anything, since types, shapes and sizes may be wrong too
DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file opened for reading, without locks, which some parallel file systems do not have.

    Raises:
        StoreError: if it is missing, no HDF5 file, or truncated.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder", expected="an HDF5 file")
    if not path.exists():
        stage = next((stage for stage, name in STAGES.values() if name == path.name), None)
        made = f"run the stage that writes it (`{stage}`), or check the path" if stage else "check the path"
        raise StoreError(f"there is no file {path}", remedy=made)
    try:
        with path.open("rb") as f:
            start = f.read(len(SIGNATURE))
        if SIGNATURE.startswith(start) and start != SIGNATURE:
            raise StoreError(
                f"{path} is {'empty' if not start else f'cut off after {len(start)} bytes'}",
                expected="an HDF5 file",
                remedy="delete it and run its stage again",
            )
        if start != SIGNATURE and not h5py.is_hdf5(path):
            raise StoreError(f"{path} is not an HDF5 file", expected="an HDF5 file written by hpcgen")
        try:
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            if "locking flag" not in str(error):
                raise
            return h5py.File(path, "r")  # this process has it open already, with locks
    except PermissionError as error:
        raise StoreError(f"{path} may not be read: {error}", remedy="check its permissions") from error
    except DAMAGE as error:
        if "truncated" in str(error):
            raise StoreError(
                f"{path} is truncated: its {path.stat().st_size} bytes are not all of it",
                remedy="copy it again, or delete it and run its stage again",
            ) from error
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> StoreError:
    """The error for a file whose content contradicts itself."""
    reason = str(error).strip("'\"")
    return StoreError(
        f"{path} is damaged or truncated: {reason}",
        expected="a complete file, as written",
        remedy="restore the file from a copy, or delete it and run its stage again",
    )


def match(path: Path, f: h5py.File, record_type: type | None) -> Schema:
    """The schema of an open file as its version has it, if it is the wanted one.

    Raises:
        StoreError: naming what was found and what was wanted.
    """
    wanted = schema_of(record_type) if record_type else None
    expected = (
        f"{wanted.name} ({wanted.record_type.__name__}) version {wanted.version}" if wanted else "a file of hpcgen"
    )
    made = ""
    if wanted and wanted.name in STAGES:
        stage, usual = STAGES[wanted.name]
        made = f"give a file of that schema: the stage `{stage}` writes it, usually as {usual}"
    if "schema" not in f.attrs or "schema_version" not in f.attrs:
        raise StoreError(
            f"{path} is an HDF5 file without a schema, so hpcgen did not write it", expected=expected, remedy=made
        )
    name, version = str(f.attrs["schema"]), int(f.attrs["schema_version"])
    kind = str(f.attrs.get("record_type", "?"))
    if wanted and (name, kind) != (wanted.name, wanted.record_type.__name__):
        raise StoreError(f"{path} holds {name} ({kind})", expected=expected, remedy=made)
    schema = wanted or find_schema(name, kind)
    if schema is None:
        raise StoreError(
            f"{path} holds {name} ({kind}), which this version of hpcgen does not know",
            remedy="upgrade hpcgen, or install the package that provides this family",
        )
    if version > schema.version:
        writer = f.attrs.get("hpcgen_version", "unknown")
        raise StoreError(
            f"{path} has version {version} of {name} (written by hpcgen {writer})",
            expected=f"version {schema.version} or older",
            remedy="upgrade hpcgen",
        )
    if version < schema.oldest:
        writer = f.attrs.get("hpcgen_version", "unknown")
        stage = STAGES.get(name, ("that wrote it", ""))[0]
        raise StoreError(
            f"{path} has version {version} of {name} (written by hpcgen {writer}), which lacks columns",
            expected=f"version {schema.version}",
            remedy=f"run the stage `{stage}` again, or use the hpcgen that wrote the file",
        )
    return schema if version == schema.version else schema.at(version)
