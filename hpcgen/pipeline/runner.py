"""How stages are run: one, part of one, or all that are not done, each with its balance in stages.json."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from itertools import count
from typing import Any

from hpcgen import __version__
from hpcgen.errors import EXIT_OK, LaunchError, RunFolderError
from hpcgen.farm import World, agreement, launcher, lock, tasks_launched, world
from hpcgen.farm.world import is_first
from hpcgen.pipeline.order import ASIDE, Stage, chain, stage, work_of
from hpcgen.stages.context import Balance, Context

log = logging.getLogger("hpcgen")

RECORD = "stages.json"
CLAIM_SECONDS = 60.0  # in which a file that another node has made must be seen


def done(context: Context, s: Stage) -> bool:
    """Whether a stage's output is there. Outputs appear by rename only, so a file that is there is complete."""
    return context.path(s.writes).exists()


def run_stage(context: Context, name: str, *, redo: bool = False) -> Balance | None:
    """Run one stage in this process (one of many, if MPI or torchrun started it), unless its output exists.

    Returns:
        The balance on the leader: rank 0, or the next one that is alive. None on the others.

    Raises:
        RunFolderError: if an input is missing, or the folder belongs to another configuration or is in use.
        LaunchError: if the ranks differ in version, configuration or stage, or a stage of one process has several.
    """
    s = work_of(name, context.config)
    run = import_module(f"hpcgen.stages.{name}").run
    if lock.solo():
        return run(context)
    if s.launch == "here" and _started_as_many():
        raise LaunchError(
            f"{name} is the work of one process, and several were started",
            remedy=f"call `hpcgen {name}` without mpiexec and srun, or with --ntasks=1",
        )
    ranks = world() if s.launch == "farm" else World()
    facts = {"hpcgen version": __version__, "Python version": platform.python_version(), "stage": name}
    agreement.check(ranks, facts | {"configuration": context.config.digest()})
    first = is_first() if ranks.comm is None else ranks.rank == 0
    if first:  # where it raises, the others wait below until they are ended with it
        context.check()
    if ranks.decide(done(context, s) and not redo):
        return _reuse(context, s)
    if first:
        _make_folder(context)
    with lock.hold(context.folder, f"hpcgen {name}", ranks):
        if first:
            context.claim()
            if redo:
                set_aside(context, s)
        elif ranks.comm is None:
            _await_claim(context)
        if ranks.decide(done(context, s)):  # by another run, before this one got the lock
            return _reuse(context, s)
        if first:
            _check_inputs(context, s)
        start = time.perf_counter()
        balance = run(context)
        lock.check()
        if balance is not None:
            _record(context, name, time.perf_counter() - start, balance)
            log.info("%s (%.1f s)", balance, time.perf_counter() - start)
        return balance


def run_part(context: Context, name: str, shard: int, shards: int) -> int:
    """One part of a stage in slots (dft, phonons by VASP), beside the others.

    It writes no output, which the stage itself does when all are done.

    Returns:
        0, or the code that batch scripts requeue on.

    Raises:
        RunFolderError: if the folder is no campaign's yet, or inputs are missing.
        UsageError: if the stage is not done in slots.
    """
    s = work_of(name, context.config)
    if _started_as_many():
        raise LaunchError(
            f"a part of {name} is the work of one process, and several were started", remedy="one per job"
        )
    context.check()
    _check_inputs(context, s)
    if done(context, s):
        log.info("%s: %s is already there", name, context.path(s.writes))
        return EXIT_OK
    return import_module(f"hpcgen.stages.{name}").run_shard(context, shard, shards)


def run_all(context: Context, *, until: str | None = None) -> int:
    """Run every unfinished stage; those over ranks or processes as programs of their own.

    Returns:
        0, or the exit code of the stage program that did not succeed (75: stopped by a signal, run again).

    Raises:
        RunFolderError: if the folder belongs to another configuration, another run is using it, or samples of another
            run are not there.
        LaunchError: if this is one of several processes, or a stage cannot be started.
    """
    every = chain(context.config)
    last = stage(until, context.config) if until else every[-1]
    if _started_as_many():
        raise LaunchError(
            "hpcgen run was started as several processes, and it starts the ranks of each stage itself",
            remedy="call `hpcgen run` once, or a single stage such as `srun hpcgen-reconstruct` on all ranks",
        )
    stages = every[: every.index(last) + 1]
    context.check()
    if any(s.name == "reconstruct" and not done(context, s) for s in stages):
        context.check_other_samples()
    finished = all(done(context, s) for s in stages)
    if not finished:
        _make_folder(context)
    with nullcontext() if finished else lock.hold(context.folder, "hpcgen run"):
        context.claim()
        for s in stages:
            if done(context, s):
                log.info("%-11s reused %s", s.name, context.path(s.writes))
            elif code := _run_unfinished(context, s):
                return code
    return EXIT_OK


