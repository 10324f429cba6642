"""The farm as a whole: ranks, restarts, signals, bugs and wrong launchers, with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from farm_runs import TASKS, committed, computed, finish, mpi, run, start, wait_for

from hpcgen import store
from hpcgen.errors import EXIT_REQUEUE, LaunchError
from hpcgen.flow import Candidate


@mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_gives_the_same_items(tmp_path: Path, alone: str, ranks: int) -> None:
    code, text = run(tmp_path, ranks)
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone
    counts = computed(tmp_path)
    assert len(counts) == TASKS
    assert set(counts.values()) == {1}
    used = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(used) == ranks
    assert not (tmp_path / "shards").exists()


@mpi
@pytest.mark.parametrize("ranks", [0, 2])
def test_restart_after_sigkill_computes_only_what_is_missing(tmp_path: Path, ranks: int) -> None:
    process = start(tmp_path, ranks, "slow")
    wait_for(lambda: (tmp_path / "shards").is_dir() and len(committed(tmp_path)) >= 10)
    process.kill()  # the whole job: mpiexec and its ranks
    for path in tmp_path.glob("pid-*"):
        try:
            os.kill(int(path.name.removeprefix("pid-")), signal.SIGKILL)
        except ProcessLookupError:
            continue
    finish(process)
    saved = committed(tmp_path)
    assert 10 <= len(saved) < TASKS
    (tmp_path / "log").unlink()

    code, text = run(tmp_path, 2 if ranks == 0 else 0)  # another number of ranks than before
    assert code == 0, text
    again = computed(tmp_path)
    assert not saved & set(again)
    assert len(again) == TASKS - len(saved)
    with store.open(tmp_path / "out.h5", Candidate) as f:
        assert f.attrs["resumed"] == len(saved)
    whole = tmp_path / "whole"
    assert run(whole, 0)[0] == 0
    assert store.content_digest(tmp_path / "out.h5") == store.content_digest(whole / "out.h5")


@mpi
@pytest.mark.parametrize(("ranks", "number"), [(0, signal.SIGTERM), (0, signal.SIGUSR1), (2, signal.SIGUSR1)])
def test_a_signal_saves_everything_and_asks_to_be_requeued(
    tmp_path: Path, alone: str, ranks: int, number: signal.Signals
) -> None:
    process = start(tmp_path, ranks, "slow")
    wait_for(lambda: (tmp_path / "log").exists() and len(computed(tmp_path)) >= 8)
    process.send_signal(number)  # mpiexec forwards SIGUSR1 to its ranks
    code, text = finish(process)
    assert code == EXIT_REQUEUE, text
    assert "tasks are left" in text
    assert not list((tmp_path / "shards").glob("*.part"))
    assert committed(tmp_path) == set(computed(tmp_path))  # nothing that was computed is lost
    code, text = run(tmp_path, ranks)
    assert code == 0, text
    assert set(computed(tmp_path).values()) == {1}
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
def test_a_signal_to_one_worker_stops_all_ranks(tmp_path: Path) -> None:
    process = start(tmp_path, 2, "slow")
    wait_for(lambda: (tmp_path / "log").exists() and len(computed(tmp_path)) >= 8)
    workers = [p for p in tmp_path.glob("pid-*") if p.read_text() == "1"]
    os.kill(int(workers[0].name.removeprefix("pid-")), signal.SIGTERM)
    code, text = finish(process)
    assert code == EXIT_REQUEUE, text
    assert committed(tmp_path) == set(computed(tmp_path))


@mpi
def test_ranks_with_other_tasks_are_refused(tmp_path: Path) -> None:
    code, text = run(tmp_path, 2, "other-tasks")
    assert code == LaunchError.exit_code
    assert "do not agree on the tasks" in text
    assert not (tmp_path / "shards").exists()


@mpi
def test_a_step_whose_ranks_do_not_find_each_other_is_refused(tmp_path: Path) -> None:
    """What `srun -n 4` does with a PMI that this MPI does not speak: four communicators of size 1."""
    pytest.importorskip("mpi4py")
    code, text = run(tmp_path, 0, SLURM_STEP_ID="0", SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_STEP_NUM_TASKS="4")
    assert code == LaunchError.exit_code, text
    assert "4 tasks" in text
    assert "srun --mpi=pmix" in text
    assert not (tmp_path / "log").exists()


def test_a_batch_script_is_one_process(tmp_path: Path) -> None:
    code, text = run(tmp_path, 0, tasks=3, SLURM_JOB_ID="7", SLURM_NTASKS="4", SLURM_PROCID="0")
    assert code == 0, text


@pytest.mark.parametrize("ranks", [0, pytest.param(2, marks=mpi)])
@pytest.mark.parametrize("tasks", [0, 1])
def test_fewer_tasks_than_ranks(tmp_path: Path, ranks: int, tasks: int) -> None:
    code, text = run(tmp_path, ranks, tasks=tasks)
    assert code == 0, text
    with store.open(tmp_path / "out.h5", Candidate) as f:
        assert len(f) == tasks
