"""What is left of a finished attempt: big files dropped, the rest compressed."""

from __future__ import annotations

import fnmatch
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path

KEPT_PLAIN = ("outcome.json", "progress.json", "custodian.json")


def tidy(folder: Path, drop: Sequence[str], *, compress: bool) -> None:
    """Delete what matches a pattern of `drop` (also with a step's suffix), gzip the other files.

    Raises:
        OSError: if the disk is full; what is there stays, plain or gzipped.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        if any(fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(path.stem, pattern) for pattern in drop):
            path.unlink()
        elif compress and path.name not in KEPT_PLAIN and path.suffix not in (".gz", ".tmp"):
            temporary = path.with_name(f"{path.name}.gz.tmp")
            with path.open("rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target)
            temporary.replace(path.with_name(f"{path.name}.gz"))
            path.unlink()
