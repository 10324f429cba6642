"""What slots do in these tests: wait, write one line, and misbehave when told to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hpcgen.slots import Control, Outcome


def run(order: dict[str, Any], control: Control) -> Outcome:
    folder = Path(order["folder"])
    (folder / "pid").write_text(str(os.getpid()))
    fault = order.get("fault", "") if order["attempt"] <= order.get("times", 99) else ""
    if fault == "die":
        os._exit(9)
    if fault == "raise":
        raise RuntimeError("a bug")
    if fault == "sick":
        return Outcome("sick", "never-started", "no program")
    if fault == "fail":
        return Outcome("failed", "hopeless", "it never will")
    if fault == "hold":  # a grandchild in a session of its own, as srun or mpiexec would start
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (folder / "child").write_text(str(child.pid))
    end = time.monotonic() + order.get("seconds", 0.0)
    while time.monotonic() < end:
        if control.stopping and fault != "deaf":
            return Outcome("stopped", "out-of-time", "told to", progress=order.get("progress", True))
        time.sleep(0.01)
    return Outcome("done", result={"answer": order["task"], "pid": os.getpid()})
