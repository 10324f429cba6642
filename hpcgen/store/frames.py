"""Frames: pieces of a file that tell by themselves whether they are whole.

    8 bytes    mark by which the next frame is found after a damaged one
    8 bytes    length L of the payload, little-endian
    16 bytes   BLAKE2b digest of the payload, keyed by what the payload is
    L bytes    payload

Nothing of a payload is looked at before its digest fits, so damaged bytes can do no harm.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MARK = b"\x89HPCGEN\n"
_HEAD = struct.Struct("<8sQ16s")
_LOOK = 1 << 20  # bytes looked through at a time for the next mark


@dataclass(frozen=True)
class Frame:
    """A place of a file: a whole frame, or, without a payload, one that is torn or damaged."""

    offset: int
    payload: bytes | None


def make_frame(payload: bytes, key: bytes) -> bytes:
    """The frame of a payload."""
    return _HEAD.pack(_MARK, len(payload), _digest(payload, key)) + payload


def frame_at(file: BinaryIO, offset: int, key: bytes) -> bytes | None:
    """The payload of the frame at `offset`, or None if there is no whole frame of that key."""
    file.seek(offset)
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    mark, length, digest = _HEAD.unpack(head)
    # a damaged length must not make us ask for more memory than the file has bytes
    if mark != _MARK or length > os.fstat(file.fileno()).st_size - offset - _HEAD.size:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and _digest(payload, key) == digest else None


def frames(file: BinaryIO, key: bytes, start: int = 0) -> Iterator[Frame]:
    """All frames from `start` on, with what is damaged between them."""
    offset, size = start, os.fstat(file.fileno()).st_size
    while offset < size:
        payload = frame_at(file, offset, key)
        yield Frame(offset, payload)
        offset = offset + _HEAD.size + len(payload) if payload is not None else _next_mark(file, offset + 1, size)


def frame_size(payload: bytes) -> int:
    """Bytes that the frame of a payload takes."""
    return _HEAD.size + len(payload)


def _next_mark(file: BinaryIO, offset: int, size: int) -> int:
    """Where the next mark is, `size` if there is none."""
    while offset < size:
        file.seek(offset)
        text = file.read(_LOOK)
        found = text.find(_MARK)
        if found >= 0:
            return offset + found
        if len(text) < _LOOK:
            return size
        offset += len(text) - len(_MARK) + 1
    return size


def _digest(payload: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16, key=key).digest()
