"""Writing that survives a full disk: HDF5 crashes the process if a write fails under it (measured: SIGSEGV)."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

from hpcgen.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SteadyFile(io.RawIOBase):
    """A new file for HDF5 to write to, whose writes never fail.

    From the first error on, what is written stays in memory and the error is kept for `check`, which the writer calls
    between blocks. So HDF5 can be closed in good order, and the incomplete file can be deleted.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position = self._end = 0
        self._unwritten: dict[int, bytes] = {}
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error of the first write that failed, if any did.

        Raises:
            OSError: that error.
        """
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all of `data` at the current position."""
        view = memoryview(data).cast("B")
        try:
            self.check()
            write_all(self._descriptor, view, self._position)
        except OSError as error:
            self._error = error
            self._unwritten[self._position] = bytes(view)
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read back what was written, zeros where nothing was."""
        view = memoryview(buffer).cast("B")
        start, stop = self._position, self._position + len(view)
        stored = os.pread(self._descriptor, len(view), start)
        view[:] = stored.ljust(len(view), b"\0")
        for where, data in self._unwritten.items():
            low, high = max(start, where), min(stop, where + len(data))
            if low < high:
                view[low - start : high - start] = data[low - where : high - where]
        self._position = stop
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        self._end = self._position if size is None else size
        try:
            self.check()
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            self._error = error
        return self._end

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)


def write_all(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """Write `data` at `position` of an open file, however many calls that takes.

    Raises:
        OSError: if it cannot be written; part of it may have been.
    """
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], position + done)


def publish(temporary: Path, target: Path) -> None:
    """Give a complete, closed file its final name so that it survives a crash: fsync, rename, fsync of the folder.

    Raises:
        OSError: if that fails.
    """
    _fsync(temporary)
    temporary.replace(target)
    _fsync(target.parent)


def unwritable(path: Path, error: OSError, *, safe: str = "") -> StoreError:
    """The error for a file that cannot be written; `safe` says what is not lost."""
    if error.errno in _FULL:
        limit = "the file system is full" if error.errno == errno.ENOSPC else "the quota is used up"
        return StoreError(
            f"{path} cannot be written: {limit} ({_free(path.parent)})" + (f"; {safe}" if safe else ""),
            remedy="free some space, then run the same command again",
        )
    return StoreError(
        f"{path} cannot be written: {error}" + (f"; {safe}" if safe else ""),
        remedy="check that the folder exists, that it may be written to and that the file system has space",
    )


def _free(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return f"in {folder}"
    return f"{usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB free in {folder}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
