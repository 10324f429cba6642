"""Progress of a farm, on rank 0: a bar on a terminal, log lines in a batch job."""

from __future__ import annotations

import logging
import time

from numpy.typing import NDArray
from tqdm import tqdm

log = logging.getLogger("hpcgen")


class Progress:
    """Shows results that are committed, so it never promises what a kill would take back.

    Args:
        label: the stage.
        total: tasks of the whole run.
        resumed: results of earlier starts.
        interval: seconds between log lines.
    """

    def __init__(self, label: str, total: int, resumed: int, interval: float) -> None:
        self._label, self._total, self._resumed, self._interval = label, total, resumed, interval
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=resumed, desc=label, unit="task", disable=None)
        if resumed:
            log.info("%s: %d of %d tasks were done by an earlier start", label, resumed, total)

    def show(self, done: int, failed: int) -> None:
        """Report `done` committed results of this start, `failed` of them failures."""
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(self._resumed + done - self._bar.n)
        elif now - self._last >= self._interval:
            self._last = now
            rate = done / (now - self._start)
            left = self._total - self._resumed - done
            eta = f"{left / rate:.0f} s left" if rate > 0 else "no estimate yet"
            so_far = self._resumed + done
            log.info("%s: %d/%d done, %d failed, %.3g/s, %s", self._label, so_far, self._total, failed, rate, eta)

    def close(self, busy: NDArray, seconds: float) -> None:
        """Last line: how busy the ranks were."""
        self._bar.close()
        if len(busy) and seconds > 0:
            shares = " ".join(f"{value:.0%}" for value in busy[:16]) + (" ..." if len(busy) > 16 else "")
            log.info("%s: %.1f s on %d ranks, busy %s", self._label, seconds, len(busy), shares)
