"""What each rank has in hand, on disk before it begins, so that a restart knows which task a dead rank died in.

Beside every shard lies a journal of records of 17 bytes, a letter and a task id, each appended by one `write`: what
was written survives the death of the process. The last record says what the process was doing:

    B id    began this task
    I       between tasks, with everything committed or dropped on purpose
    K id    this task has killed the process of its own in which this rank ran it (see solo.py)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

SIZE = 17
BEGAN, IDLE, KILLED = b"B", b"I", b"K"
_NAME = re.compile(r"attempts-(\d+)-(\d+)\.log$")


class Journal:
    """The journal of this rank in this start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._kills = False
        self._idle = True

    def begin(self, task: bytes) -> None:
        """Say that a task begins."""
        os.write(self._file, BEGAN + task.ljust(SIZE - 1, b"\0"))
        self._idle = False

    def idle(self) -> None:
        """Say that no task is in hand."""
        if not self._idle:
            os.write(self._file, IDLE.ljust(SIZE, b"\0"))
            self._idle = True

    def killed(self, task: bytes) -> None:
        """Say that a task has killed the process of its own that it ran in."""
        os.write(self._file, KILLED + task.ljust(SIZE - 1, b"\0"))
        self._kills = True

    def close(self) -> None:
        """End of this start without anything in hand: a journal that says no more than that is removed."""
        self.idle()
        os.close(self._file)
        if not self._kills:
            self._path.unlink(missing_ok=True)


def journal_path(folder: Path, start: int, rank: int) -> Path:
    """Where `rank` of the `start`-th start keeps its journal."""
    return folder / f"attempts-{start:04d}-{rank:05d}.log"


def journal_files(folder: Path) -> list[Path]:
    """The journals that dead processes left, and those with kills, oldest start first."""
    return sorted(p for p in folder.glob("attempts-*") if _NAME.match(p.name))


def last_start(folder: Path) -> int:
    """Number of the latest start that left a journal, 0 if none did."""
    found = (_NAME.match(p.name) for p in journal_files(folder))
    return max((int(m.group(1)) for m in found if m), default=0)


def count_kills(folder: Path) -> Counter[bytes]:
    """How many processes died with each task in hand.

    When a whole job is killed, every task that was in hand is counted, the innocent ones too: a count is a reason to
    look closer, never a verdict.
    """
    kills: Counter[bytes] = Counter()
    for path in journal_files(folder):
        data = path.read_bytes()
        records = [data[i : i + SIZE] for i in range(0, len(data) - SIZE + 1, SIZE)]  # a torn last one does not count
        kills.update(r[1:].rstrip(b"\0") for r in records if r[:1] == KILLED)
        if records and records[-1][:1] == BEGAN:
            kills[records[-1][1:].rstrip(b"\0")] += 1
    return kills
