"""Runs a farm of toy tasks: `farm_driver.py FOLDER TASKS [MODE]`. Started by the tests, alone or by mpiexec.

With GROUP=n in the environment, the tasks are done in groups of n.

A task sleeps for a time that varies by a factor of 40, leaves a line in FOLDER/log (so that tests see what was
computed, and where), and returns a `Candidate` drawn from its own id, or a `Failure` for every tenth.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from hpcgen import farm
from hpcgen.config import FarmConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import DeviceFailure, Failure, HpcgenError, StoreError
from hpcgen.farm.world import end_all
from hpcgen.flow import Candidate, make_id, seed_of

KILLERS = (50, 70)
MISBEHAVE = 60


def misbehave(mode: str, index: int, rank: int) -> None:
    """What goes wrong in some tasks, or on some ranks."""
    if mode == "killers" and index in KILLERS:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "segfault" and index == MISBEHAVE:
        ctypes.string_at(0)
    if mode == "hangs" and index == MISBEHAVE:
        time.sleep(1000)
    if mode == "hangs-natively" and index == MISBEHAVE:
        sum(range(10**12))  # one C loop of hours, in which no signal handler of Python can run
    if (mode == "raises" and index == MISBEHAVE) or mode == "all-raise":
        raise ZeroDivisionError("a bug in a task")
    if (mode == "one-device-fails" and rank == 1) or mode == "all-devices-fail":
        raise DeviceFailure("CUDA error: unspecified launch failure")
    if mode == "task-breaks-devices" and index == MISBEHAVE:
        raise DeviceFailure("CUDA error: illegal memory access")
    if mode == "slow-once" and index == MISBEHAVE and not os.environ.get("HURRY"):
        time.sleep(60)


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
        misbehave(mode, index, world.rank)
        time.sleep(costs[index])
        with (folder / "log").open("a") as log:
            log.write(f"{identity} {world.rank}\n")
        if index % 10 == 3:
            return Failure(identity, "toy", "toy-failure", f"task {index}")
        rng = np.random.default_rng(seed_of(0, identity))
        n = index % 4 + 1
        crystal = Crystal(4 * np.eye(3) + rng.random((3, 3)), rng.random((n, 3)), rng.integers(1, 90, n))
        seconds = time.monotonic()  # volatile: differs from run to run
        blocks = rng.random(2)
        return Candidate(
            make_id("farm", "toy", index),
            crystal,
            identity,
            "toy",
            rng.random(),
            index,
            "budget",
            1.0,
            repair="",
            cell_strain=0.0,
            symmetry="",
            match_probability=1.0,
            residual_blocks=blocks,
            seconds=seconds,
        )

    def deliver(result: farm.FarmResult) -> int:
        if mode == "leader-dies" and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        result.write(folder / "out.h5", header={}, attrs={"resumed": result.resumed})
        return result.tasks

    limit = 1.0 if mode.startswith("hangs") else 60.0
    config = FarmConfig(chunk_seconds=0.2, log_interval=0.2, task_limit=limit, grace=0.5)
    shards = folder / "shards"
    options = {"shards": shards, "config": config, "label": "toy", "deliver": deliver}
    if size := int(os.environ.get("GROUP", "0")):

        def work_all(members: list[int]) -> list[Candidate | Failure]:
            return [work(member) for member in members]

        groups = [range(start, min(start + size, tasks)) for start in range(0, tasks, size)]
        done = farm.run(ids, costs, work_all, Candidate, groups=groups, **options)
    else:
        done = farm.run(ids, costs, work, Candidate, **options)
    if mode == "fails-afterwards" and done is not None:
        raise StoreError("stages.json cannot be written")
    if done is not None:
        print(f"delivered {done} tasks")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    try:
        main()
    except HpcgenError as error:
        sys.exit(end_all(error, str(error), error.exit_code))
