"""The stages of a campaign in order: what each reads, what it writes, and how it is started.

`hpcgen run` walks through `STAGES` and resumes at the first one whose output is missing. Each stage is a module
of `hpcgen.stages` with one function `run(context) -> Balance`; nothing else knows the order.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from hpcgen.errors import EXIT_OK, LaunchError, RunFolderError, UsageError
from hpcgen.farm import tasks_launched
from hpcgen.stages.context import Balance, Context

log = logging.getLogger("hpcgen")


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: also the command `hpcgen NAME` and the module `hpcgen.stages.NAME`.
        reads: files of the run folder that must exist before.
        writes: the file or folder whose existence says that the stage is done.
        launch: `here` in this process, `farm` over MPI ranks, `ddp` over training processes.
        does: one line for `--help` and the documentation.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    launch: Literal["here", "farm", "ddp"]
    does: str


STAGES: tuple[Stage, ...] = (
    Stage("data", (), "dataset.h5", "here", "read, reduce, validate and split the training structures"),
    Stage("train", ("dataset.h5",), "checkpoint.pt", "ddp", "fit the generator to the training split"),
    Stage("sample", ("checkpoint.pt",), "samples.h5", "here", "draw samples from the generator"),
    Stage("reconstruct", ("samples.h5",), "candidates.h5", "farm", "turn samples into crystals"),
    Stage("screen", ("candidates.h5", "dataset.h5"), "survivors.h5", "here", "drop what is invalid or a duplicate"),
    Stage("relax", ("survivors.h5", "candidates.h5"), "relaxed-mlip.h5", "farm", "relax with the ML potential"),
    Stage("reference", ("survivors.h5", "dataset.h5"), "reference.h5", "farm", "collect the competing phases"),
    Stage("hull", ("relaxed-mlip.h5", "reference.h5", "dataset.h5"), "stability.h5", "here", "energies above the hull"),
    Stage("report", ("stability.h5",), "report", "here", "write report/index.html, stability.csv and the CIFs"),
)

RECORD = "stages.json"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        UsageError: if there is none.
    """
    for s in STAGES:
        if s.name == name:
            return s
    raise UsageError(f"there is no stage {name!r}", expected=f"one of {', '.join(s.name for s in STAGES)}")


def done(context: Context, s: Stage) -> bool:
    """Whether a stage's output is there. Outputs appear by rename only, so a file that is there is complete."""
    return context.path(s.writes).exists()


def is_main_process() -> bool:
    """Whether this process is rank 0 of what started it (torchrun, mpiexec, srun), or alone."""
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):  # the innermost launcher counts
        if name in os.environ:
            return int(os.environ[name]) == 0
    return "SLURM_STEP_ID" not in os.environ or int(os.environ.get("SLURM_PROCID", "0")) == 0


def run_stage(context: Context, name: str, *, redo: bool = False) -> Balance | None:
    """Run one stage in this process (one of many, if MPI or torchrun started it), unless its output exists.

    Returns:
        The balance on rank 0, None on the others.

    Raises:
        RunFolderError: if an input is missing, or the folder belongs to another configuration.
    """
    s = stage(name)
    _claim(context)
    if redo and is_main_process():
        set_aside(context, s)
    if done(context, s) and not redo:
        balance = recorded(context).get(name)
        if is_main_process():
            log.info("%s: %s is already there (--redo computes it again)", name, context.path(s.writes))
        return Balance(**balance["balance"]) if balance else None
    _check_inputs(context, s)
    start = time.perf_counter()
    balance = import_module(f"hpcgen.stages.{name}").run(context)
    if balance is not None and is_main_process():
        _record(context, name, time.perf_counter() - start, balance)
        log.info("%s (%.1f s)", balance, time.perf_counter() - start)
    return balance


def run_all(context: Context, *, until: str | None = None) -> int:
    """Run every unfinished stage; those over ranks or processes as programs of their own.

    Returns:
        0, or the exit code of the stage program that did not succeed (75: stopped by a signal, run again).
    """
    last = stage(until).name if until else STAGES[-1].name
    if _started_as_many():
        raise LaunchError(
            "hpcgen run was started as several processes, and it starts the ranks of each stage itself",
            remedy="call `hpcgen run` once, or a single stage such as `srun hpcgen-reconstruct` on all ranks",
        )
    context.claim()
    for s in STAGES:
        if done(context, s):
            log.info("%-11s reused %s", s.name, context.path(s.writes))
        else:
            command = command_for(context, s)
            log.info("%-11s %s%s", s.name, s.does, f"  [{' '.join(command[:4])} ...]" if command else "")
            if command is None:
                run_stage(context, s.name)
            else:
                _check_inputs(context, s)
                code = _run_program(command)
                if code != EXIT_OK:
                    log.error("%s stopped with exit code %d; the same command resumes here", s.name, code)
                    return code
                if not done(context, s):
                    raise LaunchError(
                        f"{s.name} ended with exit code 0 but {context.path(s.writes)} is not there",
                        remedy=f"run `{' '.join(command)}` by hand and look at its output",
                    )
        if s.name == last:
            break
    return EXIT_OK


