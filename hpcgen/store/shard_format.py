"""How a shard says what records it holds, and which versions of hpcgen can read it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hpcgen import __version__
from hpcgen.errors import StoreError
from hpcgen.store.schema import Schema
from hpcgen.store.writer import marks

FORMAT = 1
HEAD_KEY = b"hpcgen shard"


def commit_key(schema: Schema) -> bytes:
    """What the digests of commits are keyed with: commits of other records never fit."""
    columns = [(c.path, c.dtype, c.shape) for c in schema.columns]
    text = repr((FORMAT, *marks(schema).values(), schema.has_crystal, columns))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def head_of(schema: Schema) -> bytes:
    """Payload of the first frame of a shard."""
    facts = {"format": FORMAT, **marks(schema), "key": commit_key(schema).hex(), "hpcgen_version": __version__}
    return json.dumps(facts).encode()


def check_head(path: Path, head: bytes, schema: Schema) -> None:
    """Refuse a shard that does not hold records of `schema` as this version writes them.

    Raises:
        StoreError: naming what it holds, and the remedy.
    """
    facts = json.loads(head)
    wanted = marks(schema)
    version = facts.get("hpcgen_version")
    again = f"delete {path.parent}: what is in it is then computed again"
    if (facts.get("schema"), facts.get("record_type")) != (wanted["schema"], wanted["record_type"]):
        raise StoreError(
            f"{path} holds {facts.get('schema')} ({facts.get('record_type')})",
            expected=f"{wanted['schema']} ({wanted['record_type']})",
            remedy=f"use another run folder, or {again}",
        )
    if facts.get("key") != commit_key(schema).hex():
        raise StoreError(
            f"{path} was written by hpcgen {version} in another version of {wanted['schema']} "
            f"({facts.get('schema_version')}, shard format {facts.get('format')})",
            expected=f"version {wanted['schema_version']}, shard format {FORMAT}, as hpcgen {__version__} writes them",
            remedy=f"finish the run with hpcgen {version}, or {again}",
        )
