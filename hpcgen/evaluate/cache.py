"""Structure fingerprints on disk, found again by the content of the crystal.

A cache is a folder of blocks `fingerprints-DEFINITION-BLOCK.npz`, each with `key` (M,) S32 and `value` (M, D) float64.
DEFINITION is a digest of the libraries' versions, so another release computes anew. Blocks appear by rename and are
never changed, so several evaluations may share a folder; a damaged block is left out with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpcgen.crystal import Crystal, FloatArray

log = logging.getLogger("hpcgen")


def default_folder() -> Path:
    """`$HPCGEN_CACHE`, else `hpcgen` below `$XDG_CACHE_HOME` or `~/.cache`."""
    if given := os.environ.get("HPCGEN_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcgen"


def crystal_key(crystal: Crystal) -> bytes:
    """32 hexadecimal digits of cell, positions and elements, bit by bit."""
    state = hashlib.blake2b(digest_size=16)
    for array in (crystal.lattice, crystal.frac, crystal.numbers):
        state.update(array.tobytes())
    return state.hexdigest().encode()


class Cache:
    """Vectors of one length by key.

    Args:
        folder: where the blocks lie; None: nothing is kept.
        definition: what determines the vectors beside the crystal.
        size: length D of a vector.
    """

    def __init__(self, folder: Path | None, definition: Mapping[str, str], size: int) -> None:
        text = json.dumps(dict(definition), sort_keys=True).encode()
        self._stem = f"fingerprints-{hashlib.blake2b(text, digest_size=6).hexdigest()}"
        self._folder = folder
        self._size = size
        self._known: dict[bytes, FloatArray] = {}
        self._new: dict[bytes, FloatArray] = {}
        if folder is not None:
            for file in sorted(folder.glob(f"{self._stem}-*.npz")):
                self._read(file)

    def _read(self, file: Path) -> None:
        try:
            with np.load(file, allow_pickle=False) as block:
                keys, values = block["key"], block["value"]
            if keys.dtype != np.dtype("S32") or values.shape != (len(keys), self._size):
                raise ValueError(f"shapes {keys.shape} and {values.shape}")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("evaluate: the cached block %s cannot be read (%s) and is computed again", file, error)
            return
        self._known.update(zip(keys.tolist(), values, strict=True))

    def get(self, key: bytes) -> FloatArray | None:
        """The vector of a key, None if it is not here."""
        return self._known.get(key)

    def put(self, key: bytes, value: FloatArray) -> None:
        """Remember a vector; `flush` writes it."""
        self._known[key] = self._new[key] = value

    def flush(self) -> None:
        """Write what is new as one block. A folder that cannot be written to costs time later, nothing else."""
        if self._folder is None or not self._new:
            return
        keys = sorted(self._new)
        name = hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()
        part = self._folder / f"{self._stem}-{name}.tmp{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                np.savez(stream, key=np.array(keys, dtype="S32"), value=np.array([self._new[k] for k in keys]))
            part.replace(part.with_suffix(".npz"))
        except OSError as error:
            log.warning("evaluate: fingerprints cannot be kept in %s: %s", self._folder, error)
        self._new = {}
