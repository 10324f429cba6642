"""Text files that reference sets are made of."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from hpcgen.errors import ThermoError


def read_text(path: Path) -> str:
    """The text of a file, plain or gzip.

    Raises:
        ThermoError: if it is missing or no UTF-8 text.
    """
    if not path.is_file():
        raise ThermoError(f"there is no file {path}", remedy="check the path (hull.reference and hull.elements)")
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ThermoError(f"{path} cannot be read: {error}", expected="UTF-8 text, plain or gzip") from None


def sha256(path: Path) -> str:
    """Digest of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
