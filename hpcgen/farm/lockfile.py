"""A file that one process owns at a time, on whatever file system and host; see `hpcgen.farm.lock` for the rules."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hpcgen.errors import RunFolderError

log = logging.getLogger("hpcgen")
HEARTBEAT = 5.0  # seconds between signs of life
SILENCE = 4  # heartbeats without one, after which an owner on another host counts as dead
FIRST_LOOK = 1.0  # seconds after which a new owner looks whether another start took the file at the same moment
SUCCESSION = 5.0  # seconds in which the kernel must have let go of a dead leader's flock
_LENGTH = 1024  # of the file's content: a rewrite is one write that never changes the length


@dataclass(frozen=True)
class Owner:
    """What the file says of its owner.

    Attributes:
        token: random, of the run: a leader that succeeds a dead one keeps it.
        purpose: `hpcgen run`, or the command of the stage.
        host: name of the node.
        boot: of the kernel, so that two hosts of one name are not taken for one.
        pid: on that host.
        job: of Slurm, or empty.
        started: UTC.
    """

    token: str
    purpose: str
    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=lambda: _boot())
    pid: int = field(default_factory=os.getpid)
    job: str = field(default_factory=lambda: os.environ.get("SLURM_JOB_ID", ""))
    started: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, under this kernel."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"{self.purpose} on {self.host}, process {self.pid}{job}, since {self.started}"

    def written(self) -> bytes:
        """The content of the file."""
        return json.dumps(asdict(self)).encode().ljust(_LENGTH - 1) + b"\n"

    @classmethod
    def read(cls, content: bytes, file: Path) -> Owner | None:
        """The owner, or None if the content is blank, as after a crash of the node.

        Raises:
            RunFolderError: if it is something else.
        """
        if not content.strip(b"\0 \n"):
            return None
        try:
            fields = json.loads(content)
            return cls(**{name: fields[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(
                f"{file} is no lock of this version of hpcgen",
                remedy=f"make sure that nothing runs in {file.parent}, then rm {file}",
            ) from None


class LockFile:
    """One such file."""

    def __init__(self, file: Path, purpose: str, token: str) -> None:
        self.file, self.owner = file, Owner(token, purpose)
        self.lost = False
        self._content = self.owner.written()
        self._fd = -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"hpcgen {file.name}", daemon=True)

    def take(self, *, inherited: bool = False) -> None:
        """Become the owner.

        Args:
            inherited: the owner of this token is known to be dead, and this process is its heir.

        Raises:
            RunFolderError: if somebody else is the owner, or the folder cannot be written.
        """
        try:
            self._fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise RunFolderError(
                f"{self.file} cannot be opened for writing: {error.strerror}",
                remedy="check the permissions of the run folder, or use another one (--run-dir)",
            ) from None
        try:
            self._settle_with_owner(inherited)
            os.pwrite(self._fd, self._content, 0)
            os.fsync(self._fd)
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def release(self) -> None:
        """Leave the file empty, so that the next start need not ask who the owner was."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * HEARTBEAT)  # it may hang with the file system
        with suppress(OSError):
            if not self.lost and content_of(self.file) == self._content:
                os.ftruncate(self._fd, 0)
                os.fsync(self._fd)
        self.close()

    def close(self) -> None:
        """Let go of the flock."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _settle_with_owner(self, inherited: bool) -> None:
        """Return once nobody else owns the file."""
        deadline = time.monotonic() + (SUCCESSION if inherited else 0.0)
        while (locked := _flock(self._fd)) is False and time.monotonic() < deadline:
            time.sleep(0.05)
        content = content_of(self.file)
        owner = Owner.read(content, self.file)
        if locked is False:
            raise _refusal(self.file, owner)
        if inherited:
            if owner is None or owner.token != self.owner.token:
                raise _refusal(self.file, owner)
        elif owner is not None and ((locked and owner.is_here) or self._stays_silent(owner)):
            log.warning("the last run in %s has died (%s): taking over", self.file.parent, owner)

    def _stays_silent(self, owner: Owner) -> bool:
        """Wait for a sign of life of the owner, which would be a refusal; False if it ends meanwhile."""
        wait = SILENCE * HEARTBEAT
        log.warning("%s was in use by %s: waiting %g s for a sign of life", self.file.parent, owner, wait)
        before, deadline = _signs(self.file), time.monotonic() + wait
        while time.monotonic() < deadline:
            time.sleep(HEARTBEAT / 10)
            now = _signs(self.file)
            if not now[1]:
                return False
            if now != before:
                raise _refusal(self.file, Owner.read(now[1], self.file))
        return True

    def _live(self) -> None:
        """The heartbeat. It never writes content, so a late one cannot overwrite a new owner."""
        pause = min(FIRST_LOOK, HEARTBEAT)
        while not self._over.wait(pause):
            pause = HEARTBEAT
            try:
                if content_of(self.file) != self._content:
                    self.lost = True
                    log.error("%s: this run no longer owns it (%s)", self.file, self.owner)
                    return
                os.utime(self._fd)
            except OSError:  # a file system in trouble; others see the silence
                continue


def _flock(fd: int) -> bool | None:
    """True: got it. False: another process has it. None: this file system has no flock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        log.debug("no flock: %s", error)
        return None


def _signs(file: Path) -> tuple[int, bytes]:
    """Time of the last heartbeat, and the content. Opened anew each time, which is when NFS asks the server."""
    try:
        with file.open("rb") as f:
            return os.fstat(f.fileno()).st_mtime_ns, f.read(_LENGTH)
    except FileNotFoundError:
        return 0, b""


def content_of(file: Path) -> bytes:
    return _signs(file)[1]


def _refusal(file: Path, owner: Owner | None) -> RunFolderError:
    who = str(owner) if owner else "a process that has just started"
    end = "wait for it"
    if owner:
        end += f", or end it (scancel {owner.job})" if owner.job else f", or end it (kill {owner.pid} on {owner.host})"
    return RunFolderError(
        f"{file.parent} is in use by another run: {who}",
        expected="one run at a time in a run folder",
        remedy=f"{end}; if it is certainly gone: rm {file}",
    )


def _boot() -> str:
    """Identity of the running kernel, empty if it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
