"""Processes of slots: how they begin, and how they end with everything they started. Nothing is ever killed by name.

What a slot starts inherits its variable `TOKEN`, by which its leftovers are found even if the slot itself was killed
and they belong to init now. Linux only, on this host: what srun started elsewhere ends with its srun.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hpcgen.errors import LaunchError
from hpcgen.farm.world import without_launcher
from hpcgen.slots.outcome import digest

TOKEN = "HPCGEN_SLOT"
PATIENCE = 5.0  # seconds between asking processes to end and killing them


class SlotProcess:
    """A worker in a session of its own, and the pipes to it.

    Attributes:
        ready: whether it has said that it can work; one that dies before is no fault of its task.
        log: where it writes what it has to say to people.

    Raises:
        LaunchError: if there is no program of the wrapper's first word.
    """

    def __init__(self, root: Path, shard: str, slot: int, program: str, wrapper: Sequence[str]) -> None:
        self.token = f"{family(root, shard)}-{slot}-{secrets.token_hex(4)}"
        logs = root / "slots"
        logs.mkdir(exist_ok=True)
        words = [word.replace("{slot}", str(slot)) for word in wrapper]
        self.log = logs / f"slot-{shard}-{slot}.log"
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    [*words, sys.executable, "-m", "hpcgen.slots.worker", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=without_launcher(os.environ) | {TOKEN: self.token},
                )
            except OSError as error:
                raise LaunchError(
                    f"slots cannot be started by {[*words, sys.executable][0]!r}: {error.strerror}",
                    expected="words before the process of a slot that start it (slots.wrapper), or none",
                    remedy="correct slots.wrapper, or load the module that brings it",
                ) from None
        self.ready = False
        self.heard = b""

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; a worker that is dead does not hear it, which `hear` will find out."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> list[dict[str, Any]] | None:
        """Complete messages that have come; None if the worker is gone."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1.0)  # here, as psutil would keep its exit code to itself
            return None
        *lines, self.heard = (self.heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """End the worker, if it lives, and all that it started. Its exit code."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        end_processes(tree(self.process.pid) + marked(self.token))
        end_processes(marked(self.token))  # what began in that moment
        return self.process.wait()


def family(root: Path, shard: str) -> str:
    """What the tokens of all slots of a controller begin with, before and after a restart."""
    return digest(f"{root.resolve()}/{shard}")


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, in whatever session they are."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def marked(token: str) -> list[psutil.Process]:
    """Processes of this host whose variable `TOKEN` begins so; those of other users cannot be seen."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN, "").startswith(token):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL for those still there after `PATIENCE`; never for a later process of the same number."""
    unique = {p.pid: p for p in processes if p.pid != os.getpid()}
    for process in unique.values():
        _ask(process.terminate)
    deadline = time.monotonic() + PATIENCE
    _, alive = psutil.wait_procs([*unique.values()], timeout=max(deadline - time.monotonic(), 0))
    for process in alive:
        _ask(process.kill)
    psutil.wait_procs(alive, timeout=PATIENCE)


def _ask(action: Any) -> None:
    with suppress(psutil.Error):
        action()
