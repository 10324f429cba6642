"""Holds a run folder until it is told to stop: `lock_driver.py FOLDER [HEARTBEAT]`. Started by the tests.

Prints `held` once it has the folder, and `lost` if somebody else has taken it; ends at the end of its input. The exit
code is that of the error, as for hpcgen itself.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from hpcgen.errors import HpcgenError
from hpcgen.farm import lock, lockfile


def main() -> None:
    lockfile.HEARTBEAT = float(sys.argv[2]) if len(sys.argv) > 2 else lockfile.HEARTBEAT
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with lock.hold(Path(sys.argv[1]), "hpcgen toy"):
        print("held", flush=True)
        while not over.is_set():
            if lock.lost():
                print("lost", flush=True)
                lock.check()
            time.sleep(0.02)


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
