"""Plain content: numbers, text, lists, dicts and tensors, which load without running code from the file.

Written by `torch.save`, read with `weights_only=True`. torch reads flipped bits without a word, so a digest of all
values is stored with them.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from hpcgen import __version__
from hpcgen.errors import CheckpointError
from hpcgen.store.disk import publish, unwritable


class DamagedError(CheckpointError):
    """The file is not what was written: truncated, changed, or never a checkpoint."""


_UNREADABLE = (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError)


def write(path: Path, kind: str, version: int, content: dict[str, Any]) -> None:
    """Write a file of a kind and format version atomically: a temporary name beside it, flushed, then renamed.

    Raises:
        TypeError: if something in it is not plain and so could not be read again without running code.
        StoreError: if the file system is full or does not let it be written.
    """
    body = {key: plain(value, key) for key, value in content.items()}
    head = {"format": kind, "format_version": version, "hpcgen_version": __version__, "digest": digest(body)}
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(head | {"content": body}, file)
        publish(temporary, path)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
        reason = error if isinstance(error, OSError) else OSError(str(error).splitlines()[0])
        raise unwritable(path, reason, safe="earlier checkpoints are safe") from error
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The content of a file that `write` has written, with its tensors on the CPU.

    Raises:
        DamagedError: if it is truncated, damaged or of another kind.
        CheckpointError: if it is missing or of another version.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", remedy="run `hpcgen train` first")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE:
        # The reason is torch's advice to load with weights_only=False, which would run code from the file.
        raise DamagedError(
            f"{path} cannot be read: it is truncated, no hpcgen checkpoint, or holds more than plain data",
            remedy="restore it, or move it away and train again",
        ) from None
    if not isinstance(found, dict) or found.get("format") != kind:
        raise DamagedError(f"{path} is a torch file, but no hpcgen checkpoint", expected=f"format {kind!r}")
    number = found.get("format_version")
    if number != version:
        newer = not isinstance(number, int) or number > version
        raise CheckpointError(
            f"{path} has checkpoint format {number}, written by hpcgen {found.get('hpcgen_version', '(unknown)')}",
            expected=f"format {version} (this is hpcgen {__version__})",
            remedy="install the newer hpcgen, or train again" if newer else "train again, or use the older hpcgen",
        )
    if digest(found.get("content")) != found.get("digest"):
        raise DamagedError(
            f"{path} is damaged: its content does not have its digest",
            remedy="restore it, or move it away and train again",
        )
    return found["content"]


def dumps(content: Any) -> bytes:
    """Plain content as bytes.

    Raises:
        TypeError: if something in it is not plain.
    """
    buffer = io.BytesIO()
    torch.save(plain(content, "this"), buffer)
    return buffer.getvalue()


def loads(data: bytes) -> Any:
    """What `dumps` was given, with its tensors on the CPU."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def plain(value: Any, where: str) -> Any:
    """`value` with its tensors detached, copied and on the CPU.

    Raises:
        TypeError: naming the place of what is not plain.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {plain(k, f"a key of {where}"): plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds numbers, text, lists, dicts and tensors")


def digest(content: Any) -> str:
    """Digest of plain content: every name, value, type and order in it."""
    state = hashlib.blake2b(digest_size=16)
    _feed(content, state)
    return state.hexdigest()


def _feed(value: Any, state: hashlib.blake2b) -> None:
    if isinstance(value, Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]
    elif isinstance(value, dict):
        state.update(f"dict {len(value)}".encode())
        for key, item in value.items():
            _feed(key, state)
            _feed(item, state)
    elif isinstance(value, list | tuple):
        state.update(f"{type(value).__name__} {len(value)}".encode())
        for item in value:
            _feed(item, state)
    else:
        state.update(f"{type(value).__name__} {value!r};".encode())
