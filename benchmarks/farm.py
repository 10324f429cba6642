"""How well the farm keeps its ranks busy, and what a task costs beside its own time.

    python benchmarks/farm.py --ranks 16 --tasks 3200 --task-ms 100 --heavy-tail
    python benchmarks/farm.py --ranks 4 --tasks 1000000 --task-ms 0
    python benchmarks/farm.py --ranks 4 --tasks 20000 --task-ms 0 --chunk 1 --compare-futures
    python benchmarks/farm.py --ranks 2 --tasks 50000 --task-ms 0 --store

Starts itself on R ranks of this host with mpiexec. Tasks sleep: all T milliseconds, or with `--heavy-tail` lognormal
(sigma 1) with mean T; T = 0 makes them empty. The cost that the farm is told is the duration times a lognormal error
(sigma 0.3), so that the schedule knows no more than a cost model does. All R ranks work, rank 0 too.

wall                  from the begin of the first task to the end of the last, over all ranks
efficiency            sum of the times asked for / (R x wall); null for empty tasks
overhead_us_per_task  (wall - that sum / R) / M, in microseconds
rank0_rss_mb          peak resident memory of rank 0, in MB
records_per_s         with --store: committed records per second and rank, until the last shard is sealed, each
                      task making a Candidate of 10 atoms; null without
futures_us_per_task, futures_chunk50_us_per_task
                      with --compare-futures: wall / M of mpi4py.futures with the same number of empty tasks on the
                      same ranks, one task or 50 a message, the workers started beforehand

Without `--store` nothing is stored and scheduling alone is measured. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from farm_program import durations
from launching import environment, mpiexec

PROGRAM = Path(__file__).with_name("farm_program.py")


def main() -> None:
    """Start the ranks, collect their figures, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True, help="published figures: at least 100 a rank")
    parser.add_argument("--task-ms", type=float, required=True, help="mean duration of a task; 0: empty tasks")
    parser.add_argument("--heavy-tail", action="store_true", help="lognormal durations, sigma 1")
    parser.add_argument("--store", action="store_true", help="every task commits a record (in $TMPDIR)")
    parser.add_argument("--chunk", choices=("auto", "1"), default="auto", help="1: every task is handed out alone")
    parser.add_argument("--compare-futures", action="store_true", help="run mpi4py.futures too; needs --task-ms 0")
    parser.add_argument("--launcher-option", action="append", default=[], metavar="OPTION", help="handed to mpiexec")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.ranks < 1 or args.tasks < 1 or args.task_ms < 0:
        parser.error("--ranks and --tasks must be at least 1, --task-ms at least 0")
    if args.compare_futures and (args.task_ms or args.store):
        parser.error("--compare-futures measures empty tasks that store nothing: --task-ms 0, without --store")
    if args.compare_futures and args.ranks < 2:
        parser.error("--compare-futures needs --ranks 2 at least: rank 0 of mpi4py.futures does no task")

    shape = ["--tasks", str(args.tasks)]
    options = ["--task-ms", str(args.task_ms), "--chunk", args.chunk, "--seed", str(args.seed)]
    flags = [flag for flag, on in (("--heavy-tail", args.heavy_tail), ("--store", args.store)) if on]
    ranks = launch(args, [*shape, *options, *flags])
    figures = summary(args, ranks)
    if args.compare_futures:
        for key, chunk in (("futures_us_per_task", 1), ("futures_chunk50_us_per_task", 50)):
            (master,) = launch(args, [*shape, "--futures", str(chunk)])
            figures[key] = round(1e6 * (master["last"] - master["first"]) / args.tasks, 2)
            print(f"mpi4py.futures, {chunk} a message: {figures[key]} us a task")
    print(json.dumps(figures))


def launch(args: argparse.Namespace, arguments: list[str]) -> list[dict[str, Any]]:
    """Run the program on all ranks; the figures of those that left some, by rank.

    Raises:
        SystemExit: with the program's exit code, if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="farm-") as name:
        folder = Path(name)
        command = [*mpiexec(args.ranks, args.launcher_option), sys.executable, str(PROGRAM), name, *arguments]
        code = subprocess.run(command, env=environment(folder)).returncode
        if code:
            print(f"the ranks ended with exit code {code}: {' '.join(command)}", file=sys.stderr)
            raise SystemExit(code)
        files = [folder / f"rank-{rank}.json" for rank in range(args.ranks)]
        return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def summary(args: argparse.Namespace, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one farm, from those of its ranks."""
    worked = [r for r in ranks if r["first"]]
    first = min(r["first"] for r in worked)
    wall = max(r["last"] for r in worked) - first
    asked = float(durations(args.tasks, args.task_ms / 1000, args.heavy_tail, args.seed).sum())
    leader = next(r for r in ranks if "busy" in r)
    busy = leader["busy"]
    print(f"{args.tasks} tasks on {args.ranks} ranks: {asked:.2f} s of task time in {wall:.3f} s")
    print(f"share of its time that a rank spent on tasks and commits: {min(busy):.1%} to {max(busy):.1%}")
    if args.store:
        print(
            f"{leader['records']} records, the last shard sealed {leader['sealed'] - first:.3f} s after the first task"
        )
    return {
        "ranks": args.ranks,
        "tasks": args.tasks,
        "efficiency": round(asked / (args.ranks * wall), 4) if asked else None,
        "overhead_us_per_task": round(1e6 * (wall - asked / args.ranks) / args.tasks, 3),
        "rank0_rss_mb": round(ranks[0]["rss_mb"], 1),
        "records_per_s": round(leader["records"] / args.ranks / (leader["sealed"] - first), 1) if args.store else None,
        "wall_s": round(wall, 4),
        "task_ms": args.task_ms,
        "heavy_tail": args.heavy_tail,
        "chunk": args.chunk,
    }


if __name__ == "__main__":
    main()
