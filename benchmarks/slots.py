"""The controller of slots: overhead per job, memory, and what SIGKILL at random moments costs.

    python benchmarks/slots.py --structures 500 --slots 8 --seconds 0.2
    python benchmarks/slots.py --structures 200 --slots 8 --seconds 0.2 --kills 20 --seed 1
    python benchmarks/slots.py --structures 8 --slots 2 --vasp COMMAND   # through custodian; the tests' stand-in

Without `--vasp` a program that sleeps stands for VASP, so that what is measured is the controller, its ledger and its
slots. `overhead_ms_per_job`: slots x wall time / jobs - seconds; `controller_cpu_ms_per_job` and `controller_rss_mb`
are of the controller's process alone, `slot_rss_mb` of the largest slot. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from hpcgen.slots import Control, Controller, Outcome, SlotSettings, read_outcome, standings
from hpcgen.slots.ledger import events

A = 3.6  # angstrom, copper


def program(order: dict[str, Any], control: Control) -> Outcome:
    """What a slot does without VASP."""
    time.sleep(order["seconds"])
    (Path(order["folder"]) / "output").write_text(order["task"], encoding="utf-8")
    return Outcome("done", result={"task": order["task"]})


def order_of(args: argparse.Namespace, task: str) -> dict[str, Any]:
    if not args.vasp:
        return {"seconds": args.seconds}
    cell = [[0.0, A / 2, A / 2], [A / 2, 0.0, A / 2], [A / 2, A / 2, 0.0]]
    section = {"command": shlex.split(args.vasp), "potcars": False, "poll": 0.1}
    return {"vasp": section, "lattice": cell, "frac": [[0.0, 0.0, 0.0]], "numbers": [29]}


def run_controller(args: argparse.Namespace) -> None:
    """The measured process: prints its own time and memory."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    target = "hpcgen.vasp.task:run" if args.vasp else "slots:program"
    tasks = [f"t{i:06d}" for i in range(args.structures)]
    settings = SlotSettings(n=args.slots, shortest=0.0, free=0)
    largest = [0]

    def watch() -> bool:
        if args.watch:
            sizes = [p.memory_info().rss for p in psutil.Process().children()]
            largest[0] = max([largest[0], *sizes])
        return False

    controller = Controller(args.folder, target, lambda task: order_of(args, task), settings, stopping=watch)
    begin, cpu = time.perf_counter(), time.process_time()
    summary = controller.run(tasks)
    facts = {
        "done": summary.done,
        "wall_s": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "rss_mb": psutil.Process().memory_info().rss / 2**20,
        "slot_rss_mb": largest[0] / 2**20,
    }
    print(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=500)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2, help="that a job sleeps")
    parser.add_argument("--vasp", default="", help="command of VASP or of a stand-in; jobs are then runs of custodian")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILL the controller so often before it may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--watch", action="store_true", help="look at the memory of the slots (costs time)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        run_controller(args)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(root)]
        draw, killed = random.Random(args.seed), 0
        for _ in range(args.kills):
            before = sum(1 for _ in events(root))
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and sum(1 for _ in events(root)) == before:
                    time.sleep(0.05)  # so that it is killed at work, and not while Python starts
                time.sleep(draw.uniform(0.0, 1.5))
                killed += process.poll() is None
                process.kill()
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        facts = json.loads(said.splitlines()[-1])
        print(json.dumps(judge(root, facts, args, killed)))


def judge(root: Path, facts: dict[str, Any], args: argparse.Namespace, killed: int) -> dict[str, Any]:
    """The figures; whether every structure has exactly one result."""
    found, n = standings(root), args.structures
    ends = Counter(e["task"] for e in events(root) if e["event"] == "end" and e["state"] == "done")
    results = {t: sum(read_outcome(p) is not None for p in (root / t).iterdir()) for t in found}
    return {
        "structures": n,
        "slots": args.slots,
        "seconds": args.seconds,
        "wall_s": round(facts["wall_s"], 2),
        "overhead_ms_per_job": round(1e3 * (args.slots * facts["wall_s"] / n - args.seconds), 2)
        if not killed
        else None,
        "controller_cpu_ms_per_job": round(1e3 * facts["cpu_s"] / n, 2) if not killed else None,
        "controller_rss_mb": round(facts["rss_mb"], 1),
        "slot_rss_mb": round(facts["slot_rss_mb"], 1),
        "kills": killed,
        "attempts": sum(s.last for s in found.values()),
        "done": sum(s.state == "done" for s in found.values()),
        "lost": n - len(found) + sum(s.state != "done" for s in found.values()),
        "double": sum(c > 1 for c in ends.values()) + sum(c > 1 for c in results.values()),
    }


if __name__ == "__main__":
    main()
