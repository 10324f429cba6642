"""Start the training processes of one node, as `hpcgen run` does.

    python -m hpcgen.train.local N COMMAND...

torchrun would do but for signals: it dies of SIGUSR1 and leaves its processes behind, and turns their exit codes,
that for a requeue among them, into 1.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE = 10.0  # seconds in which the others may end by themselves when one has failed


def run(processes: int, command: Sequence[str]) -> int:
    """Run a command as so many processes that find each other; SIGTERM and SIGUSR1 reach each of them as SIGUSR1.

    Returns:
        0, or the exit code of the first that failed, after which the others are ended.
    """
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    sizes = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(*_: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGUSR1)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    try:
        for rank in range(processes):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(subprocess.Popen(command, env=os.environ | meeting | sizes | place))
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, or one has failed and the others have had their time."""
    first, deadline = 0, float("inf")
    while time.monotonic() < deadline:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed and not first:
            first, deadline = failed[0], time.monotonic() + GRACE
        if None not in codes:
            break
        time.sleep(0.05)
    return first if first >= 0 else 128 - first


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
