"""The ledger: what is in it after torn lines, damage, and a controller that died between two of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcgen.errors import RunFolderError, UsageError
from hpcgen.slots import Ledger, Outcome, read_outcome, standings
from hpcgen.slots.ledger import events
from hpcgen.slots.outcome import attempt_folder, write_outcome


def store(root: Path, task: str, attempt: int, outcome: Outcome) -> None:
    folder = attempt_folder(root, task, attempt)
    folder.mkdir(parents=True)
    write_outcome(folder, outcome)


def test_standings_follow_from_events(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for task, attempt in (("a", 1), ("b", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 1)):
            ledger.start(task, attempt, 0, 1)
        store(tmp_path, "a", 1, Outcome("done", result={"x": 1}))
        ledger.end("a", 1, Outcome("done"), counted=False, seconds=1.0)
        ledger.end("b", 1, Outcome("again", "crashed", "SIGSEGV"), counted=True, seconds=1.0)
        ledger.end("c", 1, Outcome("failed", "zbrent", "gave up"), counted=False, seconds=1.0)
        ledger.end("e", 1, Outcome("done"), counted=False, seconds=1.0)  # but its outcome is gone
    store(tmp_path, "d", 1, Outcome("done"))  # its controller died before it could say so
    found = standings(tmp_path)
    assert {task: s.state for task, s in found.items()} == {
        "a": "done", "b": "running", "c": "failed", "d": "done", "e": "running",
    }  # fmt: skip
    assert (found["b"].attempts, found["b"].last, found["b"].kind) == (1, 2, "crashed")
    assert (found["c"].kind, found["c"].message) == ("zbrent", "gave up")
    assert [found[task].seconds for task in "abcde"] == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_a_torn_line_never_happened_and_the_next_one_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.start("a", 1, 0, 1)
        ledger.start("b", 1, 0, 1)
    whole = ledger.path.read_bytes()
    for cut in range(len(whole) - 40, len(whole)):
        ledger.path.write_bytes(whole[:cut])
        with Ledger(tmp_path) as again:
            again.start("c", 1, 0, 1)
        assert [event["task"] for event in events(tmp_path)][-1] == "c"
        assert "a" in standings(tmp_path)


def test_a_damaged_line_is_ignored(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for task in "abc":
            ledger.start(task, 1, 0, 1)
    lines = ledger.path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"attempt": 1', b'"attempt": 7')
    ledger.path.write_bytes(b"\n".join(lines))
    assert list(standings(tmp_path)) == ["a", "c"]


def test_one_controller_a_shard(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(RunFolderError, match="another controller"):
        Ledger(tmp_path)
    with Ledger(tmp_path, "0-of-2"), Ledger(tmp_path, "1-of-2"), pytest.raises(RunFolderError, match="number of parts"):
        Ledger(tmp_path)
    Ledger(tmp_path).close()


def test_a_damaged_outcome_is_none(tmp_path: Path) -> None:
    store(tmp_path, "a", 1, Outcome("done", result={"energy": -1.25}))
    file = tmp_path / "a/01/outcome.json"
    assert read_outcome(file.parent) == Outcome("done", result={"energy": -1.25})
    file.write_text(file.read_text().replace("-1.25", "-1.35"))
    assert read_outcome(file.parent) is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "-rf", "a b", "x" * 65])
def test_ids_never_become_paths_unchecked(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        attempt_folder(tmp_path, name, 1)
