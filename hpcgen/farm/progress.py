"""Progress of a farm, on the leader: a bar on a terminal, log lines in a batch job."""

from __future__ import annotations

import logging
import time

from numpy.typing import NDArray
from tqdm import tqdm

from hpcgen.progress import duration

log = logging.getLogger("hpcgen")


class Progress:
    """Shows results that are committed, so it never promises what a kill would take back.

    Args:
        label: the stage.
        total: tasks of the whole run.
        resumed: results of earlier starts.
        ranks: how many work.
        interval: seconds between log lines.
    """

    def __init__(self, label: str, total: int, resumed: int, ranks: int, interval: float) -> None:
        self._label, self._total, self._resumed, self._ranks, self._interval = label, total, resumed, ranks, interval
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=resumed, desc=label, unit="task", disable=None)
        if resumed:
            log.info("%s: %d of %d tasks were done before", label, resumed, total)

    def show(self, done: int, failed: int, alive: int, seconds_left: float | None) -> None:
        """Report `done` committed results of this start, `failed` of them failures, and how many ranks are at it."""
        now = time.monotonic()
        if now - self._last < (self._interval if self._bar.disable else 0.1):
            return
        self._last = now
        if not self._bar.disable:
            self._bar.set_postfix(failed=failed, ranks=alive, refresh=False)
            self._bar.update(self._resumed + done - self._bar.n)
            return
        log.info(
            "%s: %d/%d done, %d failed, %.3g/s, %s, %d of %d ranks",
            self._label,
            self._resumed + done,
            self._total,
            failed,
            done / (now - self._start),
            "no estimate yet" if seconds_left is None else f"{duration(seconds_left)} left",
            alive,
            self._ranks,
        )

    def close(self, done: int, busy: NDArray, seconds: float) -> None:
        """Last line: how busy the ranks were."""
        if not self._bar.disable:
            self._bar.update(self._resumed + done - self._bar.n)
        self._bar.close()
        if done and seconds > 0:
            shares = " ".join(f"{value:.0%}" for value in busy[:16]) + (" ..." if len(busy) > 16 else "")
            mean = f", {busy.mean():.0%} on average" if len(busy) > 1 else ""
            log.info("%s: %s on %d ranks, busy %s%s", self._label, duration(seconds), len(busy), shares, mean)
