"""How a controller works, and what it says at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SlotSettings:
    """How the controller works. Times in seconds.

    Attributes:
        n: slots.
        attempts: that count, per task; then it has failed.
        end: seconds since 1970 when the job is killed; None: never.
        reserve: before `end`, in which running programs are told to stop, and have to.
        shortest: no task is begun with less time than this before the reserve.
        grace: that programs have after a stop signal.
        free: bytes that must be free on the disk for another task to begin.
        interval: between progress lines.
        wrapper: words before the worker's command, such as `srun -N1 --exact --overlap`; `{slot}` is its number.
    """

    n: int = 1
    attempts: int = 3
    end: float | None = None
    reserve: float = 300.0
    shortest: float = 600.0
    grace: float = 60.0
    free: int = 1 << 30
    interval: float = 30.0
    wrapper: tuple[str, ...] = ()


@dataclass
class Summary:
    """How the tasks of one call stand after it. `left`: neither done nor failed."""

    done: int = 0
    failed: int = 0
    left: int = 0
    why: str = ""
