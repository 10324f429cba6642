"""The process of a slot: `python -m hpcgen.slots.worker MODULE:FUNCTION`, started by the controller.

It reads messages from its standard input, a JSON object a line: {"do": order}, {"stop": seconds}, {"leave": true}.
On its standard output it says {"ready": true} once it can work, and answers {"task", "attempt", "outcome"}. When the
pipe closes its controller is dead: then it ends what it has started and itself, so that nobody computes what nobody
waits for.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from hpcgen.slots.outcome import Control, Outcome, write_outcome
from hpcgen.slots.process import end_processes, tree

Program = Callable[[dict[str, Any], Control], Outcome]
GRACE = 30.0  # seconds that a program has after SIGTERM


def main(target: str) -> int:
    """Do what the controller says until it says to leave."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what programs print goes to the log
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the controller decides
    control = Control()
    signal.signal(signal.SIGTERM, lambda *_: control.stop(GRACE))
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(sys.stdin.buffer, orders, control), daemon=True)
    listener.start()
    module, _, name = target.partition(":")
    program: Program = getattr(import_module(module), name)
    try:
        answers.write(json.dumps({"ready": True}) + "\n")
        answers.flush()
        while (order := orders.get()) is not None:
            outcome = attempt(program, order, control)
            short = {key: value for key, value in outcome.__dict__.items() if key != "result"}
            answers.write(json.dumps({"task": order["task"], "attempt": order["attempt"], "outcome": short}) + "\n")
            answers.flush()
    except BrokenPipeError:
        listener.join()  # the controller is gone: the listener ends what was started, and then this process
    return 0


def attempt(program: Program, order: dict[str, Any], control: Control) -> Outcome:
    """Run the program in the order's folder, and store what it came to."""
    folder = Path(order["folder"])
    try:
        outcome = program(order, control)
    except OSError as error:
        outcome = Outcome(
            "sick",
            "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "system",
            f"{type(error).__name__}: {error}",
        )
    except Exception as error:  # a bug of ours: the task is not lost, the traceback stands in its folder
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        outcome = Outcome("again", "internal-error", f"{type(error).__name__}: {error}", result={"traceback": text})
    try:
        write_outcome(folder, outcome)
    except OSError as error:
        return Outcome("sick", "disk-full", f"the outcome ({outcome.state} {outcome.kind}) cannot be stored: {error}")
    return outcome


def _listen(source: BinaryIO, orders: queue.SimpleQueue[dict[str, Any] | None], control: Control) -> None:
    for line in source:
        message = json.loads(line)
        if "do" in message:
            orders.put(message["do"])
        elif "stop" in message:
            control.stop(message["stop"])
        else:
            orders.put(None)
            return
    control.stop(0.0)  # so that the program begins nothing new
    for _ in range(2):
        end_processes(tree(os.getpid())[1:])
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
