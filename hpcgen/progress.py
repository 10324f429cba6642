"""How far long work is: a bar on a terminal, lines in the log of a batch job. The farm has its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger("hpcgen")
R = TypeVar("R")
INTERVAL = 30.0  # seconds between two lines of a log


def shown(results: Iterable[R], label: str, *, unit: str = " structures", total: int | None = None) -> Iterator[R]:
    """`results`, with a bar, or with a line every `INTERVAL` seconds.

    Args:
        results: what is worked off by iterating.
        label: of the progress.
        unit: of the progress.
        total: how many results there will be; None: not known.
    """
    from tqdm import tqdm

    bar = tqdm(results, desc=label, unit=unit, total=total, disable=None)
    if not bar.disable:
        yield from bar
        return
    start = told = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - told < INTERVAL or done == total:
            continue
        told = now
        if total is None:
            log.info("%s: %d%s in %s", label, done, unit, duration(now - start))
        else:
            log.info("%s: %d/%d%s, %s left", label, done, total, unit, duration((now - start) / done * (total - done)))


def duration(seconds: float) -> str:
    """For people: 12.3 s, 4 min 05 s, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
