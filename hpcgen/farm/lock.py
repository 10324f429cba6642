"""One run at a time in a run folder, across hosts and after kills.

The owner keeps an flock on a small file, in which it says who it is, and touches the file every few seconds. A start
that finds the flock taken is refused. One that gets it although the file names an owner must know what the flock is
worth: on the owner's own host it says that the owner is dead; from another host perhaps nothing (some file systems
keep flocks to the node, or have none), so there the start waits for a sign of life, by its own clock, before it takes
over. An owner that finds another name in the file has been taken over, and stops. The end of a run empties the file.

There are two such files. `hpcgen run` or a stage that is started by itself owns `run.lock`. The ranks of a stage that
`hpcgen run` starts, perhaps on other hosts, are let in by a token in their environment, and their leader owns
`stage.lock`: if `hpcgen run` is killed and they are not, the next start sees that they still write.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcgen.errors import RunFolderError
from hpcgen.farm.lockfile import LockFile, Owner, content_of
from hpcgen.farm.world import World, is_first, show_log

RUN, STAGE = FILES = ("run.lock", "stage.lock")
TOKEN = "HPCGEN_RUN_LOCK"  # variable by which `hpcgen run` lets its stages in
SOLO = "HPCGEN_FARM_SOLO"  # set in a process that does one task for a rank, which holds the lock


@dataclass
class _Held:
    """What `hold` knows on this rank; only the leader has a lock."""

    folder: Path
    file: Path
    purpose: str
    token: str
    lock: LockFile | None = None


_held: _Held | None = None


@contextmanager
def hold(folder: Path, purpose: str, world: World | None = None) -> Iterator[None]:
    """Be the only run in a run folder. Every rank calls it; the leader takes the lock, the others are told of it.

    Within another `hold` of the same folder, and in a process that does one task for a rank, it does nothing.

    Args:
        folder: must exist.
        purpose: what runs, for the message to others: `hpcgen relax`.
        world: the ranks, where MPI connects them; else each process knows by its launcher whether it is the first.

    Raises:
        RunFolderError: if another run owns the folder; the message says which, and how to end it.
        LaunchError: if a rank dies meanwhile.
    """
    global _held
    if solo() or (_held is not None and _held.folder == folder.resolve()):
        yield
        return
    parent, ranks = os.environ.get(TOKEN, ""), world or World()
    file = folder.resolve() / (STAGE if parent else RUN)
    mine = _Held(file.parent, file, purpose, secrets.token_hex(8))
    if (ranks.rank == 0) if ranks.comm is not None else is_first():
        mine.lock = _take(mine, parent)
    before, _held = _held, mine
    try:
        if ranks.comm is not None:
            token = np.frombuffer(bytearray(mine.token.encode()), np.uint8)
            mine.token = ranks.share(token).tobytes().decode()
        yield
    finally:
        _held = before
        if mine.lock is not None:
            mine.lock.release()


def inherit() -> None:
    """Called on a rank that leads because the leader before it is dead: the lock is its own, and its log is shown.

    Raises:
        RunFolderError: if another run has taken the folder meanwhile.
    """
    show_log()
    if _held is not None and _held.lock is None:
        lock = LockFile(_held.file, _held.purpose, _held.token)
        lock.take(inherited=True)
        _held.lock = lock


def lost() -> bool:
    """Whether another run has taken the folder over, so that nothing may be written any more. Costs nothing."""
    return _held is not None and _held.lock is not None and _held.lock.lost


def check() -> None:
    """Raise if the folder is lost.

    Raises:
        RunFolderError: the message names the new owner.
    """
    if _held is None or not lost():
        return
    try:
        owner = Owner.read(content_of(_held.file), _held.file)
    except (OSError, RunFolderError):
        owner = None
    raise RunFolderError(
        f"{_held.folder} was taken over by {owner or 'nobody, but its lock was removed'}, so this run stops",
        expected="one run at a time in a run folder; this one was silent for so long that it counted as dead",
        remedy="nothing, if the other run is the one you want: what this one has committed is used by it",
    )


def pass_on() -> dict[str, str]:
    """Variables that let the stage programs in, which this run starts."""
    return {TOKEN: _held.token} if _held is not None and _held.lock is not None else {}


def solo() -> bool:
    """Whether this process does one task for a rank, so that it changes nothing in the run folder."""
    return bool(os.environ.get(SOLO))


def _take(held: _Held, parent: str) -> LockFile:
    """The lock of this run: past the other file, so that neither a run nor a stage overlooks one of the other kind."""
    lock = LockFile(held.file, held.purpose, held.token)
    lock.take()
    try:
        other = held.file.with_name(RUN if parent else STAGE)
        content = content_of(other)
        owner = Owner.read(content, other)
        if parent and (owner is None or owner.token != parent):
            raise RunFolderError(
                f"the hpcgen run that started this program no longer owns {other.parent}",
                expected=f"the token of {TOKEN} in {other.name}",
                remedy=f"start `hpcgen run` again; by hand: unset {TOKEN}",
            )
        if not parent and content:
            orphan = LockFile(other, held.purpose, held.token)
            orphan.take()
            orphan.release()
    except BaseException:
        lock.release()
        raise
    return lock


def _forget_in_fork() -> None:
    """A forked child shares the flock and would keep it after the death of its parent."""
    global _held
    if _held is not None and _held.lock is not None:
        _held.lock.close()
    _held = None


os.register_at_fork(after_in_child=_forget_in_fork)
