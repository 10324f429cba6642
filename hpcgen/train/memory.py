"""A batch that does not fit into the memory of a GPU: which one would?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpcgen.errors import TrainingError
from hpcgen.train.ddp import Processes


def out_of_memory(
    step: int, reason: str, attempt: Callable[[int], None], batch: int, procs: Processes
) -> TrainingError:
    """The error that says which global batch would have fitted, found by trying halves of this process' share.

    Args:
        step: at which memory ran out.
        reason: what torch said.
        attempt: does a step on so many rows.
        batch: the global batch.
        procs: this process among those of the run.
    """
    share = procs.share(batch)
    rows = (share.stop - share.start) // 2
    while rows and not _fits(attempt, rows):
        rows //= 2
    what = f"a batch of {batch} does not fit into the memory of {procs.device} (step {step}: {reason})"
    if rows == 0:
        return TrainingError(what, remedy="not even one row fits: use a smaller model, a larger GPU, or free this one")
    return TrainingError(
        what,
        remedy=f"set train.batch to {rows * procs.size}, which fits, or start more processes on more GPUs",
    )


def _fits(attempt: Callable[[int], None], rows: int) -> bool:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        attempt(rows)
    except torch.OutOfMemoryError:
        return False
    return True
