"""Signals, and the clock of the task in hand.

SIGTERM and SIGUSR1 (what Slurm sends before the time is up) only set a flag; the loops look at it between tasks. A
task that is still running some time after such a signal, or that exceeds its limit, is ended by an exception that
SIGALRM raises in it. Code that never returns to Python cannot be ended so: then the process ends itself, and the
restart runs that task in a process of its own (solo.py), which can be killed.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from hpcgen.farm.deadline import KillTimer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
HARD = 1.5  # a task that does not react ends its process after so many times its limit ...
HARD_MARGIN = 2.0  # ... and so many seconds


class TaskOverdue(BaseException):
    """The task in hand takes longer than `farm.task_limit`."""


class TaskDropped(BaseException):
    """The task in hand has to make way: this process was told to stop."""


class StopSignals:
    """Context manager: while it lasts, `SIGNALS` set `raised`."""

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[signal.Signals, Any] = {}
        self._active = threading.current_thread() is threading.main_thread()  # Python allows handlers nowhere else

    def __enter__(self) -> Self:
        if self._active:
            self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.raised = True


class StopFlag(StopSignals):
    """As `StopSignals`, and tasks run against the clock.

    Args:
        limit: seconds that a task may take.
        grace: seconds that the task in hand may still take after a signal.
    """

    def __init__(self, limit: float, grace: float) -> None:
        super().__init__()
        self._limit, self._grace = limit, grace
        self._hard = KillTimer()
        self._in_task = False
        self._began = 0.0
        self._armed = float("-inf")

    def __enter__(self) -> Self:
        super().__enter__()
        if self._active:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.rest()
        super().__exit__()

    def begin(self) -> None:
        """A task begins."""
        if self._active:
            self._began = time.monotonic()
            if self._began - self._armed > 1.0:  # arming costs a thread, so not for every short task
                self._hard.arm(HARD * self._limit + HARD_MARGIN)
                self._armed = self._began
            self._in_task = True
            signal.setitimer(signal.ITIMER_REAL, self._grace if self.raised else self._limit)

    def end(self) -> None:
        """The task has ended."""
        if self._active:
            self._in_task = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def rest(self) -> None:
        """No task begins for a while."""
        if self._armed > 0:
            self._hard.disarm()
            self._armed = float("-inf")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        super()._stop(number, frame)
        if self._in_task:
            left = self._began + self._limit - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(min(self._grace, left), 1e-3))

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self._in_task:
            self._in_task = False
            overdue = time.monotonic() - self._began >= self._limit
            raise TaskOverdue if overdue else TaskDropped
