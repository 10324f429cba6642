"""One round of `benchmarks/chaos.py`: starts and disturbances as planned, and what is checked on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import chaos_plan as plan_of
from chaos_job import Job, send
from chaos_ledger import Ledger, check_output, committed, computations, damage
from chaos_plan import Disturbance, Plan, Start

from hpcgen.errors import EXIT_OK, EXIT_REQUEUE, RunFolderError

DISK_MB = 64
HANG_SECONDS = 120.0  # no start takes longer, unless something hangs
ORPHAN_SECONDS = 30.0  # for ranks to notice that their launcher is dead
DONE = re.compile(r"chaos: (\d+)/\d+ done")
MAX_KILLS = 2  # low: tasks that were in hand when the benchmark killed their process must not reach it
SHORT_LIMIT, LONG_LIMIT = 5.0, 60.0  # seconds per task, with and without a task that never ends
DELIVERY = {
    plan_of.TERM_RANK: signal.SIGTERM,
    plan_of.TERM_LAUNCHER: signal.SIGTERM,
    plan_of.USR1_RANK: signal.SIGUSR1,
    plan_of.USR1_LAUNCHER: signal.SIGUSR1,
}


class Round:
    """A round.

    Args:
        plan: what happens.
        tasks: number of tasks.
        folder: made here; holds the run folder, the log of computations and the output of every start.

    Attributes:
        counts: kills, corruptions, the four figures of the benchmark, and how often each kind of thing happened.
        complaints: what went wrong, a sentence each.
    """

    def __init__(self, plan: Plan, tasks: int, folder: Path) -> None:
        self.plan, self.tasks, self.folder = plan, tasks, folder
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._run, self._log = folder / "run", folder / "log"
        self._output = self._run / "out.h5"
        self._ballast = self._run / "ballast"
        self._ledger = Ledger(self._log)
        self._jobs = 0
        self._running: list[Job] = []
        self._orphans: Job | None = None
        self._happened: list[str] = []
        self._seconds = 0.0
        self._last = ""

    def line(self) -> str:
        """What happened, in one line."""
        outcome = "FAILED" if self.complaints else "ok"
        return f"{outcome}: {self._jobs} starts in {self._seconds:.1f} s: {', '.join(self._happened) or 'undisturbed'}"

    def run(self) -> None:
        """All starts until the output is there, then the verdict."""
        began = time.monotonic()
        self._run.mkdir(parents=True)
        self._log.touch()
        for kind, tasks in (("killer-task", self.plan.killers), ("hanging-task", self.plan.hanging)):
            for _ in tasks:
                self._count(kind)
        if self.plan.small_disk:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self._run)],
                check=True,
            )
        try:
            self._starts()
            if self._output.exists():
                self._verdict()
            else:
                self._complain(
                    "violations", f"not complete after {self._jobs} starts, the last one:\n{self._last[-3000:]}"
                )
        finally:
            for job in self._running:
                job.kill_all()
            if self.plan.small_disk:
                if self.complaints:
                    shutil.copytree(self._run, self.folder / "run-copy")
                subprocess.run(["umount", "--lazy", str(self._run)], check=True)
        self._seconds = time.monotonic() - began

    def _starts(self) -> None:
        for start in (*self.plan.starts, *self.plan.last):
            self._one_start(start)
            self._ballast.unlink(missing_ok=True)
            if self._output.exists():
                return
            self._ledger.check(committed(self._run))
            if start.damage and (kind := damage(self._run, start.damage)):
                self._count(kind, "corruptions")
                self._ledger.damaged(committed(self._run))

    def _one_start(self, start: Start) -> None:
        missing = self.tasks - len(committed(self._run))
        job = self._launch(start)
        first = None
        delivered: list[Disturbance] = []
        for disturbance in start.disturbances:
            if not self._reached(job, disturbance, missing):
                continue
            if disturbance.kind == plan_of.SECOND_START:
                first = self._second_start(job, start, disturbance)
                delivered.append(disturbance)
            elif self._deliver(job, disturbance):
                delivered.append(disturbance)
        if not job.ends(HANG_SECONDS):
            self._complain("violations", f"start {job.tag} hangs:\n{job.text[-3000:]}")
            job.kill_all()
        self._check_end(job, start, delivered, first)
        self._check_progress(job)
        self._last = job.text

    def _launch(self, start: Start) -> Job:
        self._jobs += 1
        limit = SHORT_LIMIT if self.plan.hanging else LONG_LIMIT
        arguments = [str(self._run), "--log", str(self._log), "--tasks", str(self.tasks)]
        arguments += ["--max-kills", str(MAX_KILLS), "--task-limit", str(limit)]
        for name, indices in (("--killers", self.plan.killers), ("--hanging", self.plan.hanging)):
            arguments += [name, *map(str, indices)] if indices else []
        job = Job(f"{os.getpid():08d}s{self._jobs:03d}", start.ranks, start.ulfm, arguments, self.folder)
        self._running = [*(j for j in self._running if j.code is None), job]
        return job

    def _reached(self, job: Job, disturbance: Disturbance, missing: int) -> bool:
        """Wait for the moment of a disturbance; False if the job ends before."""
        moment = disturbance.moment
        wanted = {plan_of.LAUNCH: 0, plan_of.MERGE: max(1, missing)}.get(
            moment, max(1, int(disturbance.part * missing))
        )
        if not job.wait(lambda: computations(self._log, job.tag) >= wanted, HANG_SECONDS):
            return False
        if moment == plan_of.COMMIT:
            size = self._shard_bytes()
            job.wait(lambda: self._shard_bytes() != size, 1.0)
        time.sleep(disturbance.delay)
        return job.code is None

    def _shard_bytes(self) -> int:
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._run / "shards"))
        except OSError:  # not made yet, or a file that was renamed meanwhile
            return -1

    def _deliver(self, job: Job, disturbance: Disturbance) -> bool:
        """Do it; False if there was nothing left to hit."""
        kind = disturbance.kind
        if kind == plan_of.RANK_KILL:
            return self._kill_rank(job, disturbance)
        if kind == plan_of.DISK_FULL:
            return self._fill_disk(int(disturbance.choice * 200_000))
        if kind == plan_of.JOB_KILL:
            hit = job.kill_all()
        elif kind == plan_of.LAUNCHER_KILL:
            hit = job.signal_launcher(signal.SIGKILL)
        elif kind in (plan_of.TERM_LAUNCHER, plan_of.USR1_LAUNCHER):
            hit = job.signal_launcher(DELIVERY[kind])
        else:
            target = job.one_rank(disturbance.rank_0, disturbance.choice)
            hit = target is not None and send(target[1], DELIVERY[kind])
        if hit:
            self._count(f"{kind}@{disturbance.moment}", *(["kills"] if kind in plan_of.KILLS else []))
        return hit

    def _kill_rank(self, job: Job, disturbance: Disturbance) -> bool:
        target = job.one_rank(disturbance.rank_0, disturbance.choice)
        if target is None:
            return False
        rank, pid = target
        if disturbance.frozen and send(pid, signal.SIGSTOP):
            # what is on disk now must survive, and nobody may compute it again
            self._ledger.saw(committed(self._run))
        if not send(pid, signal.SIGKILL):
            return False
        kind = "rank-kill-ulfm" if job.ulfm else "rank-kill"
        self._count(f"{kind}({rank})@{disturbance.moment}", "kills", *([] if rank else ["rank-0-kills"]))
        return True

    def _fill_disk(self, room: int) -> bool:
        """Leave about `room` bytes on the file system of the run folder."""
        with self._ballast.open("wb") as file:
            while True:
                state = os.statvfs(self._run)
                try:
                    os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - room, 1))
                    break
                except OSError:  # a rank took some of it meanwhile
                    continue
        self._count(f"disk-full({room // 1000}k)")
        return True

    def _second_start(self, job: Job, start: Start, disturbance: Disturbance) -> Job:
        """Start once more on the same folder and wait: one of the two must be refused."""
        other = self._launch(Start(0 if disturbance.choice < 0.3 else 2, False))
        if not other.ends(HANG_SECONDS):
            self._complain("violations", f"second start {other.tag} hangs:\n{other.text[-3000:]}")
            other.kill_all()
        self._count(f"second-start@{disturbance.moment}")
        return other

    def _check_end(self, job: Job, start: Start, delivered: list[Disturbance], other: Job | None) -> None:
        """The exit code, and that nothing of the job goes on."""
        kinds = {d.kind for d in delivered}
        before, self._orphans = self._orphans, None
        for ended in (before, job):
            if ended is job and plan_of.LAUNCHER_KILL in kinds and delivered[0].frozen:
                self._orphans = job  # the next start begins while its ranks may still be there
            elif ended is not None and not ended.gone(ORPHAN_SECONDS):
                left = "\n".join(ended.describe())
                self._complain("violations", f"{ended.tag} {sorted(kinds)} leaves:\n{left}\n{ended.text[-3000:]}")
                ended.kill_all()
        code, allowed = job.code, self._allowed(job, start, delivered)
        if other is not None:
            codes = sorted([code or 0, other.code or 0])
            if codes != [EXIT_OK, RunFolderError.exit_code]:
                text = job.text[-2000:] + "\n--- second:\n" + other.text[-2000:]
                self._complain("violations", f"two starts at once ended with {codes}:\n{text}")
            return
        if before is not None and code == RunFolderError.exit_code:
            return
        if kinds & set(plan_of.STOP_SIGNALS) and self._output.exists():
            return  # it came when the farm was over
        if allowed is not None and code not in allowed:
            self._complain("violations", f"{job.tag} {sorted(kinds)} ended with {code}:\n{job.text[-3000:]}")
        # an mpiexec with ULFM says 0 where all ranks were killed too: nobody is left to know better
        survivors = start.ranks - sum(d.kind == plan_of.RANK_KILL for d in delivered)
        # the last one ends itself by a signal where its task hangs outside Python
        all_killed = job.ulfm and (self.plan.killers or survivors <= len(self.plan.hanging))
        if code == EXIT_OK and not self._output.exists() and not all_killed:
            self._complain("violations", f"{job.tag} ended with 0 and left no output:\n{job.text[-3000:]}")

    def _allowed(self, job: Job, start: Start, delivered: list[Disturbance]) -> set[int] | None:
        """Exit codes that the start may end with, None for any."""
        if self.plan.killers or self.plan.hanging:
            return None
        if not delivered:
            return {EXIT_OK}
        if any(d.moment == plan_of.LAUNCH for d in delivered):
            return None
        kinds = {d.kind for d in delivered}
        if kinds <= {plan_of.TERM_RANK, plan_of.USR1_RANK, plan_of.USR1_LAUNCHER}:
            return {EXIT_OK, EXIT_REQUEUE}
        if kinds == {plan_of.RANK_KILL} and job.ulfm and len(delivered) < start.ranks:
            return {EXIT_OK}
        return None

    def _check_progress(self, job: Job) -> None:
        """What progress lines had counted must be on disk."""
        shown = [int(n) for n in DONE.findall(job.text)]
        if shown and not self._output.exists():
            found = len(committed(self._run))
            if max(shown) > found:
                self.counts["lost_acknowledged"] += max(shown) - found
                self.complaints.append(f"{job.tag} had shown {max(shown)} as done, {found} are on disk")

    def _verdict(self) -> None:
        """The final file, and what was lost on the way."""
        self._ledger.check(None)
        if lost := self._ledger.lost:
            self.counts["lost_acknowledged"] += len(lost)
            self.complaints.append(f"{len(lost)} acknowledged results were lost or computed again: {lost[:3]}")
        duplicates, difference = check_output(self._output, self.tasks, self.plan)
        if duplicates:
            self._complain("duplicates", f"{duplicates} tasks have several results", duplicates)
        if difference:
            self._complain("result_differs", difference)

    def _count(self, kind: str, *totals: str) -> None:
        self._happened.append(kind)
        self.counts[kind.partition("@")[0].partition("(")[0]] += 1
        self.counts.update(totals)

    def _complain(self, key: str, text: str, number: int = 1) -> None:
        self.counts[key] += number
        self.complaints.append(text)
