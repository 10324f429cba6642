"""One start of `chaos_program.py`: its processes, found by a variable in their environment, and what may hit them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chaos_program import TAG
from launching import environment, mpiexec

PROGRAM = Path(__file__).with_name("chaos_program.py")
PAUSE = 0.003  # seconds between looks


class Job:
    """A started program.

    Args:
        tag: unique; every process of the job has it in its environment.
        ranks: 0 for one process without MPI.
        ulfm: whether the launcher is told to survive the death of ranks.
        arguments: of the program.
        scratch: folder for what Open MPI and the job write beside the run folder.
    """

    def __init__(self, tag: str, ranks: int, ulfm: bool, arguments: list[str], scratch: Path) -> None:
        self.tag, self.ranks, self.ulfm = tag, ranks, ulfm
        launcher = mpiexec(ranks, ["--with-ft", "ulfm"] if ulfm else []) if ranks else []
        self.output = scratch / f"output-{tag}"
        self.began = time.monotonic()
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*launcher, sys.executable, str(PROGRAM), *arguments],
                env=environment(scratch, **{TAG: tag, "HPCGEN_MPI_INIT_SECONDS": "20"}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs; of a process killed by signal N it is 128 + N, as a shell says it."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def text(self) -> str:
        """Everything printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition; False if the job ends, or so many seconds are over, before."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            if until():
                return True
            time.sleep(PAUSE)
        return False

    def ends(self, seconds: float) -> bool:
        """Wait for the end of the job; False if it still runs so many seconds after its begin."""
        self.wait(lambda: False, self.began + seconds - time.monotonic())
        return self.code is not None

    def processes(self) -> dict[int, int | None]:
        """All living processes of the job, by pid, with their rank; None for the launcher and tasks run alone."""
        mark = f"{TAG}={self.tag}".encode()
        found: dict[int, int | None] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):  # it ended meanwhile, or is another user's
                    variables = (folder / "environ").read_bytes().split(b"\0")
                    if mark in variables:
                        found[int(folder.name)] = self._rank(int(folder.name), variables)
        return found

    def one_rank(self, rank_0: bool, choice: float) -> tuple[int, int] | None:
        """(rank, pid) of rank 0, or of one of the others (of rank 0 where there is no other); None if it is gone."""
        by_rank = {rank: pid for pid, rank in self.processes().items() if rank is not None}
        others = sorted(rank for rank in by_rank if rank)
        rank = 0 if rank_0 or not others else others[int(choice * len(others))]
        return (rank, by_rank[rank]) if rank in by_rank else None

    def signal_launcher(self, number: signal.Signals) -> bool:
        """Send a signal to mpiexec, or to the process that runs without it; False if it has ended."""
        if self.code is not None:
            return False
        self._process.send_signal(number)
        return True

    def kill_all(self) -> bool:
        """SIGKILL to every process, until none is left; False if there was none."""
        killed = False
        while pids := self.processes():
            for pid in pids:
                killed |= send(pid, signal.SIGKILL)
            self._process.poll()  # else it stays a zombie
            time.sleep(PAUSE)
        self._process.wait()
        return killed

    def gone(self, timeout: float) -> bool:
        """Wait until no process of the job is left."""
        deadline = time.monotonic() + timeout
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(10 * PAUSE)
        return True

    def _rank(self, pid: int, variables: list[bytes]) -> int | None:
        if not self.ranks:
            return 0 if pid == self._process.pid else None
        ranks = [v.partition(b"=")[2] for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
        return int(ranks[0]) if ranks else None


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
