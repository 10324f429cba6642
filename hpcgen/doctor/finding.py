"""One line of the doctor's page, and the ways to say it about many ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: `ok`, `warning` (a run would be slow or fragile) or `problem` (it would stop or be spoilt).
        subject: one word.
        found: what is there.
        remedy: what to do; empty if all is well.
    """

    status: Literal["ok", "warning", "problem"]
    subject: str
    found: str
    remedy: str = ""


def by_host(ranks: Sequence[Facts]) -> dict[str, list[Facts]]:
    """The ranks of each node, in the order of their first ranks."""
    hosts: dict[str, list[Facts]] = {}
    for facts in ranks:
        hosts.setdefault(facts["host"], []).append(facts)
    return hosts


def differing(ranks: Sequence[Facts], key: str) -> list[int]:
    """The ranks whose fact is another than rank 0's."""
    return [i for i, facts in enumerate(ranks) if facts[key] != ranks[0][key]]


def some(items: Iterable[Any], limit: int = 6) -> str:
    """The first few, and how many more."""
    listed = [str(item) for item in items]
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")


def size(number: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
