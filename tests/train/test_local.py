"""The processes of one node: they start as one, stop as one, and end with one exit code."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hpcgen.errors import EXIT_REQUEUE
from hpcgen.train import local


def launch(program: str, processes: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", local.__name__, str(processes), sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_each_process_knows_its_place() -> None:
    # one write each, which no other process can cut: print makes several where Python does not buffer
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"]
    program = f"import os; os.write(1, (' '.join(os.environ[n] for n in {names}) + chr(10)).encode())"
    run = launch(program, 3)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    places = sorted(line.split() for line in out.splitlines())
    assert [p[:3] for p in places] == [[str(rank), str(rank), "3"] for rank in range(3)]
    assert len({p[3] for p in places}) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_all_and_their_exit_code_comes_back(number: signal.Signals) -> None:
    stop = f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit({EXIT_REQUEUE}))"
    run = launch(f"import os, signal, sys, time; {stop}; os.write(1, b'ready' + bytes([10])); time.sleep(300)")
    assert run.stdout is not None
    assert [run.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    run.send_signal(number)
    assert run.wait(timeout=120) == EXIT_REQUEUE


@pytest.mark.parametrize(("end", "code"), [("sys.exit(9)", 9), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_when_one_fails_the_others_are_ended(monkeypatch: pytest.MonkeyPatch, end: str, code: int) -> None:
    monkeypatch.setattr(local, "GRACE", 0.2)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own handlers
    program = f"import os, sys, time; {end} if os.environ['RANK'] == '1' else time.sleep(300)"
    assert local.run(2, [sys.executable, "-c", program]) == code