def command_for(context: Context, s: Stage) -> list[str] | None:
    """The program that `run_all` starts for a stage, or None where this process does it itself.

    Raises:
        LaunchError: if the configuration asks for a launcher that is not on this machine.
    """
    stage_command = [sys.executable, "-m", "hpcgen", s.name, str(context.path("config.yaml")), "--run-dir"]
    stage_command.append(str(context.folder))
    if s.launch == "ddp":
        n = context.config.train.processes
        if n == 1:
            return None
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={n}",
            *stage_command[1:],
        ]
    if s.launch == "here":
        return None
    farm = context.config.farm
    ranks = farm.ranks or len(os.sched_getaffinity(0))
    launcher = farm.launcher
    if launcher == "auto":
        launcher = "srun" if "SLURM_JOB_ID" in os.environ and _find("srun") else "mpiexec" if _has_mpi() else "none"
    if launcher == "none" or (launcher == "mpiexec" and ranks == 1):
        return None
    program = _find(launcher)
    if program is None:
        raise LaunchError(
            f"farm.launcher is {launcher}, and there is no {launcher} on this machine",
            remedy="pip install 'hpcgen[mpi]', load the site's MPI module, or set farm.launcher=none",
        )
    if launcher == "srun":  # sizes come from the allocation, never written twice
        return [program, "--mpi=pmix", *stage_command]
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [program, *root, "--oversubscribe", "-n", str(ranks), *stage_command]


def set_aside(context: Context, s: Stage) -> None:
    """Move the outputs of a stage and of all later ones to `old/<time>/`: nothing is ever overwritten."""
    names = [later.writes for later in STAGES[STAGES.index(s) :] if done(context, later)]
    names += [f.name for f in context.folder.glob("shards-*")]  # unfinished work on what is set aside
    if names:
        attic = context.path("old") / time.strftime("%Y%m%dT%H%M%S")
        attic.mkdir(parents=True)
        for name in names:
            shutil.move(str(context.path(name)), str(attic / name))
        log.info("moved %s to %s", ", ".join(names), attic)


def recorded(context: Context) -> dict[str, dict[str, Any]]:
    """`stages.json` by stage name: seconds and balance of each finished stage."""
    file = context.path(RECORD)
    if not file.exists():
        return {}
    return {entry["stage"]: entry for entry in json.loads(file.read_text(encoding="utf-8"))}


def plan(context: Context) -> list[str]:
    """What `hpcgen run` would do, a line per stage (`--dry-run`)."""
    lines = []
    for s in STAGES:
        state = "reuse" if done(context, s) else "run  "
        command = None if done(context, s) else command_for(context, s)
        how = " ".join(command) if command else "in this process"
        lines.append(f"{state} {s.name:<11} {', '.join(s.reads) or context.config.data.source} -> {s.writes}  ({how})")
    return lines


def _record(context: Context, name: str, seconds: float, balance: Balance) -> None:
    entries = recorded(context)
    entries[name] = {"stage": name, "seconds": round(seconds, 3), "balance": balance.__dict__}
    ordered = [entries[s.name] for s in STAGES if s.name in entries]
    temporary = context.path(f"{RECORD}.tmp{os.getpid()}")
    temporary.write_text(json.dumps(ordered, indent=1), encoding="utf-8")
    temporary.replace(context.path(RECORD))


def _claim(context: Context) -> None:
    """Rank 0 makes or checks the run folder; the others wait for it, then check it too."""
    if not is_main_process():
        deadline = time.monotonic() + 60
        while not context.path("config.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    context.claim()


def _started_as_many() -> bool:
    return tasks_launched(os.environ) != 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _run_program(command: list[str]) -> int:
    """Run a stage's program; SIGTERM and SIGUSR1 reach it as SIGUSR1, on which it seals its shards and ends with 75.

    mpiexec answers SIGTERM by ending with 1 whatever its ranks return, but passes SIGUSR1 on to them.
    """
    child = subprocess.Popen(command, env=_child_environment())
    before = {n: signal.signal(n, lambda *_: child.send_signal(signal.SIGUSR1)) for n in STOP_SIGNALS}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:  # Ctrl-C: the ranks got it too
            child.wait()
    return code if code >= 0 else 128 - code


def _check_inputs(context: Context, s: Stage) -> None:
    writers = {other.writes: other.name for other in STAGES}
    for name in s.reads:
        if not context.path(name).exists():
            raise RunFolderError(
                f"{s.name} needs {context.path(name)}, which is not there",
                remedy=f"run `hpcgen {writers[name]}` first, or `hpcgen run` for the whole chain",
            )


def _find(program: str) -> str | None:
    """A program beside this Python (the wheel's mpiexec) or on PATH."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


def _has_mpi() -> bool:
    from importlib.util import find_spec

    return find_spec("mpi4py") is not None and _find("mpiexec") is not None


def _child_environment() -> dict[str, str]:
    """One thread per rank unless the user chose otherwise; ranks that wait must not burn the cores of the others."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    return environment
