"""Which tasks go out next: expensive ones first, in chunks that shrink towards the end.

Guided self-scheduling (Polychronopoulos and Kuck, IEEE Trans. Comput. C-36, 1425 (1987)), by cost instead of count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHARE = 3  # a chunk is at most 1/SHARE of a rank's fair part of what is left; workers hold up to two of them
LONGEST = 256  # tasks in a chunk: a restart or a stop never waits for a long list of tasks thought to be free


def order_of(costs: ArrayLike, done: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the tasks that are not done, most expensive first, ties in their own order.

    Raises:
        ValueError: if costs are negative or not finite, or do not belong to these tasks.
    """
    cost = np.asarray(costs, dtype=np.float64)
    if cost.shape != done.shape or not np.isfinite(cost).all() or (cost < 0).any():
        raise ValueError(f"costs must be {done.shape} finite numbers, not below 0")
    order = np.argsort(-cost, kind="stable").astype(np.int64)
    return order[~done[order]]


class Schedule:
    """Hands out positions of an ordered task list.

    Args:
        costs: (P,) estimated seconds, in the order in which the tasks go out.
        ranks: how many share them.
        chunk_seconds: work of one chunk.
    """

    def __init__(self, costs: NDArray[np.float64], ranks: int, chunk_seconds: float) -> None:
        self._sum = np.concatenate([[0.0], np.cumsum(costs)])
        self._next = 0
        self._ranks = ranks
        self._chunk_seconds = chunk_seconds
        self._estimated = 0.0
        self._measured = 0.0

    def learn(self, estimated: float, measured: float) -> None:
        """Tell how long tasks of `estimated` seconds took, so that chunks fit although estimates are off."""
        self._estimated += estimated
        self._measured += measured

    def next(self) -> tuple[int, int]:
        """(start, stop) of the next chunk; start == stop if there is nothing left."""
        start, total = self._next, len(self._sum) - 1
        if start < total:
            pace = self._measured / self._estimated if self._measured > 0.1 and self._estimated > 0 else 1.0
            share = SHARE * self._ranks
            budget = min(self._chunk_seconds / pace, (self._sum[-1] - self._sum[start]) / share)
            by_cost = int(np.searchsorted(self._sum, self._sum[start] + budget, side="right")) - 1 - start
            by_count = -(-(total - start) // share)
            self._next = start + max(1, min(by_cost, by_count, LONGEST))
        return start, self._next
