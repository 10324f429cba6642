"""Whether the farm loses, doubles or changes a result, whatever happens to it.

    python benchmarks/chaos.py --rounds 100 --seed 0
    python benchmarks/chaos.py --seed 0 --round 17        # that round alone, keeping its folder

A round makes an empty run folder, starts `chaos_program.py` (alone, under mpiexec, or under mpiexec --with-ft ulfm),
disturbs it, damages its shards between two starts, and starts it again until out.h5 is there. The seed decides what
happens: SIGKILL of a rank (rank 0 every other time), of all processes or of mpiexec only; SIGTERM and SIGUSR1 to
mpiexec or to a rank; a full disk (a tmpfs that this program mounts: needs root); a second start on the same folder; a
shard truncated at a random byte or with random bytes changed; a damaged journal; tasks that kill their process
whenever they run; a task that never ends, in Python or in C. Disturbances come at random times: during launch and
scan, after a part of the tasks, just as a shard grows, and during merge and output.

lost_acknowledged  results that were on disk at a kill, or that the progress lines had counted, and then were gone or
                   computed again, although this benchmark had not damaged them
duplicates         tasks with more than one record or failure in out.h5
result_differs     rounds whose out.h5 is not, by content digest, the file of an undisturbed computation; tasks that
                   kill or hang must be failures of the kinds that the farm gives, and no other task may be
violations         other broken promises: a run that hangs or never completes, a wrong exit code, a second start that
                   is not refused, processes left behind

One line per round; the last line is one JSON object. Exit code 1 if any of these four is not 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from chaos_plan import draw
from chaos_round import DISK_MB, Round

GATES = ("lost_acknowledged", "duplicates", "result_differs", "violations")


def main() -> int:
    """Run the rounds, print a line for each, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=4, help="most ranks of a start")
    parser.add_argument("--tasks", type=int, default=160)
    parser.add_argument("--round", type=int, metavar="K", help="run round K only and keep its folder")
    args = parser.parse_args()
    if args.ranks < 2 or args.tasks < 10 or args.rounds < 1:
        parser.error("--ranks must be at least 2, --tasks at least 10, --rounds at least 1")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that processes and mounts are cleared away
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    mount = can_mount(work)
    if not mount:
        print("full disks are left out: this process may not mount a tmpfs")
    total: Counter[str] = Counter()
    numbers = range(args.rounds) if args.round is None else [args.round]
    for number in numbers:
        one = Round(draw(args.seed, number, args.ranks, args.tasks, mount), args.tasks, work / f"r{number}")
        one.run()
        total += one.counts
        print(f"round {number} {one.line()}", flush=True)
        for text in one.complaints:
            print(f"  round {number} of seed {args.seed}: {text}", flush=True)
        if args.round is None and not one.complaints:
            shutil.rmtree(one.folder)
    bad = sum(total[key] for key in GATES)
    if args.round is None and not bad:
        shutil.rmtree(work)
    else:
        print(f"what was left is in {work}")
    figures = {"rounds": len(numbers)} | {key: total.pop(key, 0) for key in ("kills", "corruptions", *GATES)}
    by_kind = dict(sorted(total.items()))
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({**figures, "seed": args.seed, "seconds": seconds, "full_disks": mount, "by_kind": by_kind}))
    return 1 if bad else 0


def can_mount(work: Path) -> bool:
    """Whether this process may mount a tmpfs."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    place = work / "probe"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True).returncode == 0
    if mounted:
        subprocess.run(["umount", str(place)], check=True)
    place.rmdir()
    return mounted


if __name__ == "__main__":
    sys.exit(main())
