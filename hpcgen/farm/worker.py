"""The ranks of a farm that ask rank 0 for work."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from hpcgen.farm.channel import Backoff, Channel
from hpcgen.farm.messages import FINISHED, IDLE, REPLY, REQUEST, RETIRED, SERVE_SECONDS, STOP, Chunk, Range, Tally
from hpcgen.farm.signals import StopFlag

NEXT_SECONDS = 0.02  # without a reply for so long, a worker commits what it has and says that it is idle


class Worker:
    """Every other rank: keeps one request for work under way."""

    def __init__(self, channel: Channel, stop: StopFlag) -> None:
        self._channel, self._stop = channel, stop
        self._reply = np.empty(3, dtype=np.int64)
        self._receiving: Any = None
        self._sending: list[tuple[Any, Any]] = []
        self._arrived = False
        self._over = False
        self._looked = 0.0

    def next(self, tally: Tally) -> Chunk | None:
        if self._receiving is None:
            self._ask(tally)
        backoff, deadline = Backoff(), time.monotonic() + NEXT_SECONDS
        while not self._has_arrived():
            if self._stop.raised or time.monotonic() > deadline:
                return None
            backoff.sleep()
        return self._take(tally)

    def wait(self, tally: Tally) -> Chunk | None:
        if self._over:
            return None
        if self._receiving is None:
            self._ask(tally)
        self._send(tally, IDLE)
        backoff = Backoff()
        while not self._has_arrived():
            if self._stop.raised:
                return None
            backoff.sleep()
        return self._take(tally)

    def leave(self) -> bool:
        if self._stop.raised:
            return True
        now = time.monotonic()
        if now - self._looked < SERVE_SECONDS:
            return False
        self._looked = now
        return self._has_arrived() and int(self._reply[0]) == STOP

    def retire(self, tally: Tally, suspect: int, rest: Range) -> None:
        while True:
            self._send(replace(tally, returned=rest, suspect=suspect), RETIRED)
            if self._receiving is None:
                self._ask(tally)
            backoff = Backoff()
            while not self._has_arrived():
                if self._stop.raised:
                    return
                backoff.sleep()
            start, stop = int(self._reply[0]), int(self._reply[1])
            self._receiving = None
            if start < 0:
                self._over = True
                return
            tally.chunks += 1  # it had been asked for before the device failed
            suspect, rest = -1, (start, stop)

    def finish(self, tally: Tally) -> None:
        """Report, after taking the reply that is still under way."""
        self._send(tally, FINISHED)
        backoff = Backoff()
        while self._receiving is not None and not self._has_arrived():
            backoff.sleep()
        self._flush()

    def _take(self, tally: Tally) -> Chunk | None:
        start, stop, kills = (int(v) for v in self._reply)
        self._receiving = None
        if start < 0:
            self._over = True
            return None
        tally.chunks += 1
        self._ask(tally)
        return start, stop, kills

    def _ask(self, tally: Tally) -> None:
        self._arrived = False
        self._receiving = self._channel.receive(self._reply, 0, REPLY)
        self._send(tally, REQUEST)

    def _send(self, tally: Tally, tag: int) -> None:
        self._sending = [(buffer, request) for buffer, request in self._sending if not self._channel.test(request)]
        buffer = tally.pack()
        self._sending.append((buffer, self._channel.send(buffer, 0, tag)))

    def _flush(self) -> None:
        for _, request in self._sending:
            self._channel.wait(request)

    def _has_arrived(self) -> bool:
        self._arrived = self._arrived or self._channel.test(self._receiving)
        return self._arrived
