"""The benchmarks of the farm run, and print what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
GATES = ("lost_acknowledged", "duplicates", "result_differs", "violations")
# seed 15634: a rank is killed, rank 0 under ULFM, the whole job, a shard is damaged, and two starts meet
ROUNDS, SEED = 2, 15634
Run = tuple[int, str, dict[str, Any]]

pytestmark = pytest.mark.mpi


@pytest.fixture
def benchmark(mpiexec, tmp_path: Path):
    """`benchmark(program, *arguments)` gives exit code, everything printed, and the JSON object of the last line."""

    def run(program: str, *arguments: str, timeout: float = 300) -> Run:
        scratch = {"TMPDIR": str(tmp_path)}
        command = [sys.executable, str(ROOT / "benchmarks" / program), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | scratch)
        text = result.stdout + result.stderr
        assert result.stdout.strip(), text
        return result.returncode, text, json.loads(result.stdout.splitlines()[-1])

    return run


def test_farm_measures_sleeping_tasks(benchmark) -> None:
    code, text, figures = benchmark("farm.py", "--ranks", "2", "--tasks", "200", "--task-ms", "2")
    assert code == 0, text
    assert (figures["ranks"], figures["tasks"]) == (2, 200)
    assert figures["wall_s"] >= 0.2  # 200 tasks of 2 ms on 2 ranks: time cannot be won
    assert figures["efficiency"] == pytest.approx(0.2 / figures["wall_s"], rel=0.01)
    assert figures["overhead_us_per_task"] == pytest.approx(1e6 * (figures["wall_s"] - 0.2) / 200, abs=1)
    assert 20 < figures["rank0_rss_mb"] < 1000
    assert figures["records_per_s"] is None


def test_farm_measures_stored_records_one_task_a_message(benchmark) -> None:
    arguments = ("--ranks", "2", "--tasks", "2000", "--task-ms", "0", "--store", "--chunk", "1")
    code, text, figures = benchmark("farm.py", *arguments)
    assert code == 0, text
    assert "2000 records" in text
    assert figures["efficiency"] is None
    assert figures["records_per_s"] > 0


def test_farm_compares_with_mpi4py_futures(benchmark) -> None:
    arguments = ("--ranks", "2", "--tasks", "500", "--task-ms", "0", "--chunk", "1", "--compare-futures")
    code, text, figures = benchmark("farm.py", *arguments)
    assert code == 0, text
    assert figures["overhead_us_per_task"] > 0
    assert figures["futures_us_per_task"] > 0
    assert figures["futures_chunk50_us_per_task"] > 0


def test_heavy_tailed_tasks_have_the_mean_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from farm_program import durations, task_ids

    seconds = durations(100_000, 0.1, heavy_tail=True, seed=0)
    assert seconds.mean() == pytest.approx(0.1, rel=0.02)
    assert seconds.max() > 20 * seconds.mean()
    assert task_ids(300).tolist() == [b"%016x" % i for i in range(300)]


def test_farm_refuses_a_comparison_of_unequal_tasks() -> None:
    arguments = ("--ranks", "2", "--tasks", "10", "--task-ms", "1", "--compare-futures")
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/farm.py"), *arguments], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "--task-ms 0" in result.stderr


def test_chaos_loses_nothing(benchmark) -> None:
    code, text, figures = benchmark("chaos.py", "--rounds", str(ROUNDS), "--seed", str(SEED), timeout=900)
    assert [figures[key] for key in GATES] == [0, 0, 0, 0], text
    assert code == 0, text
    assert figures["rounds"] == ROUNDS
    assert figures["kills"] >= 1, text


@pytest.mark.slow
def test_chaos_loses_nothing_in_many_rounds(benchmark) -> None:
    code, text, figures = benchmark("chaos.py", "--rounds", "40", "--seed", "7", timeout=3600)
    assert [figures[key] for key in GATES] == [0, 0, 0, 0], text
    assert code == 0, text
    assert figures["kills"] > 10
    assert figures["corruptions"] > 5
    assert figures["by_kind"]["rank-0-kills"] > 2


def test_chaos_finds_what_an_output_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks themselves: outputs with a lost, a doubled and a changed result are told from the right one."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from dataclasses import replace

    from chaos_ledger import check_output
    from chaos_plan import draw
    from chaos_program import result_of

    from hpcgen import store
    from hpcgen.errors import Failure
    from hpcgen.flow import Candidate

    plan = replace(draw(0, 0, 4, 20, False), killers=(7,), hanging=())
    results = [result_of(i) for i in range(20)]
    set_aside = Failure(results[7].sample_id, "chaos", "killed-its-process", "by SIGKILL")
    right = [*results[:7], set_aside, *results[8:]]

    def check(results: list[Any]) -> tuple[int, str]:
        records = [r for r in results if not isinstance(r, Failure)]
        failures = [r for r in results if isinstance(r, Failure)]
        store.write(tmp_path / "out.h5", Candidate, records, failures=failures)
        return check_output(tmp_path / "out.h5", 20, plan)

    assert check(right) == (0, "")
    assert "not set aside" in check(results)[1]
    assert "out.h5 differs" in check(right[:-1])[1]
    assert "out.h5 differs" in check([*right[:5], replace(right[5], residual=0.5), *right[6:]])[1]
    doubled, difference = check([*right, right[0]])
    assert doubled == 1
    assert "differs" in difference


def test_chaos_counts_what_was_acknowledged_and_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from chaos_ledger import Ledger
    from chaos_program import TAG_LENGTH, task_ids

    a, b, c = task_ids(3)
    log = tmp_path / "log"

    def compute(*tasks: str) -> None:
        with log.open("a") as file:
            file.writelines(f"{task} {'job':<{TAG_LENGTH}}\n" for task in tasks)

    compute(a, b)
    ledger = Ledger(log)
    ledger.check({a, b})
    compute(c)
    ledger.check({a, b, c})
    assert ledger.lost == []
    ledger.damaged({a, b})
    compute(c)
    ledger.check({a, b, c})
    assert ledger.lost == []  # the benchmark had damaged it
    compute(a)
    ledger.check({a, c})
    assert sorted(ledger.lost) == sorted([a, b])  # one computed again, one gone
