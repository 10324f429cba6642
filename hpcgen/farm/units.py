"""What goes out as one: a task, or a group of tasks that are done together, such as the micro-batch of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Units:
    """The tasks in groups, which are the same whoever does them and however often the run is killed.

    Args:
        tasks: M.
        groups: indices of the tasks of each group; None: every task is one.

    Raises:
        ValueError: if not every task is in exactly one group, or a group is empty.

    Attributes:
        leading: (U,) int64, the first task of each group, under whose id the group is known.
        sizes: (U,) int64, tasks in each group.
    """

    def __init__(self, tasks: int, groups: Sequence[Sequence[int]] | None = None) -> None:
        if groups is None:
            self._members, self.sizes = np.arange(tasks), np.ones(tasks, np.int64)
        else:
            self._members = np.concatenate([np.zeros(0, np.int64), *(np.asarray(g, np.int64) for g in groups)])
            self.sizes = np.array([len(g) for g in groups], np.int64)
        if (self.sizes < 1).any() or not np.array_equal(np.sort(self._members), np.arange(tasks)):
            raise ValueError(f"the groups must hold each of the {tasks} tasks once, and none may be empty")
        self._first = np.cumsum(self.sizes) - self.sizes
        self.leading = self._members[self._first]

    def __getitem__(self, unit: int) -> list[int]:
        """The tasks of a unit."""
        return self._members[self._first[unit] : self._first[unit] + self.sizes[unit]].tolist()

    def costs(self, costs: ArrayLike) -> NDArray[np.float64]:
        """(U,) seconds of each unit, from those of all tasks: (M,), or one number for all."""
        each = np.broadcast_to(np.asarray(costs, np.float64), self._members.shape)[self._members]
        return np.add.reduceat(each, self._first) if len(each) else each

    def done(self, done: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(U,) whether all tasks of a unit are done."""
        each = done[self._members]
        return np.logical_and.reduceat(each, self._first) if len(each) else each
