"""Tasks that are done in groups, such as micro-batches: the same results as one by one, whatever happens."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from farm_driver import MISBEHAVE
from farm_runs import TASKS, committed, computed, finish, mpi, run, start, wait_for

from hpcgen import store
from hpcgen.errors import EXIT_REQUEUE
from hpcgen.farm.units import Units
from hpcgen.flow import Candidate, make_id

SIZE = 7  # 17 groups of 7 and one of 1
GROUP = {"GROUP": str(SIZE)}


def group_of(identity: str) -> int:
    return [make_id("farm", "sample", i) for i in range(TASKS)].index(identity) // SIZE


@mpi
@pytest.mark.parametrize("ranks", [0, 3])
def test_groups_give_the_results_of_single_tasks(tmp_path: Path, alone: str, ranks: int) -> None:
    code, text = run(tmp_path, ranks, **GROUP)
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone
    counts = computed(tmp_path)
    assert len(counts) == TASKS
    assert set(counts.values()) == {1}
    places = {(group_of(line.split()[0]), line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()}
    assert len(places) == -(-TASKS // SIZE)  # each group on one rank


def test_a_killed_run_keeps_whole_groups_and_computes_the_others(tmp_path: Path, alone: str) -> None:
    process = start(tmp_path, 0, "slow", **GROUP)
    wait_for(lambda: (tmp_path / "shards").is_dir() and len(committed(tmp_path)) >= 2 * SIZE, 60)
    process.kill()
    finish(process)
    saved = committed(tmp_path)
    assert {i: sum(group_of(s) == i for s in saved) for i in map(group_of, saved)} == {
        i: min(SIZE, TASKS - i * SIZE) for i in map(group_of, saved)
    }
    (tmp_path / "log").unlink()
    code, text = run(tmp_path, 0, **GROUP)
    assert code == 0, text
    assert f"{len(saved)} of {TASKS} tasks were done before" in text
    again = computed(tmp_path)
    assert not saved & set(again)
    assert len(again) == TASKS - len(saved)
    assert store.content_digest(tmp_path / "out.h5") == alone


def test_a_signal_drops_the_group_in_hand_and_keeps_the_others(tmp_path: Path, alone: str) -> None:
    process = start(tmp_path, 0, "slow-once", **GROUP)
    begun = make_id("farm", "sample", MISBEHAVE // SIZE * SIZE).encode()
    wait_for(lambda: any(begun in path.read_bytes()[-17:] for path in tmp_path.glob("shards/attempts-*")))
    os.kill(process.pid, signal.SIGUSR1)
    code, text = finish(process)
    assert code == EXIT_REQUEUE, text
    assert f"the group of {SIZE} tasks from {begun.decode()} on was dropped for the stop signal" in text
    assert len(committed(tmp_path)) % SIZE in (0, TASKS % SIZE)
    code, text = run(tmp_path, 0, "slow-once", HURRY="1", **GROUP)
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone


@mpi
@pytest.mark.parametrize(
    ("mode", "ranks", "kind"),
    [
        ("raises", 0, "internal-error"),
        ("hangs", 2, "time-limit"),
        pytest.param("segfault", 2, "killed-its-process", marks=pytest.mark.slow),
    ],
)
def test_only_the_guilty_task_of_a_group_is_set_aside(tmp_path: Path, mode: str, ranks: int, kind: str) -> None:
    code, text = run(tmp_path, ranks, mode, **GROUP)
    if mode == "segfault":
        assert code != 0
        code, text = run(tmp_path, ranks, mode, **GROUP)
    assert code == 0, text
    assert "did not succeed, so its tasks are done one by one" in text
    with store.open(tmp_path / "out.h5", Candidate) as f:
        f.verify()
        found = {x.id: x.kind for x in f.failures if x.kind != "toy-failure"}
        assert found == {make_id("farm", "sample", MISBEHAVE): kind}
        assert len(f.ids) == TASKS - TASKS // 10 - 1


def test_a_bug_that_every_group_meets_ends_the_run(tmp_path: Path) -> None:
    code, text = run(tmp_path, 0, "all-raise", **GROUP)
    assert code == 1
    assert "10 tasks in a row raised" in text
    assert not committed(tmp_path)


@mpi
def test_a_rank_whose_device_fails_gives_its_group_back(tmp_path: Path, alone: str) -> None:
    code, text = run(tmp_path, 2, "one-device-fails", **GROUP)
    assert code == 0, text
    assert store.content_digest(tmp_path / "out.h5") == alone


def test_units_know_their_tasks_costs_and_what_is_done() -> None:
    units = Units(6, [[4, 0], [5], [1, 3, 2]])
    assert [units[i] for i in range(3)] == [[4, 0], [5], [1, 3, 2]]
    assert units.leading.tolist() == [4, 5, 1]
    assert units.sizes.tolist() == [2, 1, 3]
    np.testing.assert_allclose(units.costs([1, 2, 4, 8, 16, 32]), [17, 32, 14])
    np.testing.assert_allclose(units.costs(0.5), [1, 0.5, 1.5])
    assert units.done(np.array([1, 1, 0, 1, 1, 0], bool)).tolist() == [True, False, False]
    single = Units(3)
    assert [single[i] for i in range(3)] == [[0], [1], [2]]
    assert single.costs([3, 1, 2]).tolist() == [3, 1, 2]
    for empty in (Units(0), Units(0, [])):
        assert empty.costs(1.0).shape == empty.done(np.zeros(0, bool)).shape == (0,)


@pytest.mark.parametrize("groups", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []], [[0, 1, 2, 3]]])
def test_units_refuse_groups_that_are_no_partition(groups: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="each of the 3 tasks once"):
        Units(3, groups)
