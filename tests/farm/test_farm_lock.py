"""One run at a time in a run folder, with real processes: second starts, kills, other hosts, tokens, heirs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcgen.errors import RunFolderError
from hpcgen.farm import lock, lockfile
from hpcgen.farm.lockfile import LockFile, Owner

DRIVER = Path(__file__).with_name("lock_driver.py")
REFUSED = RunFolderError.exit_code
FOREIGN = Owner("0123456789abcdef", "hpcgen relax", host="elsewhere", boot="other-kernel", pid=4711, job="1234")


class Program:
    """A run in a process of its own; leaves nothing behind."""

    def __init__(self, folder: Path, *prefix: str, heartbeat: float = 5.0, **extra: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HPCGEN_RUN", "SLURM_", "OMPI_", "PMI"))}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(DRIVER), str(folder), str(heartbeat)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | extra,
        )

    def says(self) -> str:
        """Its next line; empty if it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, timeout: float = 60) -> tuple[int, str]:
        """Let it go: exit code and messages."""
        _, err = self.process.communicate("", timeout=timeout)
        return self.process.returncode, err

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    started: list[Program] = []

    def run(*prefix: str, **options) -> Program:
        started.append(Program(tmp_path, *prefix, **options))
        return started[-1]

    yield run
    for program in started:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGCONT)
            program.kill()


def content(folder: Path, name: str = lock.RUN) -> bytes:
    return (folder / name).read_bytes()


def test_a_second_start_refuses_and_changes_nothing(tmp_path: Path, start) -> None:
    first = start(SLURM_JOB_ID="77")
    assert first.says() == "held"
    before = content(tmp_path)
    code, message = start().end()
    assert code == REFUSED
    for word in ("hpcgen toy", os.uname().nodename, str(first.process.pid), "Slurm job 77", "scancel 77", lock.RUN):
        assert word in message
    assert "Traceback" not in message
    assert content(tmp_path) == before
    assert first.end() == (0, "")
    assert content(tmp_path) == b""
    again = start()
    assert again.says() == "held"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_after_a_kill_the_next_start_takes_over_at_once(tmp_path: Path, start, number: signal.Signals) -> None:
    first = start()
    assert first.says() == "held"
    first.process.send_signal(number)
    first.process.communicate()
    assert content(tmp_path) != b""
    second = start(heartbeat=1000.0)  # it would wait for an hour if it had to wait at all
    assert second.says() == "held"
    code, message = second.end()
    assert code == 0
    assert str(first.process.pid) in message


def test_a_stopped_owner_is_alive(start) -> None:
    first = start(heartbeat=0.1)
    assert first.says() == "held"
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # longer than the silence after which an owner elsewhere is dead
    assert start(heartbeat=0.1).end()[0] == REFUSED
    first.process.send_signal(signal.SIGCONT)
    assert first.end()[0] == 0


def test_an_owner_on_another_host_that_shows_life_is_left_alone(tmp_path: Path, start) -> None:
    file = tmp_path / lock.RUN
    file.write_bytes(FOREIGN.written())
    second, over = start(heartbeat=2.0), threading.Event()

    def live() -> None:
        while not over.wait(0.1):
            os.utime(file)

    beating = threading.Thread(target=live)
    beating.start()
    try:
        code, message = second.end()
    finally:
        over.set()
        beating.join()
    assert code == REFUSED
    assert "elsewhere" in message
    assert "scancel 1234" in message
    assert file.read_bytes() == FOREIGN.written()


def test_a_silent_owner_on_another_host_is_succeeded_and_notices(tmp_path: Path, start) -> None:
    (tmp_path / lock.RUN).write_bytes(FOREIGN.written())
    began = time.monotonic()
    second = start(heartbeat=0.5)
    assert second.says() == "held"
    assert time.monotonic() - began >= lockfile.SILENCE * 0.5
    # now the other host comes back to life and takes the folder the same way
    (tmp_path / lock.RUN).write_bytes(FOREIGN.written())
    assert second.says() == "lost"
    code, message = second.end()
    assert code == REFUSED
    assert "elsewhere" in message
    assert content(tmp_path) == FOREIGN.written()  # the loser leaves the winner's name


def test_an_owner_elsewhere_that_ends_while_one_waits(tmp_path: Path, start) -> None:
    file = tmp_path / lock.RUN
    file.write_bytes(FOREIGN.written())
    second = start()
    assert "waiting" in second.process.stderr.readline()
    file.write_bytes(b"")
    assert second.says() == "held"
    assert "died" not in second.end()[1]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_hosts_by_their_real_names(tmp_path: Path, start) -> None:
    there = ("unshare", "--uts", "sh", "-c", 'hostname far-away && exec "$@"', "sh")
    first = start(*there)
    assert first.says() == "held"
    code, message = start().end()
    assert code == REFUSED  # the flock reaches as far as the file system
    assert "far-away" in message
    first.kill()
    second = start(heartbeat=0.5)
    assert second.says() == "held"
    assert "far-away" in second.end()[1]


