"""The starts of a farm: plan, work, hand over; and once more without the ranks that died."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import FarmConfig
from hpcgen.errors import EXIT_REQUEUE, DeviceFailure, LaunchError, RunFolderError
from hpcgen.farm import lock
from hpcgen.farm.attempts import count_kills, last_start
from hpcgen.farm.channel import Channel, DeadRankError
from hpcgen.farm.coordinator import Coordinator
from hpcgen.farm.messages import Source, Tally
from hpcgen.farm.progress import Progress
from hpcgen.farm.result import FarmResult
from hpcgen.farm.schedule import Schedule, order_of
from hpcgen.farm.shards import Catalogue, next_start
from hpcgen.farm.signals import StopFlag
from hpcgen.farm.tasks import Hands, WorkAll
from hpcgen.farm.units import Units
from hpcgen.farm.worker import Worker

log = logging.getLogger("hpcgen")


class Farm:
    """The farm on one rank; see `engine.run` for the arguments.

    Attributes:
        channel: to the ranks that are alive, None if this is the only one.
    """

    def __init__(
        self,
        channel: Channel | None,
        ids: NDArray[np.bytes_],
        units: Units,
        costs: ArrayLike,
        work: WorkAll,
        record_type: type,
        shards: Path | None,
        config: FarmConfig,
        label: str,
        deliver: Callable[[FarmResult], Any] | None,
        name_of: Callable[[int], str] | None,
    ) -> None:
        self.channel, self._ids, self._units, self._costs = channel, ids, units, costs
        self._work, self._type = work, record_type
        self._shards, self._config, self._label, self._deliver = shards, config, label, deliver
        self._name_of = name_of or (lambda index: bytes(ids[index]).decode("ascii"))
        self._catalogue: Catalogue | None = None
        self._kept: list[Any] = []  # buffers of a channel that broke: MPI may still look at them
        self._who = channel.rank if channel else 0  # number at the launch, which people know a rank by
        self._alive = np.arange(channel.size if channel else 1)
        self._hosts: dict[int, str] = {}

    def run(self) -> Any:
        """Start, and start again without the dead, until everything is done.

        Raises:
            As `engine.run`.
        """
        with StopFlag(self._config.task_limit, self._config.grace) as self._stop:
            while True:
                try:
                    if self.channel and not self._hosts:
                        self._hosts = dict(zip(self._alive.tolist(), self.channel.host_names(), strict=True))
                    return self._start()
                except DeadRankError:
                    self._recover()

    @property
    def _leads(self) -> bool:
        return self.channel is None or self.channel.rank == 0

    def _start(self) -> Any:
        """One attempt to finish everything with the ranks that are alive."""
        began = time.monotonic()
        tally = Tally()
        self._plan()
        hands = Hands(
            self._ids,
            self._units,
            self._work,
            self._name_of,
            self._type,
            self._shards,
            self._config,
            self._label,
            self._stop,
            tally,
        )
        hands.open(self._number, self.channel.rank if self.channel else 0)
        source: Source
        coordinator = None
        if self._leads:
            costs, waiting = self._units.costs(self._costs)[self._order], int(self._units.sizes[self._order].sum())
            ranks = self.channel.size if self.channel else 1
            schedule = Schedule(costs, ranks, self._config.chunk_seconds, len(self._kills))
            resumed = len(self._ids) - waiting
            progress = Progress(self._label, len(self._ids), resumed, ranks, self._config.log_interval)
            source = coordinator = Coordinator(self.channel, schedule, dict(self._kills), self._stop, progress)
        else:
            assert self.channel is not None
            source = Worker(self.channel, self._stop)
        self._kept.append(source)
        try:
            self._consume(source, hands, tally)
            source.finish(tally)
        finally:
            if coordinator:
                coordinator.close()
        seconds = time.monotonic() - began
        state = np.zeros(2, np.uint8)
        if coordinator:
            done = sum(t.done for t in coordinator.tallies)
            busy = np.array([t.busy / seconds for t in coordinator.tallies])
            progress.close(done, busy, seconds)
            state[:] = done == waiting, coordinator.all_retired
        complete, helpless = (bool(v) for v in self._share(state))
        if not complete and helpless:
            if not self._leads:
                self._share(state)  # the leader ends all; one message is enough
            raise LaunchError(
                f"{self._label}: the device of every rank has failed",
                expected="at least one GPU that works",
                remedy="look for Xid errors (dmesg, nvidia-smi -q), then run the same command again: it resumes",
            )
        if not complete:
            if coordinator:
                log.warning(
                    "%s: stopped by a signal, everything done is saved, %d tasks are left", self._label, waiting - done
                )
            raise SystemExit(EXIT_REQUEUE)
        result = None
        if coordinator:
            result = FarmResult(len(self._ids), seconds, busy, resumed, self._catalogue)
        return self._hand_over(result)

    def _plan(self) -> None:
        """The leader looks at what is done; all ranks learn the open units in order, and the start's number."""
        order, head = np.zeros(0, np.int64), np.zeros(2, np.int64)
        kills: dict[int, int] = {}
        if self._leads:
            if len(np.unique(self._ids)) != len(self._ids):
                raise ValueError("task ids are not unique")
            done, number = np.zeros(len(self._ids), bool), 1
            if self._shards is not None:
                self._shards.mkdir(parents=True, exist_ok=True)
                self._catalogue = Catalogue(self._shards, self._ids, self._type)
                self._catalogue.scan()
                done = self._catalogue.done
                number = max(next_start(self._shards), last_start(self._shards) + 1)
            order = order_of(self._units.costs(self._costs), self._units.done(done))
            order, kills = self._suspects_first(order)
            head = np.array([len(order), number], dtype=np.int64)
        pending, self._number = (int(v) for v in self._share(head))
        self._order = self._share(order if self._leads else np.empty(pending, np.int64))
        self._kills = kills

    def _suspects_first(self, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[int, int]]:
        """The order with the units in which processes died at the front, and their kills by position."""
        counts = count_kills(self._shards) if self._shards is not None else {}
        if not counts:
            return order, {}
        names = self._ids[self._units.leading[order]]
        suspect = np.isin(names, np.array(list(counts), dtype="S16"))
        kills = {position: counts[bytes(name)] for position, name in enumerate(names[suspect])}
        return np.concatenate([order[suspect], order[~suspect]]), kills

    def _consume(self, source: Source, hands: Hands, tally: Tally) -> None:
        """Work until there is nothing more, then seal."""
        try:
            retired = False
            while not (self._stop.raised or retired):
                chunk = source.next(tally)
                if chunk is None:
                    hands.settle()
                    chunk = source.wait(tally)
                    if chunk is None:
                        break
                start, stop, kills = chunk
                if kills:
                    hands.do_alone(int(self._order[start]), kills)
                    continue
                for position, unit in enumerate(self._order[start:stop].tolist(), start):
                    try:
                        hands.do(unit)
                    except DeviceFailure as error:
                        log.error("rank %s: its device failed, the others go on: %s", self._named(self._who), error)
                        hands.settle()
                        source.retire(tally, position, (position + 1, stop))
                        retired = True
                        break
                    if source.leave():
                        break
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                hands.seal()
            raise
        finally:
            tally.stopped = self._stop.raised
        hands.seal()

    def _hand_over(self, result: FarmResult | None) -> Any:
        """Let the leader deliver while the others wait."""
        value: Any = result
        if result is not None and self._catalogue is not None:
            self._catalogue.scan(self._number)
            self._catalogue.await_complete()
        if result is not None and self._deliver is not None:
            lock.check()
            value = self._deliver(result)
        self._share(np.zeros(1, np.uint8))
        if self._leads and self._deliver is not None and self._shards is not None:
            shutil.rmtree(self._shards)
        return value

    def _recover(self) -> None:
        """Go on without the dead."""
        assert self.channel is not None
        before = self._alive
        self._kept.append(self.channel)
        led = self.channel.rank == 0
        while True:
            self.channel.revoke()
            self.channel = self.channel.survivors()
            self._kept.append(self.channel)
            with suppress(DeadRankError):
                codes = self.channel.collect(np.array([0]))
                if codes.any():  # not dead: it wants to end everything (channel.leave)
                    raise SystemExit(int(codes.max()))
                self._alive = self.channel.collect(np.array([self._who]))[:, 0]
                break
        if self.channel.rank != 0:
            return
        if not led:
            self._inherit()
        dead = [self._named(rank) for rank in np.setdiff1d(before, self._alive).tolist()]
        log.warning(
            "%s: rank%s %s died; %d ranks go on", self._label, "s" * (len(dead) > 1), ", ".join(dead), len(self._alive)
        )

    def _inherit(self) -> None:
        """Lead from now on."""
        try:
            lock.inherit()
        except RunFolderError as error:  # the old leader lives: the network between us does not
            log.error("%s: these ranks were cut off from their leader, so they end: %s", self._label, error)
            raise SystemExit(EXIT_REQUEUE) from None

    def _named(self, rank: int) -> str:
        return f"{rank} ({self._hosts[rank]})" if rank in self._hosts else str(rank)

    def _share(self, data: NDArray[Any]) -> NDArray[Any]:
        """The leader's array on every rank."""
        return self.channel.share(data) if self.channel else data
