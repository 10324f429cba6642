"""The program that `benchmarks/farm.py` starts on every rank: sleeping tasks, or empty ones over mpi4py.futures.

    farm_program.py FOLDER --tasks M --task-ms T [--heavy-tail] [--store] [--chunk 1] [--seed S]
    farm_program.py FOLDER --tasks M --futures CHUNK

Every rank leaves its figures in FOLDER/rank-<rank>.json; times are `time.time()`, which the ranks of one host share.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA_TASKS = 1.0  # of the lognormal durations with --heavy-tail
SIGMA_COSTS = 0.3  # of the lognormal error of the cost model: the schedule must not know what it cannot know
ATOMS = 10


def main() -> None:
    """Run one farm, or one pool, and write this rank's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--task-ms", type=float, default=0.0)
    parser.add_argument("--heavy-tail", action="store_true")
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--chunk", choices=("auto", "1"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--futures", type=int, metavar="CHUNK")
    args = parser.parse_args()
    if args.futures:
        run_futures(args.folder, args.tasks, args.futures)
    else:
        run_farm(args)


def durations(tasks: int, mean: float, heavy_tail: bool, seed: int) -> NDArray[np.float64]:
    """(M,) seconds that each task sleeps: all `mean`, or lognormal with that mean."""
    if not heavy_tail:
        return np.full(tasks, mean)
    return mean * np.random.default_rng(seed).lognormal(-(SIGMA_TASKS**2) / 2, SIGMA_TASKS, tasks)


def task_ids(tasks: int) -> NDArray[np.bytes_]:
    """(M,) the task's number as 16 hexadecimal digits, made without a Python object, or an index, per task."""
    octets = np.arange(tasks, dtype=">u8").view(np.uint8).reshape(tasks, 8)
    digits = np.stack([octets >> 4, octets & 15], axis=-1).reshape(tasks, 16)
    digits += np.uint8(ord("0")) + (digits > 9) * np.uint8(ord("a") - ord("0") - 10)
    return digits.view("S16")[:, 0]


def run_farm(args: argparse.Namespace) -> None:
    """All tasks through `farm.run`."""
    from hpcgen import farm
    from hpcgen.config import FarmConfig
    from hpcgen.crystal import Crystal
    from hpcgen.flow import Candidate

    world = farm.world()
    seconds = durations(args.tasks, args.task_ms / 1000, args.heavy_tail, args.seed)
    rng = np.random.default_rng(args.seed + 1)
    # a cost of zero would say that any number of tasks is as good as one
    costs = np.maximum(seconds, 1e-6) * rng.lognormal(0.0, SIGMA_COSTS, args.tasks) if world.rank == 0 else ()
    crystal = Crystal(8 * np.eye(3), rng.random((ATOMS, 3)), rng.integers(1, 90, ATOMS))
    first, last = 0.0, 0.0
    sleeps, store = args.task_ms > 0, args.store
    blocks = np.zeros(2)

    def work(index: int) -> Any:
        nonlocal first, last
        first = first or time.time()
        if sleeps:
            time.sleep(seconds[index])
        name = f"{index:016x}"
        verdict = (0.5, index, "budget", 1.0, "", 0.0, "", 1.0, blocks, 0.0)
        result = Candidate(name, crystal, name, "bench", *verdict) if store else None
        last = time.time()
        return result

    config = FarmConfig(chunk_seconds=1e-9) if args.chunk == "1" else FarmConfig()
    shards = args.folder / "shards" if args.store else None
    result = farm.run(task_ids(args.tasks), costs, work, Candidate, shards=shards, config=config, label="benchmark")
    figures: dict[str, Any] = {"first": first, "last": last, "rss_mb": peak_rss_mb()}
    if result is not None:
        figures |= {"records": result.records if store else 0, "busy": [round(float(b), 4) for b in result.busy]}
        if shards is not None:  # sealed shards: the time of the last write to them is that of the last commit
            figures["sealed"] = max((p.stat().st_mtime for p in shards.glob("shard-*")), default=last)
    write(args.folder, world.rank, figures)


def empty(index: int) -> None:
    """The task that mpi4py.futures gets: nothing."""


def run_futures(folder: Path, tasks: int, chunk: int) -> None:
    """The same number of empty tasks through mpi4py.futures, where rank 0 only hands out."""
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        if executor is not None:
            executor.submit(empty, 0).result()  # the workers are up
            begin = time.time()
            for _ in executor.map(empty, range(tasks), chunksize=chunk, unordered=True):
                pass
            write(folder, 0, {"first": begin, "last": time.time()})


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB (1e6 bytes); not inherited from the launcher."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")


def write(folder: Path, rank: int, figures: dict[str, Any]) -> None:
    """Leave a rank's figures for the benchmark."""
    (folder / f"rank-{rank}.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