def test_a_removed_file_means_lost(tmp_path: Path, start) -> None:
    first = start(heartbeat=0.1)
    assert first.says() == "held"
    (tmp_path / lock.RUN).unlink()
    assert first.says() == "lost"
    assert first.end()[0] == REFUSED


def test_a_blank_file_is_free_and_a_foreign_one_is_not(tmp_path: Path, start) -> None:
    (tmp_path / lock.RUN).write_bytes(b"\0" * 1024)  # what a crash of the node can leave
    first = start()
    assert first.says() == "held"
    assert first.end()[0] == 0
    (tmp_path / lock.RUN).write_bytes(b"my notes")
    code, message = start().end()
    assert code == REFUSED
    assert "no lock" in message
    assert content(tmp_path) == b"my notes"


def test_a_link_is_not_followed(tmp_path: Path, start) -> None:
    (tmp_path / "precious").write_text("data")
    (tmp_path / lock.RUN).symlink_to("precious")
    assert start().end()[0] == REFUSED
    assert (tmp_path / "precious").read_text() == "data"


def test_a_stage_of_a_run_is_let_in_by_its_token_only(tmp_path: Path, start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lock.TOKEN, raising=False)
    with lock.hold(tmp_path, "hpcgen run"):
        let_in = lock.pass_on()
        assert start().end()[0] == REFUSED
        code, message = start(**{lock.TOKEN: "f" * 16}).end()
        assert code == REFUSED
        assert f"unset {lock.TOKEN}" in message
        stage = start(**let_in)
        assert stage.says() == "held"
        assert start(**let_in).end()[0] == REFUSED  # one stage at a time
    # the run is over (or killed), its stage is not: a new run sees that, and the token is worth nothing any more
    code, message = start().end()
    assert code == REFUSED
    assert str(stage.process.pid) in message
    assert content(tmp_path) == b""
    assert stage.end()[0] == 0
    assert start(**let_in).end()[0] == REFUSED
    assert lock.pass_on() == {}


def test_inside_it_and_in_a_solo_process_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lock.TOKEN, raising=False)
    threads = threading.active_count()
    with lock.hold(tmp_path, "hpcgen run"):
        before = content(tmp_path)
        with lock.hold(tmp_path, "hpcgen relax"):
            assert content(tmp_path) == before
        assert content(tmp_path) == before
    assert threading.active_count() == threads
    assert content(tmp_path) == b""
    monkeypatch.setenv(lock.SOLO, "{}")
    with lock.hold(tmp_path / "elsewhere", "hpcgen relax"):
        assert not lock.lost()
    lock.check()


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path, start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lock.TOKEN, raising=False)
    with lock.hold(tmp_path, "hpcgen run"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert start().says() == "held"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_heir_needs_the_token_and_a_dead_predecessor(tmp_path: Path) -> None:
    file = tmp_path / lock.RUN
    token = "feedfacefeedface"
    dead = replace(FOREIGN, token=token)
    file.write_bytes(dead.written())
    heir = LockFile(file, "hpcgen relax", token)
    heir.take(inherited=True)  # at once, although the dead leader was on another host
    assert Owner.read(file.read_bytes(), file) == heir.owner
    heir.release()
    for taken in (FOREIGN.written(), b""):  # another run has taken the folder, or has even finished
        file.write_bytes(taken)
        with pytest.raises(RunFolderError, match="in use by another run"):
            LockFile(file, "hpcgen relax", token).take(inherited=True)
        assert file.read_bytes() == taken


def test_without_flock_signs_of_life_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(fd: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lockfile.fcntl, "flock", no_flock)
    monkeypatch.setattr(lockfile, "HEARTBEAT", 0.5)
    first = LockFile(tmp_path / lock.RUN, "hpcgen run", "a" * 16)
    first.take()
    with pytest.raises(RunFolderError, match="in use"):
        LockFile(tmp_path / lock.RUN, "hpcgen run", "b" * 16).take()
    first._over.set()  # as if it had been killed
    first._thread.join()
    second = LockFile(tmp_path / lock.RUN, "hpcgen run", "b" * 16)
    second.take()
    second.release()
    first.close()
    assert content(tmp_path) == b""


def test_a_folder_that_cannot_be_written(tmp_path: Path, start) -> None:
    (tmp_path / lock.RUN).mkdir()
    code, message = start().end()
    assert code == REFUSED
    assert "cannot be opened for writing" in message
