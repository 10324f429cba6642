"""A private Slurm of four virtual nodes (env/virtual_slurm.sh), and the questions that tests ask it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "env/virtual_slurm.sh"
NODES, CPUS = 4, 2
PATIENCE = 300.0  # seconds; on a busy machine everything takes its time


class VirtualCluster:
    """Starts with `start`; `environment` is what programs need to talk to it."""

    def __init__(self) -> None:
        # socket paths are limited to 108 characters, which pytest's folders can exceed
        self.folder = Path("/tmp") / f"hpcgen-slurm-{os.getpid()}"
        foreign = ("SLURM_", "OMPI_COMM", "PMIX_", "PRTE_", "HPCGEN_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "HPCGEN_VENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",  # the host names of virtual nodes mean nothing to the resolver
        }

    @staticmethod
    def lacks() -> str:
        """Why there can be no cluster here; empty if there can."""
        if os.geteuid() != 0:
            return "a virtual Slurm needs root"
        if shutil.which("slurmctld") is None:
            return "no Slurm: apt-get install --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge libpmix2"
        return ""

    def start(self) -> str:
        """Start the daemons on free ports; the reason if that fails three times."""
        said = ""
        for _ in range(3):
            environment = self.environment | {"HPCGEN_SLURM_PORT": str(_free_ports(NODES + 1))}
            command = [str(SCRIPT), "start", str(self.folder), str(NODES), str(CPUS)]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return ""
            said = result.stdout + result.stderr
            self.stop()
        return f"the virtual Slurm did not start: {said}"

    def stop(self) -> None:
        """End the daemons and whatever their jobs left."""
        subprocess.run([str(SCRIPT), "stop", str(self.folder)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path, **options) -> subprocess.CompletedProcess[str]:
        """A command that talks to the cluster."""
        environment = self.environment | options.pop("env", {})
        options = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": True} | options
        return subprocess.run([*map(str, command)], env=environment, **options)

    def submit(self, script: str, run: Path, log: Path, *options: str, **environment: str) -> str:
        """Submit a script of slurm/ for a run folder, from another folder than the repository. The job's number."""
        command = ["sbatch", "--parsable", f"--output={log}", *options, ROOT / "slurm" / script]
        return self.run(*command, run / "config.yaml", run, cwd=run.parent, env=environment).stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm says of a job, by key."""
        shown = self.run("scontrol", "show", "--oneliner", "job", job).stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def finish(self, job: str, log: Path) -> dict[str, str]:
        """Wait until a job has ended for good, and return what Slurm says of it."""
        ongoing = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "NODE_FAIL")
        wait(lambda: self.job(job)["JobState"] not in ongoing, f"the end of job {job}", log)
        return self.job(job)

    def rank_of(self, job: str, rank: int) -> int:
        """Process of a rank that mpiexec started in a job."""
        wanted = {f"SLURM_JOB_ID={job}", f"OMPI_COMM_WORLD_RANK={rank}", f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_text(encoding="utf-8", errors="replace").split("\0")
            except OSError:  # it has ended meanwhile
                continue
            if wanted <= set(variables):
                return int(process.name)
        raise AssertionError(f"no process is rank {rank} of job {job}")

    def kill_node(self, node: str) -> None:
        """SIGKILL for everything on a node: its slurmd, its steps, their tasks."""
        self.run(SCRIPT, "kill-node", self.folder, node)


def running() -> Iterator[VirtualCluster]:
    """A cluster, for a fixture. Skips where there can be none, except in CI, where that is a failure."""
    slurm = VirtualCluster()
    reason = slurm.lacks()
    try:
        reason = reason or slurm.start()
        if reason:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
        yield slurm
    finally:
        slurm.stop()


def wait(condition: Callable[[], bool], what: str, log: Path) -> None:
    """Wait for a condition; the job's log is part of the error."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {what}; the log:\n{text_of(log)}")
        time.sleep(0.1)


def text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    while True:
        base = random.randrange(20000, 29000)
        try:
            for port in range(base, base + count):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
