"""Ids of what flows, and the seeds of its random streams."""

from __future__ import annotations

import hashlib

ID_LENGTH = 16


def make_id(run_digest: str, stage: str, index: int) -> str:
    """Id of item `index` of a stage: 16 hexadecimal digits that depend on nothing else."""
    text = f"{run_digest}/{stage}/{index}".encode()
    return hashlib.blake2b(text, digest_size=ID_LENGTH // 2).hexdigest()


def seed_of(run_seed: int, item_id: str, purpose: str = "") -> int:
    """63-bit seed of the random stream of one item, the same on every rank and after every restart."""
    text = f"{run_seed}/{item_id}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
