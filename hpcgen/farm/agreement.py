"""Whether all ranks run the same thing: one exchange of small digests before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hpcgen.errors import LaunchError
from hpcgen.farm.channel import Channel, DeadRankError
from hpcgen.farm.world import World

_FACTS, _DIGEST, _TEXT = 8, 16, 24  # of fixed size, so that other versions of hpcgen can take part and be told
_NAMED = 6  # ranks that a message names


def check(world: World, facts: Mapping[str, str]) -> None:
    """Return only if every rank calls it with the same facts.

    Where a rank dies meanwhile it returns too: what the ranks do next notices that.

    Args:
        world: the ranks.
        facts: at most 8; what must agree (a noun for the message) -> its value, of any length.

    Raises:
        LaunchError: on every rank; the message says which facts differ, and on which ranks and hosts.
    """
    if world.comm is None:
        return
    channel = Channel(world.comm)
    mine = np.zeros((_FACTS, _DIGEST), np.uint8)
    for row, (name, value) in zip(mine, facts.items(), strict=False):
        row[:] = np.frombuffer(hashlib.sha256(f"{name}\n{value}".encode()).digest()[:_DIGEST], np.uint8)
    try:
        everybody = channel.collect(mine)
        if (everybody == everybody[0]).all():
            return
        hosts = channel.host_names()
        texts = [list(facts)[:_FACTS], [value for _, value in zip(range(_FACTS), facts.values(), strict=False)]]
        findings = []
        for index in np.flatnonzero((everybody != everybody[0]).any(axis=(0, 2))):
            name, value = (t[index] if index < len(t) else "" for t in texts)
            values = [_read(row) for row in channel.collect(_written(value))]
            findings.append(_finding(name or "what they run", everybody[:, index], values, hosts))
    except DeadRankError:
        return
    raise LaunchError(
        f"the ranks of this run do not agree on {'; nor on '.join(findings)}",
        expected="the same command, configuration, input files and installation on every node",
        remedy="check that all nodes see the same file system and activate the same environment",
    )


def _finding(name: str, digests: NDArray[np.uint8], values: list[str], hosts: list[str]) -> str:
    """One fact that differs: what most ranks have, and which ranks have something else."""
    _, first, inverse, counts = np.unique(digests, axis=0, return_index=True, return_inverse=True, return_counts=True)
    most = int(counts.argmax())
    usual = int(first[most])
    others = f" and {counts[most] - 1} more" if counts[most] > 1 else ""
    odd = np.flatnonzero(inverse.ravel() != most)
    named = ", ".join(f"{values[rank]} on rank {rank} ({hosts[rank]})" for rank in odd[:_NAMED])
    more = f" and on {len(odd) - _NAMED} more ranks" if len(odd) > _NAMED else ""
    return f"the {name}: {values[usual]} on rank {usual} ({hosts[usual]}){others}, but {named}{more}"


def _written(text: str) -> NDArray[np.uint8]:
    out = np.zeros(_TEXT, np.uint8)
    data = np.frombuffer(text.encode("ascii", "replace")[:_TEXT], np.uint8)
    out[: len(data)] = data
    return out


def _read(data: NDArray[np.uint8]) -> str:
    return data.tobytes().rstrip(b"\0").decode("ascii", "replace")
