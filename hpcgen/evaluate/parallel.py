"""The same function over many items in several processes, in order, with a progress bar or lines in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from hpcgen.errors import LaunchError
from hpcgen.progress import shown

T = TypeVar("T")
R = TypeVar("R")
SERIAL = 16  # fewer items are done here: a process takes seconds to import the libraries


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
        yield from shown(map(work, items), label, unit=unit, total=len(items))
        return
    from concurrent.futures.process import BrokenProcessPool

    chunk = max(1, min(16, len(items) // (4 * processes)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from shown(pool.map(work, items, chunksize=chunk), label, unit=unit, total=len(items))
        except BrokenProcessPool:
            raise LaunchError(
                f"{label}: a process died without a word, as one does that is killed for lack of memory",
                remedy="use fewer --processes; what was done is cached",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
