"""The program that `benchmarks/chaos.py` starts and disturbs: a farm of short tasks in a run folder.

    chaos_program.py FOLDER --log FILE --tasks M [--killers I ...] [--hanging I ...] [--max-kills K] [--task-limit S]

Before it does anything else, a task appends a line of `LINE` bytes to the log: its id and the tag of the job that
computes it (the variable CHAOS_JOB). So the benchmark sees every computation, whatever becomes of it.
"""

from __future__ import annotations

import argparse
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
from hpcgen.errors import Failure, HpcgenError, RunFolderError
from hpcgen.farm import lock
from hpcgen.farm.world import end_all
from hpcgen.flow import Candidate, make_id, seed_of

TAG = "CHAOS_JOB"
TAG_LENGTH = 12
LINE = 16 + 1 + TAG_LENGTH + 1
SHORTEST, LONGEST = 0.005, 0.035  # seconds that tasks sleep
LOG_INTERVAL = 0.05


def main() -> None:
    """Hold the run folder, run the farm, write out.h5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--killers", type=int, nargs="*", default=[], help="tasks that kill their process")
    parser.add_argument("--hanging", type=int, nargs="*", default=[], help="tasks that never end, odd ones in C")
    parser.add_argument("--max-kills", type=int, default=3)
    parser.add_argument("--task-limit", type=float, default=60.0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    ids = task_ids(args.tasks)
    seconds = np.random.default_rng(0).uniform(SHORTEST, LONGEST, args.tasks)
    log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    tag = os.environ[TAG]

    def work(index: int) -> Candidate | Failure:
        os.write(log, f"{ids[index]} {tag:<{TAG_LENGTH}}\n".encode("ascii"))
        time.sleep(seconds[index])
        if index in args.killers:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in args.hanging:
            hang(in_c=index % 2 == 1)
        return result_of(index)

    shards, output = args.folder / "shards", args.folder / "out.h5"
    config = FarmConfig(
        chunk_seconds=0.2, log_interval=LOG_INTERVAL, max_kills=args.max_kills, task_limit=args.task_limit
    )
    world = farm.world()
    with lock.hold(args.folder, "chaos", world):
        if world.decide(output.exists()):
            raise RunFolderError(f"{output} is there already")
        farm.run(
            ids,
            seconds,
            work,
            Candidate,
            shards=shards,
            config=config,
            label="chaos",
            deliver=lambda result: result.write(output, header={}, attrs={"tasks": result.tasks}),
            world=world,
        )


def hang(in_c: bool) -> None:
    """Never return; `in_c` in a library that holds Python's lock and heeds no signal: a mutex locked twice."""
    libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    while True:
        if in_c:
            libc.pthread_mutex_lock(mutex)
        else:
            time.sleep(1.0)


def task_ids(tasks: int) -> list[str]:
    """(M) ids of the tasks."""
    return [make_id("chaos", "sample", index) for index in range(tasks)]


def result_of(index: int) -> Candidate | Failure:
    """What task `index` gives, drawn from its id: a Failure for every tenth, else a Candidate of 1 to 10 atoms."""
    identity = make_id("chaos", "sample", index)
    if index % 10 == 3:
        return Failure(identity, "chaos", "chaos-failure", f"task {index} fails by design")
    rng = np.random.default_rng(seed_of(0, identity))
    n = index % 10 + 1
    crystal = Crystal(4 * np.eye(3) + rng.random((3, 3)), rng.random((n, 3)), rng.integers(1, 90, n))
    name = make_id("chaos", "candidate", index)
    residual, blocks = rng.random(), rng.random(2)
    verdict = (residual, index, "budget", 1.0, "", 0.0, "", 1.0, blocks)
    return Candidate(name, crystal, identity, "chaos", *verdict, time.monotonic())


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        sys.exit(end_all(error, str(error), error.exit_code))
