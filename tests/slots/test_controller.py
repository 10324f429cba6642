"""The controller: every task once, whatever slots and controllers die of, and nobody else's processes are touched."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpcgen.errors import LaunchError, StoreError
from hpcgen.slots import Controller, SlotSettings, Summary, read_outcome, standings
from hpcgen.slots.budget import job_end
from hpcgen.slots.ledger import events

HERE = Path(__file__).resolve().parent
DRIVER = """
import sys
from pathlib import Path
from test_controller import control
seconds = float(sys.argv[2])
summary = control(Path(sys.argv[1]), {f"t{i}": {"seconds": seconds} for i in range(int(sys.argv[3]))}, n=8)
print(summary)
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def control(
    root: Path,
    tasks: dict[str, dict[str, Any]],
    stopping=lambda: False,
    first: Sequence[str] = (),
    rules: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Summary:
    """Run tasks, each with what its program is told; at first only some of them. `rules`: `then`, `in_vain`."""
    root.mkdir(parents=True, exist_ok=True)
    options = {"n": 2, "shortest": 0.0, "reserve": 1.0, "free": 0, "grace": 5.0} | settings
    controller = Controller(
        root, "slot_program:run", lambda task: tasks[task], SlotSettings(**options), "0-of-1", stopping, **(rules or {})
    )
    return controller.run(first or [*tasks])


def done_once(root: Path, n: int) -> None:
    """Each of `n` tasks has exactly one result."""
    ends = Counter(e["task"] for e in events(root) if e["event"] == "end" and e["state"] == "done")
    found = standings(root)
    assert len(found) == n
    assert all(s.state == "done" for s in found.values())
    assert set(ends.values()) <= {1}
    for task, s in found.items():
        outcome = read_outcome(root / task / f"{s.result:02d}")
        assert outcome is not None
        assert outcome.result["answer"] == task
        # an attempt that was stopped on the way has an outcome too, which says so
        outcomes = [read_outcome(attempt) for attempt in (root / task).iterdir()]
        assert sum(o is not None and o.state == "done" for o in outcomes) == 1


def test_what_goes_wrong_in_one_slot_stays_there(tmp_path: Path) -> None:
    tasks: dict[str, dict[str, Any]] = {f"good{i}": {"seconds": 0.05} for i in range(4)}
    tasks |= {
        "dies": {"fault": "die", "times": 1},
        "deadly": {"fault": "die"},
        "raises": {"fault": "raise"},
        "fails": {"fault": "fail"},
        "sick": {"fault": "sick"},
    }
    summary = control(tmp_path, tasks)
    assert (summary.done, summary.failed, summary.left) == (5, 4, 0)
    found = standings(tmp_path)
    assert {t: found[t].kind for t in ("deadly", "raises", "fails", "sick")} == {
        "deadly": "slot-died", "raises": "internal-error", "fails": "hopeless", "sick": "never-started",
    }  # fmt: skip
    assert {t: found[t].last for t in ("dies", "deadly", "raises", "fails", "good0")} == {
        "dies": 2, "deadly": 3, "raises": 3, "fails": 1, "good0": 1,
    }  # fmt: skip
    again = control(tmp_path, tasks)
    assert (again.done, again.failed) == (5, 4)
    assert sum(1 for _ in events(tmp_path)) == sum(2 * s.last for s in found.values()), "nothing was done again"
    more = control(tmp_path, {"deadly": {}, "fails": {}}, attempts=4)
    assert (more.done, more.failed) == (1, 1), "another attempt was allowed, and what failed for good stays so"


def test_what_follows_from_a_task_is_done_after_it(tmp_path: Path) -> None:
    """Also when it was done in an earlier run; and what has become vain is not begun."""
    tasks: dict[str, dict[str, Any]] = {name: {} for name in ("a", "b", "a1", "a2", "b1", "b2", "b3")}
    tasks["b2"] = {"fault": "fail"}
    follow = {"a": ["a1", "a2"], "b": ["b2", "b1", "b3"]}
    asked: list[str] = []

    def then(task: str) -> list[str]:
        asked.append(task)
        return follow.get(task, [])

    rules = {"then": then, "in_vain": lambda task: follow["b"] if task in follow["b"] else []}
    summary = control(tmp_path, tasks, first=["a"], rules={"then": lambda task: ["a1"] if task == "a" else []})
    assert (summary.done, summary.left) == (2, 0)
    asked.clear()
    summary = control(tmp_path, tasks, first=["a", "b"], rules=rules, n=1)
    assert (summary.done, summary.failed, summary.left) == (4, 1, 0)
    assert sorted(asked) == ["a", "a1", "a2", "b"]
    found = standings(tmp_path)
    assert {task: (s.state, s.last) for task, s in found.items()} == {
        "a": ("done", 1), "a1": ("done", 1), "a2": ("done", 1), "b": ("done", 1), "b2": ("failed", 1),
    }  # fmt: skip
    again = control(tmp_path, tasks, first=["a", "b"], rules=rules)
    assert (again.done, again.failed, again.left) == (4, 1, 0)
    assert sum(1 for _ in events(tmp_path)) == 10, "nothing was begun again, nor what is in vain"


def test_killing_one_slot_touches_no_other(tmp_path: Path) -> None:
    """The slot is killed from outside, like by the memory killer; what it started in another session goes with it."""
    tasks = {"victim": {"seconds": 2.0, "fault": "hold", "times": 1}, "neighbour": {"seconds": 2.0}}
    seen: dict[str, int] = {}

    def kill() -> None:
        files = [tmp_path / "victim/01/child", tmp_path / "neighbour/01/pid"]
        while not all(f.exists() and f.read_text() for f in files):
            time.sleep(0.02)
        seen["child"], seen["neighbour"] = (int(f.read_text()) for f in files)
        seen["victim"] = int((tmp_path / "victim/01/pid").read_text())
        os.kill(seen["victim"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = control(tmp_path, tasks)
    killer.join()
    assert (summary.done, summary.failed) == (2, 0)
    found = standings(tmp_path)
    assert (found["victim"].last, found["neighbour"].last) == (2, 1)
    neighbour = read_outcome(tmp_path / "neighbour/01")
    assert neighbour is not None
    assert neighbour.result["pid"] == seen["neighbour"], "the neighbour's process lived through it"
    assert not psutil.pid_exists(seen["child"])


def test_a_program_that_never_starts_ends_the_run_and_gives_up_no_task(tmp_path: Path) -> None:
    tasks = {f"t{i}": {"fault": "sick"} for i in range(6)}
    with pytest.raises(LaunchError, match="3 attempts in a row could not even start"):
        control(tmp_path, tasks, n=1)
    assert all(s.attempts == 0 for s in standings(tmp_path).values())
    assert control(tmp_path, {task: {} for task in tasks}).done == 6


def test_slots_that_never_come_up_are_not_the_tasks_fault(tmp_path: Path) -> None:
    """A wrapper that fails (srun without an allocation), and one that is not there at all."""
    tasks: dict[str, dict[str, Any]] = {f"t{i}": {} for i in range(4)}
    with pytest.raises(LaunchError, match=r"ended with code 1 before it could work; .*slot-0-of-1-0\.log may say why"):
        control(tmp_path, tasks, n=1, wrapper=("/bin/sh", "-c", "echo no allocation >&2; exit 1"))
    assert "no allocation" in (tmp_path / "slots/slot-0-of-1-0.log").read_text()
    assert {(s.attempts, s.kind) for s in standings(tmp_path).values()} == {(0, "slot-never-started")}
    with pytest.raises(LaunchError, match="slots cannot be started by 'no-such-wrapper'"):
        control(tmp_path, tasks, wrapper=("no-such-wrapper",))
    assert control(tmp_path, tasks, wrapper=("env", "SLOT={slot}")).done == 4


def test_no_task_begins_on_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="GB are free"):
        control(tmp_path, {"a": {}}, free=1 << 60)
    assert not standings(tmp_path)


def test_the_end_of_the_time_stops_programs_and_begins_no_other(tmp_path: Path) -> None:
    tasks: dict[str, dict[str, Any]] = {f"t{i}": {"seconds": 60.0} for i in range(4)}
    start = time.monotonic()
    summary = control(tmp_path, tasks, end=time.time() + 4.0, reserve=2.0)
    assert time.monotonic() - start < 20.0
    assert (summary.done, summary.left) == (0, 4)
    assert "time" in summary.why
    found = standings(tmp_path)
    assert {s.kind for s in found.values()} == {"out-of-time"}
    assert len(found) == 2, "the other two were not begun"
    assert all(s.attempts == 0 for s in found.values())
    assert control(tmp_path, {task: {} for task in tasks}).done == 4


@pytest.mark.slow
def test_stops_without_progress_end_as_a_failure(tmp_path: Path) -> None:
    tasks = {"slow": {"seconds": 60.0, "progress": False}}
    for _ in range(2):
        assert control(tmp_path, tasks, end=time.time() + 2.0, attempts=2).left <= 1
    assert standings(tmp_path)["slow"].attempts == 2
    assert control(tmp_path, tasks, attempts=2).failed == 1


def test_a_signal_stops_programs_and_a_deaf_one_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcgen.slots.controller.LATE", 1.0)
    begun = time.monotonic()
    tasks = {"hears": {"seconds": 600.0}, "deaf": {"seconds": 600.0, "fault": "deaf"}}
    summary = control(tmp_path, tasks, lambda: time.monotonic() > begun + 2.0, grace=0.5)
    assert summary.left == 2
    assert "signal" in summary.why
    assert standings(tmp_path)["deaf"].kind == "did-not-stop"
    assert standings(tmp_path)["deaf"].attempts == 0


def _chaos(root: Path, kills: int, tasks: int, seconds: float, seed: int) -> None:
    draw = random.Random(seed)
    command = [sys.executable, "-c", DRIVER, str(root), str(seconds), str(tasks)]
    for _ in range(kills):
        before = sum(1 for _ in events(root))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and sum(1 for _ in events(root)) == before:
                time.sleep(0.05)  # so that it is killed at work, and not while Python starts
            time.sleep(draw.uniform(0.0, 1.0))
            process.kill()
    end = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert f"done={tasks}" in end.stdout
    done_once(root, tasks)
    assert all(s.attempts == 0 for s in standings(root).values()), "kills from outside count against nobody"


def test_kills_of_the_controller_lose_and_double_nothing(tmp_path: Path) -> None:
    _chaos(tmp_path, kills=2, tasks=12, seconds=0.1, seed=1)


@pytest.mark.slow
def test_twenty_kills_of_the_controller(tmp_path: Path) -> None:
    _chaos(tmp_path, kills=20, tasks=150, seconds=0.2, seed=2)


def test_the_slots_die_with_their_controller(tmp_path: Path) -> None:
    driver = DRIVER.replace('{"seconds": seconds}', '{"seconds": seconds, "fault": "hold"}')
    process = subprocess.Popen([sys.executable, "-c", driver, str(tmp_path), "600", "2"])
    files = [tmp_path / f"t{i}/01/{name}" for i in range(2) for name in ("pid", "child")]
    deadline = time.monotonic() + 60
    while not all(f.exists() and f.read_text() for f in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    pids = [int(f.read_text()) for f in files]
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_the_end_of_the_job() -> None:
    assert job_end(None, {}) is None
    assert job_end(None, {"SLURM_JOB_END_TIME": "1900000000"}) == 1.9e9
    assert job_end(60.0, {"SLURM_JOB_END_TIME": "1"}) == pytest.approx(time.time() + 60, abs=5)
