"""Runs a farm of toy tasks: `farm_driver.py FOLDER TASKS [MODE]`. Started by the tests, alone or by mpiexec.

A task sleeps for a time that varies by a factor of 40, leaves a line in FOLDER/log (so that tests see what was
computed, and where), and returns a `Candidate` drawn from its own id, or a `Failure` for every tenth.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from hpcgen import farm, store
from hpcgen.config import FarmConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure, HpcgenError
from hpcgen.flow import Candidate, make_id, seed_of


def main() -> None:
    folder, tasks = Path(sys.argv[1]), int(sys.argv[2])
    mode = sys.argv[3] if len(sys.argv) > 3 else ""
    world = farm.world()
    ids = [make_id("farm", "sample", i) for i in range(tasks)]
    if mode == "other-tasks" and world.rank == 1:
        ids[0] = make_id("farm", "sample", tasks)
    scale = {"slow": 0.05, "empty": 0.0}.get(mode, 0.002)
    costs = np.array([scale * (1 + (37 * i) % 40) / 20 for i in range(tasks)])
    (folder / f"pid-{os.getpid()}").write_text(str(world.rank))

    def work(index: int) -> Candidate | Failure:
        identity = ids[index]
        if mode != "empty":
            time.sleep(costs[index])
            with (folder / "log").open("a") as log:
                log.write(f"{identity} {world.rank}\n")
        if mode == "raises" and index == tasks // 2:
            raise ZeroDivisionError("a bug in a task")
        if index % 10 == 3:
            return Failure(identity, "toy", "toy-failure", f"task {index}")
        rng = np.random.default_rng(seed_of(0, identity))
        n = index % 4 + 1
        crystal = Crystal(4 * np.eye(3) + rng.random((3, 3)), rng.random((n, 3)), rng.integers(1, 90, n))
        seconds = time.monotonic()  # volatile: differs from run to run
        return Candidate(
            make_id("farm", "toy", index), crystal, identity, "toy", rng.random(), index, "budget", 1.0, "", seconds
        )

    config = FarmConfig(chunk_seconds=0.2, log_interval=0.2)
    began = time.perf_counter()
    result = farm.run(ids, costs, work, Candidate, shards=folder / "shards", config=config, label="toy")
    if result is not None:
        seconds = time.perf_counter() - began
        failures = result.failures
        store.write(folder / "out.h5", Candidate, result.records, failures=failures, attrs={"resumed": result.resumed})
        print(f"{seconds:.3f} s, {1e6 * seconds / max(tasks, 1):.0f} us a task, busy {np.round(result.busy, 2)}")
        farm.finish(folder / "shards")


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
