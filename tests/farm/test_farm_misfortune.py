"""What clusters and tasks do to a farm: tasks that kill, hang or raise, ranks and devices that die."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from farm_driver import KILLERS, MISBEHAVE
from farm_runs import TASKS, computed, finish, mpi, run, start, wait_for

from hpcgen import store
from hpcgen.errors import EXIT_REQUEUE, LaunchError, StoreError
from hpcgen.flow import Candidate, make_id

GIVEN = {i for i in range(TASKS) if i % 10 == 3}  # tasks of the driver that fail by themselves


def set_aside(folder: Path) -> dict[str, tuple[str, str]]:
    """Failures of the output that the tasks did not give themselves: id -> (kind, message); the rest is complete."""
    with store.open(folder / "out.h5", Candidate) as f:
        f.verify()
        found = {x.id: (x.kind, x.message) for x in f.failures if x.kind != "toy-failure"}
        lost = {i for i in range(TASKS) if make_id("farm", "sample", i) in found}
        assert f.ids == [make_id("farm", "toy", i) for i in range(TASKS) if i not in GIVEN | lost]
        assert len(f.failures) == len(GIVEN - lost) + len(lost)
    assert not (folder / "shards").exists()
    return found


@mpi
@pytest.mark.parametrize("ranks", [0, 3])
def test_a_task_that_kills_its_process_costs_one_death_and_is_set_aside(tmp_path: Path, ranks: int) -> None:
    starts = 0
    while (outcome := run(tmp_path, ranks, "killers"))[0] != 0:
        starts += 1
        assert starts <= len(KILLERS), outcome[1]
    found = set_aside(tmp_path)
    assert set(found) == {make_id("farm", "sample", i) for i in KILLERS}
    for kind, message in found.values():
        assert kind == "killed-its-process"
        assert "killed 3 processes, the last, which ran nothing else, by signal SIGKILL" in message


def test_no_number_of_kills_from_outside_sets_a_task_aside(tmp_path: Path, alone: str) -> None:
    begun = make_id("farm", "sample", MISBEHAVE).encode()
    for _ in range(4):  # more than farm.max_kills
        process = start(tmp_path, 0, "slow-once")
        wait_for(lambda: any(begun in path.read_bytes()[-17:] for path in tmp_path.glob("shards/attempts-*")))
        process.kill()
        finish(process)
    code, text = run(tmp_path, 0, "slow-once", HURRY="1")
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
@pytest.mark.parametrize("mode", ["hangs-natively", "all-raise", "other-tasks", "fails-afterwards"])
def test_with_ulfm_too_every_run_ends(tmp_path: Path, mode: str) -> None:
    """There a rank that just exits is waited for, and MPI_Abort ends one rank only (Open MPI 5.0.11)."""
    code, text = run(tmp_path, 6, mode, ulfm=True)
    codes = {"all-raise": 1, "other-tasks": LaunchError.exit_code, "fails-afterwards": StoreError.exit_code}
    assert code == codes.get(mode, 0), text
    if mode == "hangs-natively":
        assert set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)][0] == "time-limit"


@mpi
def test_a_segmentation_fault_is_named(tmp_path: Path) -> None:
    assert run(tmp_path, 2, "segfault")[0] != 0
    code, text = run(tmp_path, 2, "segfault")
    assert code == 0, text
    assert "signal SIGSEGV" in set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)][1]


@mpi
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_task_that_hangs_is_set_aside_and_the_run_goes_on(tmp_path: Path, ranks: int) -> None:
    code, text = run(tmp_path, ranks, "hangs")
    assert code == 0, text
    kind, message = set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)]
    assert kind == "time-limit"
    assert "farm.task_limit (1.0 s)" in message


def test_a_task_that_hangs_outside_python_is_set_aside_by_the_next_start(tmp_path: Path) -> None:
    code, text = run(tmp_path, 0, "hangs-natively")
    assert code == -signal.SIGKILL
    assert "Timeout (0:00:0" in text  # with the stack of the hanging process
    assert "in misbehave" in text
    code, text = run(tmp_path, 0, "hangs-natively")
    assert code == 0, text
    assert set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)][0] == "time-limit"


@mpi
@pytest.mark.parametrize(("ranks", "ulfm"), [(0, False), (2, False), (6, True)])
def test_a_stop_signal_drops_a_long_task_and_does_not_blame_it(
    tmp_path: Path, ranks: int, ulfm: bool, alone: str
) -> None:
    process = start(tmp_path, ranks, "slow-once", ulfm=ulfm)
    begun = make_id("farm", "sample", MISBEHAVE).encode()
    wait_for(lambda: any(begun in path.read_bytes()[-17:] for path in tmp_path.glob("shards/attempts-*")))
    process.send_signal(signal.SIGUSR1)
    code, text = finish(process)
    assert code == EXIT_REQUEUE, text
    assert "was dropped for the stop signal" in text
    code, text = run(tmp_path, ranks, "slow-once", ulfm=ulfm, HURRY="1")
    assert code == 0, text
    assert "its process died" not in text
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
@pytest.mark.parametrize("ranks", [0, 3])
def test_one_task_that_raises_is_a_failure(tmp_path: Path, ranks: int) -> None:
    code, text = run(tmp_path, ranks, "raises")
    assert code == 0, text
    kind, message = set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)]
    assert kind == "internal-error"
    assert message.startswith("ZeroDivisionError: a bug in a task (farm_driver.py:")
    assert 'raise ZeroDivisionError("a bug in a task")' in text  # the traceback is in the log


@mpi
@pytest.mark.parametrize("ranks", [0, 2])
def test_many_tasks_that_raise_end_the_run_and_are_not_stored(tmp_path: Path, ranks: int, alone: str) -> None:
    code, text = run(tmp_path, ranks, "all-raise")
    assert code == 1
    assert "10 tasks in a row raised" in text
    assert not (tmp_path / "out.h5").exists()
    code, text = run(tmp_path, ranks)  # the bug is mended: nothing of it is left
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
@pytest.mark.parametrize("mode", ["killers", "segfault"])
def test_with_ulfm_the_survivors_finish_the_run(tmp_path: Path, mode: str) -> None:
    code, text = run(tmp_path, 4, mode, ulfm=True)
    assert code == 0, text
    assert "ranks go on" in text
    expected = KILLERS if mode == "killers" else (MISBEHAVE,)
    assert set(set_aside(tmp_path)) == {make_id("farm", "sample", i) for i in expected}


@mpi
def test_with_ulfm_a_leader_that_dies_while_it_writes_is_replaced(tmp_path: Path, alone: str) -> None:
    code, text = run(tmp_path, 3, "leader-dies", ulfm=True)
    assert code == 0, text
    assert "rank 0 (" in text
    assert f"delivered {TASKS} tasks" in text
    assert store.content_digest(tmp_path / "out.h5") == alone
    assert set(computed(tmp_path).values()) == {1}


@mpi
def test_a_rank_whose_device_fails_leaves_its_tasks_to_the_others(tmp_path: Path, alone: str) -> None:
    code, text = run(tmp_path, 3, "one-device-fails")
    assert code == 0, text
    assert "rank 1 (" in text
    assert "its device failed, the others go on: CUDA error" in text
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
def test_a_task_that_breaks_devices_is_set_aside(tmp_path: Path) -> None:
    code, text = run(tmp_path, 3, "task-breaks-devices")
    assert code == 0, text
    kind, message = set_aside(tmp_path)[make_id("farm", "sample", MISBEHAVE)]
    assert kind == "killed-its-process"
    assert "failure of its device" in message


@mpi
@pytest.mark.parametrize("ranks", [0, 2])
def test_without_a_device_that_works_nothing_is_set_aside(tmp_path: Path, ranks: int, alone: str) -> None:
    code, text = run(tmp_path, ranks, "all-devices-fail")
    assert code == LaunchError.exit_code, text
    assert "the device of every rank has failed" in text
    code, text = run(tmp_path, ranks)
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone
