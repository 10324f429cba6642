"""What an attempt came to. The slot writes it into the attempt's folder before it tells the controller.

So a controller that was killed meanwhile finds it there, and a result is neither lost nor computed twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpcgen.errors import UsageError

State = Literal["done", "failed", "again", "stopped", "sick"]
FILE = "outcome.json"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        state: `done`; `failed`, for good; `again`, another attempt may help; `stopped`, told to, and the next attempt
            goes on from there; `sick`, the surroundings are at fault (program not found, disk full), not the task.
        kind: of what went wrong, a short kebab-case word; empty if `done`.
        message: one sentence for a person.
        progress: `stopped` only: whether the next attempt has less to do than this one had.
        result: what the caller of the controller wants to know, JSON.
    """

    state: State
    kind: str = ""
    message: str = ""
    progress: bool = True
    result: dict[str, Any] = field(default_factory=dict)


class Control:
    """What a program asks while it works: must it stop, and until when does it have time?"""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.deadline = float("inf")

    def stop(self, seconds: float) -> None:
        """Ask the program to stop, within so many seconds from now."""
        self.deadline = min(self.deadline, time.time() + seconds)
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether the program was asked to stop."""
        return self._stop.is_set()

    @property
    def seconds_left(self) -> float:
        """Time until the attempt is killed; infinite if nobody asked."""
        return self.deadline - time.time()


def attempt_folder(root: Path, task: str, attempt: int) -> Path:
    """`ROOT/<task>/<attempt>`.

    Raises:
        UsageError: if the id of the task is no plain name.
    """
    if not _SAFE.fullmatch(task):
        raise UsageError(f"the task {task!r} cannot be the name of a folder", expected="letters, digits, _ and -")
    return root / task / f"{attempt:02d}"


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Store it: complete or not at all.

    Raises:
        OSError: if the disk is full.
    """
    body = json.dumps(outcome.__dict__, sort_keys=True)
    temporary = folder / f"{FILE}.tmp"
    with temporary.open("w", encoding="utf-8") as out:
        out.write(f"{digest(body)} {body}\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(folder / FILE)


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of an attempt, or None if there is none or it is damaged."""
    try:
        stored, _, body = (folder / FILE).read_text(encoding="utf-8").strip().partition(" ")
        return Outcome(**json.loads(body)) if stored == digest(body) else None
    except (OSError, ValueError, TypeError):
        return None


def digest(text: str) -> str:
    """16 hexadecimal digits of a text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
