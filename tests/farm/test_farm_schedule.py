"""Scheduling, launch detection, merging and progress, without processes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hpcgen import farm
from hpcgen.config import FarmConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.farm.progress import Progress
from hpcgen.farm.schedule import LONGEST, Schedule, order_of
from hpcgen.farm.world import tasks_launched
from hpcgen.flow import Entry


def entry(name: str) -> Entry:
    return Entry(name, Crystal(3 * np.eye(3), np.zeros((1, 3)), np.array([84])), "here", "train")


def chunks(schedule: Schedule) -> list[tuple[int, int]]:
    out = []
    while (chunk := schedule.next()) is not None:
        out.append(chunk)
    assert schedule.empty
    return out


@pytest.mark.parametrize("ranks", [1, 2, 7, 500])
@pytest.mark.parametrize("kind", ["equal", "free", "spread", "one giant", "none"])
def test_every_task_goes_out_once_and_chunks_keep_their_size(ranks: int, kind: str) -> None:
    costs = {
        "equal": np.full(1000, 0.01),
        "free": np.zeros(1000),
        "spread": np.sort(np.random.default_rng(0).lognormal(-4, 1.5, 1000))[::-1],
        "one giant": np.array([50.0] + [0.001] * 500),
        "none": np.zeros(0),
    }[kind]
    given = chunks(Schedule(costs, ranks, chunk_seconds=1.0))
    assert [a for a, _ in given] == [0, *(b for _, b in given)][: len(given)]
    assert (given[-1][1] if given else 0) == len(costs)
    for a, b in given:
        assert b - a == 1 or (costs[a:b].sum() <= 1.0 + 1e-9 and b - a <= LONGEST)
        assert b - a <= max(1, -(-(len(costs) - a) // (3 * ranks)))


def test_chunks_shrink_towards_the_end() -> None:
    sizes = [b - a for a, b in chunks(Schedule(np.full(2000, 1 / 128), ranks=4, chunk_seconds=1.0))]
    assert sizes[0] == 127
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_chunks_follow_the_measured_pace() -> None:
    schedule = Schedule(np.full(10000, 1 / 128), ranks=2, chunk_seconds=1.0)
    assert schedule.next() == (0, 127)  # rounding takes one
    assert schedule.seconds_left(2) is None
    schedule.learn(estimated=1.0, measured=10.0)
    assert schedule.next() == (127, 139)
    assert schedule.seconds_left(2) == pytest.approx(10 * (10000 / 128 - 1) / 2, rel=1e-3)


def test_tasks_thought_to_be_free_are_paced_too() -> None:
    schedule = Schedule(np.zeros(100_000), ranks=2, chunk_seconds=1.0)
    start, stop = schedule.next()
    assert stop == LONGEST
    schedule.learn(schedule.estimate(start, stop), measured=0.1 * LONGEST)
    assert np.diff(schedule.next()) == pytest.approx(10, abs=1)


def test_suspects_go_out_one_by_one_and_what_comes_back_goes_out_again() -> None:
    schedule = Schedule(np.full(100, 0.01), ranks=1, chunk_seconds=1.0, singles=3)
    assert [schedule.next() for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    start, stop = schedule.next()
    assert start == 3
    schedule.give_back(5, 6, last=True)
    schedule.give_back(6, stop)
    schedule.give_back(7, 7)
    rest = chunks(schedule)
    assert rest[0] == (6, stop)
    assert rest[-1] == (5, 6)
    assert sorted(i for a, b in rest for i in range(a, b)) == list(range(5, 100))


def test_expensive_tasks_go_first_and_done_ones_not_at_all() -> None:
    done = np.array([False, True, False, False, False])
    assert order_of([1.0, 9.0, 5.0, 1.0, 7.0], done).tolist() == [4, 2, 0, 3]
    for costs in ([1.0, -1.0, 0, 0, 0], [1.0, np.nan, 0, 0, 0], [1.0]):
        with pytest.raises(ValueError, match="costs"):
            order_of(costs, done)


@pytest.mark.parametrize(
    ("environ", "tasks"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "0"}, 4),
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, 3),
        ({"PMIX_RANK": "0"}, 0),
        # a batch script: SLURM_PROCID is set, SLURM_STEP_ID is not (seen with Slurm 22.05)
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, 1),
        # srun
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "16"}, 16),
        ({"SLURM_STEP_ID": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_STEP_NUM_TASKS": "1"}, 1),
        # the interactive step of salloc
        ({"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, 1),
        # mpiexec inside an allocation: its daemons are a step of one task a node
        ({"OMPI_COMM_WORLD_SIZE": "8", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, 8),
    ],
)
def test_what_the_launcher_started(environ: dict[str, str], tasks: int) -> None:
    assert tasks_launched(environ) == tasks


def test_a_run_in_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"task{i}" for i in range(30)]
    config, shards, calls = FarmConfig(), tmp_path / "shards", []

    def work(index: int) -> Entry | Failure:
        calls.append(index)
        return Failure(names[index], "test", "odd", "") if index % 2 else entry(names[index])

    with caplog.at_level(logging.INFO, "hpcgen"):
        result = farm.run(names, np.arange(30.0), work, Entry, shards=shards, config=config, label="toy")
    assert result is not None
    assert calls == list(range(29, -1, -1))  # expensive first
    assert [i.id for i in result.items()] == names
    assert [f.id for f in result.failures] == names[1::2]
    assert result.records == 15
    assert result.resumed == 0
    assert result.busy.shape == (1,)
    assert 0 < result.busy[0] <= 1
    assert "on 1 ranks, busy" in caplog.text

    again = farm.run(names, np.arange(30.0), work, Entry, shards=shards, config=config, label="toy")
    assert again is not None
    assert again.resumed == 30
    assert len(calls) == 30  # nothing was computed twice
    assert [i.id for i in again.items()] == names


def test_without_a_folder_nothing_is_stored() -> None:
    calls: list[int] = []
    result = farm.run(["a", "b"], 1.0, calls.append, Entry, shards=None, config=FarmConfig(), label="toy")
    assert sorted(calls) == [0, 1]
    with pytest.raises(ValueError, match="nothing was stored"):
        result.items()


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    def call(ids: list[str], work) -> None:
        farm.run(ids, np.ones(len(ids)), work, Entry, shards=tmp_path / "s", config=FarmConfig(), label="toy")

    with pytest.raises(ValueError, match="not unique"):
        call(["a", "a"], lambda i: entry("a"))
    with pytest.raises(TypeError, match="task a gave str"):
        call(["a"], lambda i: "no record")


def test_progress_lines_say_how_far_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("toy", total=100, resumed=40, ranks=8, interval=1e-9)
    with caplog.at_level(logging.INFO, "hpcgen"):
        progress.show(15, 2, 7, 3723.0)
        progress.show(16, 2, 7, None)
        progress.close(16, np.array([0.9, 0.5]), 62.3)
    assert "toy: 55/100 done, 2 failed" in caplog.text
    assert "1 h 02 min left, 7 of 8 ranks" in caplog.text
    assert "no estimate yet" in caplog.text
    assert "1 min 02 s on 2 ranks, busy 90% 50%, 70% on average" in caplog.text
