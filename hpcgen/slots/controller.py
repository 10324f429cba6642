"""The controller keeps N slots busy until all tasks are done, the time is up, or something is wrong with the site.

It holds a few numbers per task and never a result, so its memory does not grow with what the slots produce. Whatever
happens to it, a restart reads the ledger and the folders and goes on; see `ledger.py` for what counts.
"""

from __future__ import annotations

import logging
import selectors
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcgen.errors import LaunchError, StoreError
from hpcgen.slots.ledger import Ledger, Standing, standings
from hpcgen.slots.outcome import Outcome, attempt_folder
from hpcgen.slots.process import SlotProcess, end_processes, family, marked
from hpcgen.slots.settings import SlotSettings, Summary

log = logging.getLogger("hpcgen")

SICK_AT_FIRST, SICK_IN_A_ROW = 3, 10
TASKS_PER_WORKER = 50  # then a fresh process: libraries leak
LATE = 10.0  # seconds that a program may take longer than it was given before it is ended


@dataclass
class _Slot:
    number: int
    process: SlotProcess | None = None
    task: str = ""
    attempt: int = 0
    began: float = 0.0
    served: int = 0
    told: float = 0.0  # when it was told to stop


@dataclass
class Controller:
    """Runs `program` on tasks, in their order.

    Args:
        root: folder of the ledger and of the tasks.
        program: `module:function`, see `worker.py`.
        order_of: what the program is given besides task, attempt, folder, earlier attempts, end; made when it begins.
        settings: see there.
        shard: name of the ledger among those of several controllers.
        stopping: asked often; True once this process was told to end.
        then: tasks that follow from one that is done; asked once for each, also for those done in earlier runs.
        in_vain: tasks that nobody needs once this one has failed; what of them has not begun is left out.
    """

    root: Path
    program: str
    order_of: Callable[[str], dict[str, Any]]
    settings: SlotSettings
    shard: str = "0-of-1"
    stopping: Callable[[], bool] = lambda: False
    then: Callable[[str], Iterable[str]] = lambda task: ()
    in_vain: Callable[[str], Iterable[str]] = lambda task: ()
    _slots: list[_Slot] = field(default_factory=list)
    _queue: deque[str] = field(default_factory=deque)
    _standing: dict[str, Standing] = field(default_factory=dict)
    _known: dict[str, Standing] = field(default_factory=dict)  # from the ledgers, when this run began
    _sick: int = 0
    _healthy: bool = False
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    def run(self, tasks: Sequence[str]) -> Summary:
        """Do what is left of `tasks` and of what follows from them.

        Returns:
            how they all stand; `left` is positive if time or a signal did not let all of them end.

        Raises:
            LaunchError: if the program cannot be started here, whatever the task.
            StoreError: if the disk is full.
            RunFolderError: if another controller of the same shard is at work.
        """
        with Ledger(self.root, self.shard) as ledger:
            self._end_leftovers()
            self._queue, self._standing, self._known = deque(), {}, standings(self.root)
            self._enter(tasks)
            self._slots = [_Slot(i) for i in range(self.settings.n)]
            self._report(True)
            try:
                with selectors.DefaultSelector() as selector:
                    why = self._work(ledger, selector)
            finally:
                for slot in self._slots:
                    if slot.process is not None:
                        slot.process.end()
        states = Counter(self._state(task) for task in self._standing)
        left = states["pending"] + states["running"]
        return Summary(states["done"], states["failed"], left, why if left else "")

    def _enter(self, tasks: Iterable[str]) -> None:
        """Take tasks, and what follows from those that are done, into the books, and what is to do into the queue."""
        failed = []
        for task in tasks:
            self._standing[task] = self._known.get(task, Standing())
            state = self._state(task)
            if state == "done":
                self._enter(self.then(task))
            elif state == "failed":
                failed.append(task)
            else:
                self._queue.append(task)
        for task in failed:
            self._leave_out(task)

    def _leave_out(self, failed: str) -> None:
        """Take from queue and books what is in vain now."""
        vain = set(self.in_vain(failed)) & set(self._queue)
        if vain:
            self._queue = deque(task for task in self._queue if task not in vain)
            for task in vain:
                del self._standing[task]
            log.info("%d tasks are left out, in vain without %s", len(vain), failed)

    def _state(self, task: str) -> str:
        s = self._standing[task]
        worn_out = s.state in ("pending", "running") and s.attempts >= self.settings.attempts
        return "failed" if worn_out else s.state

    def _end_leftovers(self) -> None:
        left = marked(family(self.root, self.shard))
        if left:
            log.warning("ending %d processes that an earlier controller left: %s", len(left), [p.pid for p in left])
            end_processes(left)

    def _work(self, ledger: Ledger, selector: selectors.BaseSelector) -> str:
        why, said = "", time.monotonic()
        while True:
            why = why or self._reason_to_stop()
            for slot in self._slots:
                if slot.task:
                    self._keep_time(slot, bool(why), ledger, selector)
                elif self._queue and not why:
                    self._begin(slot, ledger, selector)
            if not any(slot.task for slot in self._slots):
                return why
            for key, _ in selector.select(timeout=0.5):
                self._listen(key.data, ledger, selector)
            if time.monotonic() - said > self.settings.interval:
                said = time.monotonic()
                self._report(False)

    def _reason_to_stop(self) -> str:
        if self.stopping():
            return "a signal asked it to stop"
        s = self.settings
        if self._queue and s.end is not None and time.time() > s.end - s.reserve - s.shortest:
            return "there is not enough time for another structure"
        return ""

    def _begin(self, slot: _Slot, ledger: Ledger, selector: selectors.BaseSelector) -> None:
        free = shutil.disk_usage(self.root).free
        if free < self.settings.free:
            raise StoreError(
                f"only {free / 1e9:.2f} GB are free at {self.root}",
                expected=f"{self.settings.free / 1e9:.2f} GB (slots.min_free)",
                remedy="make room, then run the same command again: nothing that was done is lost",
            )
        task = self._queue.popleft()
        standing = self._standing[task]
        standing.last += 1
        order = self.order_of(task)
        folder = attempt_folder(self.root, task, standing.last)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # made by a controller that died before its ledger knew: not ours, not to be trusted
            self._queue.appendleft(task)
            return
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror}", remedy="make room, then run again") from None
        if slot.process is None:
            slot.process = SlotProcess(self.root, self.shard, slot.number, self.program, self.settings.wrapper)
            assert slot.process.process.stdout is not None
            selector.register(slot.process.process.stdout, selectors.EVENT_READ, slot)
            slot.served = 0
        ledger.start(task, standing.last, slot.number, slot.process.process.pid)
        standing.state = "running"
        slot.task, slot.attempt, slot.began, slot.told = task, standing.last, time.monotonic(), 0.0
        facts = {"task": task, "attempt": standing.last, "folder": str(folder), "slot": slot.number}
        end = None if self.settings.end is None else self.settings.end - self.settings.reserve
        slot.process.tell({"do": order | facts | {"counted": standing.attempts, "end": end}})

    def _keep_time(self, slot: _Slot, stop: bool, ledger: Ledger, selector: selectors.BaseSelector) -> None:
        """Tell a program to stop when this process must or the reserve begins, and end it if it does not."""
        assert slot.process is not None
        s, now = self.settings, time.time()
        out_of_time = s.end is not None and now > s.end - s.reserve
        if not slot.told and (out_of_time or (stop and self.stopping())):
            grace = s.grace if s.end is None else min(s.reserve * 0.8, max(s.end - now, 1.0))
            slot.process.tell({"stop": min(grace, s.grace) if self.stopping() else grace})
            slot.told = now + grace
        elif slot.told and now > slot.told + LATE:
            log.warning("slot %d does not stop; ending it", slot.number)
            self._lose(slot, ledger, selector, "stopped")

    def _listen(self, slot: _Slot, ledger: Ledger, selector: selectors.BaseSelector) -> None:
        if slot.process is None:
            return
        messages = slot.process.hear()
        if messages is None:
            self._lose(slot, ledger, selector, "died")
            return
        for message in messages:
            if "ready" in message:
                slot.process.ready = True
            elif (message["task"], message["attempt"]) == (slot.task, slot.attempt):
                self._end(slot, Outcome(**message["outcome"]), ledger)
        if slot.served >= TASKS_PER_WORKER and not slot.task:
            self._close(slot, selector)

    def _lose(self, slot: _Slot, ledger: Ledger, selector: selectors.BaseSelector, how: str) -> None:
        """The worker of a slot is dead or has to be: its task is tried again, by a new one."""
        process = slot.process
        assert process is not None
        code = self._close(slot, selector)
        if not slot.task:
            return
        if how == "stopped":
            outcome = Outcome("stopped", "did-not-stop", "it had to be killed at the end of the time", progress=True)
        elif not process.ready:
            text = f"the process of its slot ended with code {code} before it could work; {process.log} may say why"
            outcome = Outcome("sick", "slot-never-started", text)
        else:
            outcome = Outcome("again", "slot-died", f"the process of its slot ended with code {code}")
        self._end(slot, outcome, ledger)

    def _close(self, slot: _Slot, selector: selectors.BaseSelector) -> int:
        assert slot.process is not None
        selector.unregister(slot.process.process.stdout)  # type: ignore[arg-type]
        code = slot.process.end()
        slot.process = None
        return code

    def _end(self, slot: _Slot, outcome: Outcome, ledger: Ledger) -> None:
        """Write down how an attempt ended; the task is done, has failed, or comes back to the end of the queue."""
        task, standing, seconds = slot.task, self._standing[slot.task], time.monotonic() - slot.began
        healthy = outcome.state != "sick"
        self._sick = 0 if healthy else self._sick + 1
        self._healthy = self._healthy or healthy
        counted = {"again": True, "sick": self._healthy, "stopped": not outcome.progress}.get(outcome.state, False)
        ledger.end(task, slot.attempt, outcome, counted=counted, seconds=seconds)
        slot.task, slot.served = "", slot.served + 1
        standing.attempts += counted
        standing.kind, standing.message = outcome.kind, outcome.message
        if outcome.state == "done" or outcome.state == "failed":
            standing.state, standing.result = outcome.state, slot.attempt
            self._seconds.append(seconds)
            if standing.state == "done":
                self._enter(self.then(task))
        else:
            standing.state = "pending"
            if self._state(task) == "pending":
                self._queue.append(task)
        if self._state(task) == "failed":
            self._leave_out(task)
        if outcome.state != "done":
            level = logging.WARNING if self._state(task) == "failed" else logging.INFO
            log.log(level, "%s attempt %d: %s %s: %s", task, slot.attempt, outcome.state, outcome.kind, outcome.message)
        if self._sick >= (SICK_IN_A_ROW if self._healthy else SICK_AT_FIRST):
            raise LaunchError(
                f"{self._sick} attempts in a row could not even start, the last ({task}): {outcome.message}",
                expected="a program that starts on this machine",
                remedy=f"look into {attempt_folder(self.root, task, slot.attempt)}, mend it, and run again: "
                "the structures are not to blame, and none is given up",
            )

    def _report(self, first: bool) -> None:
        states = Counter(self._state(task) for task in self._standing)
        if first and not states["done"] and not states["failed"]:
            return
        pace = f"; {sum(self._seconds) / len(self._seconds):.1f} s each" if self._seconds else ""
        busy = sum(bool(slot.task) for slot in self._slots)
        log.info(
            "%d done, %d failed, %d running, %d waiting%s",
            states["done"], states["failed"], busy, len(self._queue), pace,
        )  # fmt: skip
