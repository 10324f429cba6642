"""What was in hand when its process died is run in a process of its own, watched by a rank.

The process is the same program again, without MPI, told by the environment which tasks to do and where to write the
results. So nothing of the program's state has to be copied, and it works with CUDA and with threads. If it dies while
its rank lives, the task is to blame, and nobody else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgen import store
from hpcgen.errors import DeviceFailure, Failure, HpcgenError
from hpcgen.farm.lock import SOLO
from hpcgen.farm.world import LAUNCHERS
from hpcgen.store.shards import PART

START_SECONDS = 600.0  # for imports and kernels on a slow file system, before the task begins
EXIT_DEVICE = 86  # the accelerator failed: as good as a death
TAIL = 1500  # characters of its messages that are kept
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """What a process of its own is asked to do."""

    label: str
    tasks: list[str]
    output: Path
    parent: int

    def to_json(self) -> str:
        """As it stands in the environment."""
        return json.dumps({**self.__dict__, "output": str(self.output)})


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        results: the record or Failure of each task, empty if there are none.
        died: how the process died, empty if it did not.
        overdue: whether it was ended because it exceeded the limit.
        error: what it said if it ended with an error.
    """

    results: Sequence[Any] = ()
    died: str = ""
    overdue: bool = False
    error: str = ""


def order_received(label: str) -> Order | None:
    """The order, if this process was started to do one task, or one group of tasks, of the farm `label`."""
    text = os.environ.get(SOLO)
    if not text:
        return None
    fields = json.loads(text)
    order = Order(fields["label"], fields["tasks"], Path(fields["output"]), int(fields["parent"]))
    return order if order.label == label else None


def obey(
    order: Order,
    members: list[int],
    work: Callable[[list[int]], Sequence[Any]],
    record_type: type,
    name_of: Callable[[int], str] | None,
) -> None:
    """Do the task or group and end this process.

    Raises:
        SystemExit: always, with code 0 where the results are written.
    """
    _die_with_parent(order.parent)
    names = dict(zip(members, order.tasks, strict=True))

    def results_of(members: list[int]) -> Sequence[Any]:
        try:
            return work(members)
        except (DeviceFailure, HpcgenError):
            raise
        except Exception as error:
            if len(members) == 1:
                name = name_of(members[0]) if name_of else names[members[0]]
                return [raised(name, order.label, error)]
        return [results_of([member])[0] for member in members]

    writer = store.ShardWriter(order.output, record_type)  # its file tells the rank that the task begins
    try:
        results = results_of(members)
    except DeviceFailure as error:
        print(f"the device failed: {error}", file=sys.stderr)
        raise SystemExit(EXIT_DEVICE) from None
    for task, result in zip(order.tasks, results, strict=True):
        writer.append(result, task)
    writer.seal()
    raise SystemExit(0)


def raised(name: str, label: str, error: Exception) -> Failure:
    """What a task that raises is stored as."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return Failure(name, label, "internal-error", message)


def run_alone(
    label: str, tasks: list[str], output: Path, record_type: type, limit: float, stop: Callable[[], bool]
) -> Outcome:
    """Run one task, or one group, in a process of its own and wait for it.

    Args:
        label: of the farm.
        tasks: ids.
        output: where the process writes its results; removed afterwards.
        record_type: of the results.
        limit: seconds that it may take.
        stop: asked again and again; if true, the process is ended and the outcome is empty.
    """
    order = Order(label, tasks, output, os.getpid())
    environment = {k: v for k, v in os.environ.items() if not k.startswith((*LAUNCHERS, "SLURM_"))}
    environment |= {SOLO: order.to_json(), "PYTHONFAULTHANDLER": "1"}
    _remove(output)
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, *sys.orig_argv[1:]]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        deadline, begun = time.monotonic() + START_SECONDS, False
        try:
            while process.poll() is None:
                if stop():
                    return Outcome()
                if not begun and _part(output).exists():
                    deadline, begun = time.monotonic() + limit, True
                if time.monotonic() > deadline:
                    late = f"did not begin within {START_SECONDS:.0f} s"
                    return Outcome(overdue=begun, error="" if begun else late)
                time.sleep(0.02)
            code = process.returncode
            said.seek(0)
            text = said.read().decode("utf-8", "replace").strip()[-TAIL:]
            if code < 0:
                return Outcome(died=f"signal {signal.Signals(-code).name}", error=text)
            if code == EXIT_DEVICE:
                return Outcome(died="failure of its device", error=text)
            found = dict(store.read_shard(output, record_type)) if output.exists() else {}
            if code != 0 or len(found) < len(tasks):
                return Outcome(error=text or f"exit code {code} without a result")
            return Outcome(results=[found[task] for task in tasks])
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            _remove(output)


def _remove(output: Path) -> None:
    for path in (output, _part(output)):
        path.unlink(missing_ok=True)


def _part(output: Path) -> Path:
    return output.with_name(output.name + PART)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process with its parent, so that a killed job leaves nothing running (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
