"""The run folder: seen by all nodes, writable by HDF5, locks that hold between nodes, space enough."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcgen.config import Config
from hpcgen.doctor.facts import free_space
from hpcgen.doctor.finding import Facts, Finding, by_host, some
from hpcgen.doctor.finding import size as bytes_text
from hpcgen.errors import RunFolderError, StoreError
from hpcgen.farm import World, lockfile, survey
from hpcgen.farm import lock as run_lock
from hpcgen.store.probe import probe

BYTES_PER_SAMPLE = 10_000  # of all files of a run together
BASE_BYTES = 200 * 1024**2  # data set, model, report
LEAST_BYTES = 20 * 1024**2  # a run that is nearly done needs less than the whole
FEW_FILES = 10_000
PATIENCE = 10.0  # seconds until a new file must be seen by other nodes; NFS caches folders for some


def findings(ranks: Sequence[Facts], config: Config | None, run_folder: Path, world: World) -> Iterator[Finding]:
    """All ranks call it. What is written lies in a folder of its own, which is removed."""
    place = _existing(run_folder)
    token = place / f".hpcgen-doctor-{uuid.uuid4().hex[:12]}"
    told = {"token": str(token), "error": _make(token) if world.rank == 0 else ""}
    told = survey.gather(told, world)[0]
    if told["error"]:
        remedy = "use another run folder (--run-dir), or mend its permissions or quota"
        yield Finding("problem", "folder", f"nothing can be written in {place}: {told['error']}", remedy)
        return
    token = Path(told["token"])
    lock = None
    try:
        lock = _hold(token / "lock") if world.rank == 0 else None
        survey.gather({}, world)  # rank 0 holds the lock before the others try it
        first_of_node = next(i for i, f in enumerate(ranks) if f["host"] == ranks[world.rank]["host"]) == world.rank
        seen = survey.gather(_look(token, world.rank, first_of_node, lock), world)
    finally:
        if lock is not None:
            os.close(lock)
        if world.rank == 0:
            shutil.rmtree(token, ignore_errors=True)
    kind = file_system(place)
    yield _shared(ranks, seen, place, kind)
    yield _locks(ranks, seen, kind)
    yield from _owners(run_folder)
    yield _space(place, config)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    folder = folder.absolute()
    return next(f for f in (folder, *folder.parents) if f.is_dir())


def _make(token: Path) -> str:
    """Make the folder and an empty file `lock` in it; the reason if that fails."""
    try:
        token.mkdir()
        (token / "lock").touch()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _hold(path: Path) -> int | None:
    """A file descriptor that holds an exclusive lock; None where the file system has no locks."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _look(token: Path, rank: int, first_of_node: bool, held: int | None) -> Facts:
    """What this rank sees: `seen`, and from the first rank of each node `error` of HDF5, `seconds`, `lock`."""
    deadline = time.monotonic() + PATIENCE
    while not (token / "lock").exists():
        if time.monotonic() > deadline:
            return {"seen": False}
        time.sleep(0.2)
    if not first_of_node:
        return {"seen": True}
    began = time.monotonic()
    try:
        probe(token, f"rank-{rank}")
        error = ["", ""]
    except StoreError as failed:
        error = [failed.found, failed.remedy]
    seconds = time.monotonic() - began
    if rank == 0:
        lock = "none" if held is None else "held"
    else:
        again = _hold(token / "lock")
        lock = "refused" if again is None else "granted"
        if again is not None:
            os.close(again)
    return {"seen": True, "error": error, "seconds": seconds, "lock": lock}


def _shared(ranks: Sequence[Facts], seen: Sequence[Facts], place: Path, kind: str) -> Finding:
    blind = sorted({ranks[i]["host"] for i, s in enumerate(seen) if not s["seen"]})
    if blind:
        return Finding(
            "problem",
            "folder",
            f"{place} ({kind}) of {ranks[0]['host']} is not the folder of that name on {some(blind)}",
            "use a run folder on a file system that all nodes share",
        )
    for i, s in enumerate(seen):
        if "error" in s and s["error"][0]:
            found, remedy = s["error"]
            return Finding("problem", "folder", f"on {ranks[i]['host']}: {found}", remedy)
    slowest = max(s["seconds"] for s in seen if "seconds" in s)
    nodes = len(by_host(ranks))
    text = f"{place} ({kind}): HDF5 writes, syncs, renames and reads" + (
        f" from all {nodes} nodes" if nodes > 1 else ""
    )
    if slowest > 2.0:
        remedy = "every commit of a rank waits for the disk; ask for a faster file system for run folders"
        return Finding("warning", "folder", f"{text}, but that takes {slowest:.1f} s", remedy)
    return Finding("ok", "folder", f"{text} in {1000 * slowest:.0f} ms")


def _locks(ranks: Sequence[Facts], seen: Sequence[Facts], kind: str) -> Finding:
    """What the lock on a run folder can rest on; HDF5's own locks are not used."""
    loose = sorted({ranks[i]["host"] for i, s in enumerate(seen) if s.get("lock") == "granted"})
    nodes = len(by_host(ranks))
    if not loose and seen[0]["lock"] != "none":
        return Finding("ok", "locks", "hold between nodes" if nodes > 1 else "work on this node")
    what = f"a lock of {ranks[0]['host']} does not hold on {some(loose)}" if loose else f"{kind} has no file locks"
    wait = lockfile.SILENCE * lockfile.HEARTBEAT
    return Finding("ok", "locks", f"{what}: a start after a crash waits {wait:.0f} s to see that the last run is dead")


def _owners(run_folder: Path) -> Iterator[Finding]:
    """Who uses the run folder now."""
    for file in (run_folder / name for name in run_lock.FILES):
        try:
            owner = lockfile.Owner.read(lockfile.content_of(file), file)
        except (OSError, RunFolderError) as error:
            yield Finding("warning", "in use", str(error).splitlines()[0], f"if nothing runs there: rm {file}")
            continue
        if owner is not None:
            yield Finding("ok", "in use", f"by {owner}, or it died there; only one run at a time can have the folder")


def _space(place: Path, config: Config | None) -> Finding:
    free, status = free_space(str(place)), os.statvfs(place)
    need = BASE_BYTES + BYTES_PER_SAMPLE * config.sample.n if config else BASE_BYTES
    text = f"{bytes_text(free)} free" + (f", a run needs about {bytes_text(need)}" if config else "")
    remedy = "free some space, or use a run folder on another file system; a quota may be tighter than this"
    if status.f_files and status.f_favail < FEW_FILES:
        return Finding("warning", "space", f"{text}; room for {status.f_favail} more files only", remedy)
    if free >= need:
        return Finding("ok", "space", text)
    return Finding("problem" if free < LEAST_BYTES else "warning", "space", text, remedy)


def file_system(path: Path) -> str:
    """Type of the file system that holds a path, such as `ext4`, `nfs4`, `lustre`."""
    best, kind = "", "unknown file system"
    with Path("/proc/self/mounts").open(encoding="utf-8") as mounts:
        for line in mounts:
            point, found = line.split()[1:3]
            point = point.replace("\\040", " ")
            if path.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, found
    return kind
