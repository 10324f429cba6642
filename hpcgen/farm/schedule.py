"""Which tasks go out next: expensive ones first, in chunks that shrink towards the end.

Guided self-scheduling (Polychronopoulos and Kuck, IEEE Trans. Comput. C-36, 1425 (1987)), by cost instead of count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHARE = 3  # a chunk is at most 1/SHARE of a rank's fair part of what is left; workers hold up to two of them
FREE = 1e-9  # seconds, added to every estimate, so that the pace can be learned of tasks thought to be free
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
        singles: so many at the beginning go out one at a time.
    """

    def __init__(self, costs: NDArray[np.float64], ranks: int, chunk_seconds: float, singles: int = 0) -> None:
        self._sum = np.concatenate([[0.0], np.cumsum(costs + FREE)])
        self._next = 0
        self._ranks = ranks
        self._chunk_seconds = chunk_seconds
        self._singles = singles
        self._returned: list[tuple[int, int]] = []
        self._last: list[tuple[int, int]] = []
        self._estimated = 0.0
        self._measured = 0.0

    def estimate(self, start: int, stop: int) -> float:
        """Seconds that the cost model gives these positions."""
        return float(self._sum[stop] - self._sum[start])

    def learn(self, estimated: float, measured: float) -> None:
        """Tell how long tasks of `estimated` seconds took, so that chunks fit although estimates are off."""
        self._estimated += estimated
        self._measured += measured

    def give_back(self, start: int, stop: int, *, last: bool = False) -> None:
        """Positions that their rank could not do; they go out again, on demand after everything else."""
        if stop > start:
            (self._last if last else self._returned).append((start, stop))

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to hand out."""
        return not (self._returned or self._last) and self._next == len(self._sum) - 1

    def next(self) -> tuple[int, int] | None:
        """(start, stop) of the next chunk, or None if there is nothing left."""
        if self._returned:
            return self._returned.pop()
        start, total = self._next, len(self._sum) - 1
        if start == total:
            return self._last.pop(0) if self._last else None
        if start < self._singles:
            self._next += 1
        else:
            share = SHARE * self._ranks
            budget = min(self._chunk_seconds / self._pace, (self._sum[-1] - self._sum[start]) / share)
            by_cost = int(np.searchsorted(self._sum, self._sum[start] + budget, side="right")) - 1 - start
            by_count = -(-(total - start) // share)
            self._next = start + max(1, min(by_cost, by_count, LONGEST))
        return start, self._next

    def seconds_left(self, ranks: int) -> float | None:
        """Estimated wall time until everything is done by so many ranks, None as long as nobody knows."""
        if self._measured <= 0 or self._estimated <= 0:
            return None
        return max(self._sum[-1] - self._estimated, 0.0) * self._pace / ranks

    @property
    def _pace(self) -> float:
        """Measured over estimated seconds, 1 until there is something to go by."""
        return self._measured / self._estimated if self._measured > 0.1 and self._estimated > 0 else 1.0
