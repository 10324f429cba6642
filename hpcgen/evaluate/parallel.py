"""The same function over many items in several processes, in order, with a progress bar or lines in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from hpcgen.errors import LaunchError

log = logging.getLogger("hpcgen")
T = TypeVar("T")
R = TypeVar("R")
SERIAL = 16  # fewer items are done here: a process takes seconds to import the libraries
INTERVAL = 30.0  # seconds between two lines of a log


def mapped(
    work: Callable[[T], R], items: Sequence[T], *, processes: int, label: str, unit: str = " structures"
) -> Iterator[R]:
    """`work` of each item, in their order; the results do not depend on `processes`.

    Processes are spawned, so a script that calls this needs the usual `if __name__ == "__main__":`.

    Args:
        work: a function of a module, which a process can import.
        items: what it is called with.
        processes: at most so many at once; 1: all of it here.
        label: of the progress.
        unit: of the progress.

    Raises:
        LaunchError: if a process is killed, for lack of memory as a rule.
    """
    if processes < 2 or len(items) < SERIAL:
        yield from _shown(map(work, items), len(items), label, unit)
        return
    from concurrent.futures.process import BrokenProcessPool

    chunk = max(1, min(16, len(items) // (4 * processes)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from _shown(pool.map(work, items, chunksize=chunk), len(items), label, unit)
        except BrokenProcessPool:
            raise LaunchError(
                f"{label}: a process died without a word, as one does that is killed for lack of memory",
                remedy="use fewer --processes; what was done is cached",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _shown(results: Iterable[R], total: int, label: str, unit: str) -> Iterator[R]:
    """`results`, with a bar or a line every `INTERVAL` seconds, which a batch job's log can be followed by."""
    from tqdm import tqdm

    from hpcgen.farm.progress import duration  # here, so that the processes need not import the farm

    bar = tqdm(results, desc=label, unit=unit, total=total, disable=None)
    if not bar.disable:
        yield from bar
        return
    start = told = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - told >= INTERVAL and done < total:
            told, left = now, (now - start) / done * (total - done)
            log.info("%s: %d/%d%s, %s left", label, done, total, unit, duration(left))