def _run_unfinished(context: Context, s: Stage) -> int:
    """Run a stage here or as programs of its own, whichever it wants; 0, or the exit code of the program."""
    command = command_for(context, s)
    log.info("%-11s %s%s", s.name, s.does, f"  [{' '.join(command[:4])} ...]" if command else "")
    if command is None:
        run_stage(context, s.name)
        return EXIT_OK
    _check_inputs(context, s)
    code = launcher.run_program(command)
    lock.check()
    if code != EXIT_OK:
        log.error("%s stopped with exit code %d; the same command resumes here", s.name, code)
    elif not done(context, s):  # with fault tolerance mpiexec does not count killed ranks, even if none is left
        raise LaunchError(
            f"{s.name} ended with exit code 0 but {context.path(s.writes)} is not there: all its ranks were killed, "
            "or never started",
            remedy=f"look for the reason (memory?), then run again: it resumes. By hand: {' '.join(command)}",
        )
    return code


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
        return [sys.executable, "-m", "hpcgen.train.local", str(n), *stage_command]
    if s.launch == "here":
        return None
    device = context.config.sample.device if s.name == "sample" else context.config.relax.device
    gpu = s.gpu and device != "cpu"
    return launcher.ranks_command(context.config.farm, stage_command, gpu=gpu)


def set_aside(context: Context, s: Stage) -> None:
    """Move the outputs of a stage and of all that rests on it to `old/<time>/`: nothing is ever overwritten."""
    stages = chain(context.config)
    later = stages[stages.index(s) :] if s in stages else (s,)
    later += tuple(work for work in ASIDE if any(other.writes in work.reads for other in later))
    names = [name for out in later for name in (out.writes, *out.beside) if context.path(name).exists()]
    # unfinished work on what is set aside
    names += [f.name for other in later for f in context.folder.glob(f"shards-{other.name}*")]
    if names:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        places = (context.path("old") / f"{stamp}{f'-{k}' if k else ''}" for k in count())
        attic = next(place for place in places if not place.exists())
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
    for s in chain(context.config):
        state = "reuse" if done(context, s) else "run  "
        command = None if done(context, s) else command_for(context, s)
        how = " ".join(command) if command else "in this process"
        reads = [*s.reads, *(context.config.reconstruct.more_samples if s.name == "reconstruct" else ())]
        lines.append(f"{state} {s.name:<11} {', '.join(reads) or context.config.data.source} -> {s.writes}  ({how})")
    return lines


def _record(context: Context, name: str, seconds: float, balance: Balance) -> None:
    entries = recorded(context)
    entries[name] = {"stage": name, "seconds": round(seconds, 3), "balance": balance.__dict__}
    ordered = [entries[s.name] for s in (*chain(context.config), *ASIDE) if s.name in entries]
    temporary = context.path(f"{RECORD}.tmp{os.getpid()}")
    temporary.write_text(json.dumps(ordered, indent=1), encoding="utf-8")
    temporary.replace(context.path(RECORD))


def _reuse(context: Context, s: Stage) -> Balance | None:
    log.info("%s: %s is already there (--redo computes it again)", s.name, context.path(s.writes))
    entry = recorded(context).get(s.name)
    return Balance(**entry["balance"]) if entry else None


def _make_folder(context: Context) -> None:
    try:
        context.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"{context.folder} cannot be made: {error.strerror}", remedy="give another folder with --run-dir"
        ) from None


def _await_claim(context: Context) -> None:
    """Processes without MPI wait for the first one to make the run folder, then check it too."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while not context.path("config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    context.check()


def _started_as_many() -> bool:
    return tasks_launched(os.environ) != 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _check_inputs(context: Context, s: Stage) -> None:
    writers = {other.writes: other.name for other in chain(context.config)}
    for name in s.reads:
        if not context.path(name).exists():
            raise RunFolderError(
                f"{s.name} needs {context.path(name)}, which is not there",
                remedy=f"run `hpcgen {writers[name]}` first, or `hpcgen run` for the whole chain",
            )
