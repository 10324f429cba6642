"""Whether HDF5 can do in a folder what hpcgen asks of it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from hpcgen.errors import StoreError


def hdf5_version() -> str:
    """Version of the HDF5 library that h5py was built with."""
    return h5py.version.hdf5_version


def probe(folder: Path, name: str) -> None:
    """Write a file as the store does (without locks; flush, fsync, rename), read it back and remove it.

    Args:
        folder: an existing folder.
        name: of the file; another for every process that probes the same folder.

    Raises:
        StoreError: if any of these steps fails, or other data come back.
    """
    temporary, final = folder / f"{name}.h5.tmp", folder / f"{name}.h5"
    written = np.arange(4096, dtype=np.float64)
    step = "write"
    try:
        with h5py.File(temporary, "w", locking=False) as file:
            file.create_dataset("probe", data=written)
            step = "flush"
            file.flush()
            step = "close"
        step = "fsync"
        with temporary.open("rb") as raw:
            os.fsync(raw.fileno())
        step = "rename"
        temporary.replace(final)
        step = "read"
        with h5py.File(final, "r", locking=False) as file:
            read = file["probe"][()]
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"HDF5 cannot {step} a file in {folder}: {reason}",
            remedy="export HDF5_USE_FILE_LOCKING=FALSE (a set variable wins over hpcgen, which asks for no locks)"
            if "lock" in reason
            else "check permissions, quota and free space, or use a run folder on another file system",
        ) from None
    finally:
        for path in (temporary, final):
            path.unlink(missing_ok=True)
    if not np.array_equal(read, written):
        raise StoreError(f"{folder} gives back other data than were written", remedy="use another file system")
