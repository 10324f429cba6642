"""The ledger: a line per event, each with its digest, appended and flushed to disk before anything follows from it.

`start` stands before an attempt begins, `end` when its outcome is known. A start without an end is an attempt that was
interrupted with its controller. Every controller has a file of its own (`ledger-<shard>.jsonl`), and all files of the
folder together say how things stand, so that shards may be cut differently after a restart.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from hpcgen.errors import RunFolderError, StoreError
from hpcgen.slots.outcome import Outcome, digest, read_outcome


@dataclass
class Standing:
    """How things stand with one task.

    Attributes:
        state: `running` means begun and not known to have ended.
        attempts: those that count against the task.
        last: number of the last attempt, from 1; 0 if there was none.
        result: the attempt whose outcome counts, if `done` or `failed`.
        kind, message: of the last outcome that was not `done`.
        seconds: of all attempts whose end was written down.
    """

    state: Literal["pending", "running", "done", "failed"] = "pending"
    attempts: int = 0
    last: int = 0
    result: int = 0
    kind: str = ""
    message: str = ""
    seconds: float = 0.0


class Ledger:
    """The ledger of one controller, open for writing.

    Raises:
        RunFolderError: if another controller has it.
        StoreError: if it cannot be written, as when the disk is full.
    """

    def __init__(self, root: Path, shard: str = "0-of-1") -> None:
        self.path = root / f"ledger-{shard}.jsonl"
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise RunFolderError(
                f"another controller is writing {self.path}", remedy="wait for it, or end it, then start again"
            ) from None
        except OSError:  # a file system without locks: the run folder's own lock has to do
            pass
        self._refuse_other_cuts(shard)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # a torn line, whose digest gives it away

    def _refuse_other_cuts(self, shard: str) -> None:
        """Controllers that cut the tasks into another number of parts would do some of them twice."""
        siblings = f"-of-{shard.rpartition('-')[2]}.jsonl"
        for other in self.path.parent.glob("ledger-*.jsonl"):
            if other.name.endswith(siblings):
                continue
            with other.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(self._file)
                    raise RunFolderError(
                        f"the controller of {other.name} is at work, with another number of parts",
                        remedy="wait for it, or end it; or start a part of the same whole",
                    ) from None
                except OSError:
                    return

    def start(self, task: str, attempt: int, slot: int, pid: int) -> None:
        """An attempt is about to begin."""
        self._write({"event": "start", "task": task, "attempt": attempt, "slot": slot, "pid": pid})

    def end(self, task: str, attempt: int, outcome: Outcome, *, counted: bool, seconds: float) -> None:
        """An attempt has ended. `counted`: against the task's number of attempts."""
        facts = {"state": outcome.state, "kind": outcome.kind, "message": outcome.message[:500]}
        numbers = {"counted": counted, "seconds": round(seconds, 2)}
        self._write({"event": "end", "task": task, "attempt": attempt, **facts, **numbers})

    def _write(self, event: dict[str, Any]) -> None:
        body = json.dumps(event | {"time": round(time.time(), 3), "host": socket.gethostname()}, sort_keys=True)
        self._append(f"{digest(body)} {body}\n".encode())

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        if written != len(line):
            raise _unwritable(self.path, OSError(0, "only a part of a line was written"))

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def events(root: Path) -> Iterator[dict[str, Any]]:
    """Every undamaged line of all ledgers of a folder; a torn or damaged one never happened."""
    for path in sorted(root.glob("ledger-*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                stored, _, body = line.rstrip("\n").partition(" ")
                if stored and stored == digest(body):
                    yield json.loads(body)


def standings(root: Path) -> dict[str, Standing]:
    """How things stand with every task that was ever begun.

    An attempt without an end whose folder holds an outcome did end: its controller died before it could say so.
    """
    begun: dict[str, int] = {}
    ends: dict[str, dict[int, dict[str, Any]]] = {}
    for event in events(root):
        task, attempt = event["task"], event["attempt"]
        begun[task] = max(begun.get(task, 0), attempt)
        if event["event"] == "end":
            ends.setdefault(task, {}).setdefault(attempt, event)
    out = {}
    for task, last in begun.items():
        known = ends.get(task, {})
        for attempt in range(1, last + 1):
            if attempt not in known and (late := read_outcome(root / task / f"{attempt:02d}")) is not None:
                known[attempt] = late.__dict__ | {"counted": late.state == "again"}
        seconds = sum(end.get("seconds", 0.0) for end in known.values())
        for attempt, end in list(known.items()):
            if end["state"] == "done" and read_outcome(root / task / f"{attempt:02d}") is None:
                del known[attempt]  # what was stored is damaged or gone: computed again
        out[task] = _standing(last, known)
        out[task].seconds = seconds
    return out


def _standing(last: int, ends: dict[int, dict[str, Any]]) -> Standing:
    attempts = sum(bool(end["counted"]) for end in ends.values())
    states: tuple[Literal["done", "failed"], ...] = ("done", "failed")
    for state in states:
        for attempt in sorted(ends):
            if ends[attempt]["state"] == state:
                end = ends[attempt]
                return Standing(state, attempts, last, attempt, end["kind"], end["message"])
    latest = ends[max(ends)] if ends else {"kind": "", "message": ""}
    return Standing("pending" if last in ends else "running", attempts, last, 0, latest["kind"], latest["message"])


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror}",
        remedy="make room on the file system, then run the same command again: nothing that was done is lost",
    )
