"""What happens in a round of `benchmarks/chaos.py`, drawn from its seed before it begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANK_KILL, JOB_KILL, LAUNCHER_KILL = "rank-kill", "job-kill", "launcher-kill"
KILLS = (RANK_KILL, JOB_KILL, LAUNCHER_KILL)
TERM_RANK, TERM_LAUNCHER, USR1_RANK, USR1_LAUNCHER = "term-rank", "term-launcher", "usr1-rank", "usr1-launcher"
STOP_SIGNALS = (TERM_RANK, TERM_LAUNCHER, USR1_RANK, USR1_LAUNCHER)
DISK_FULL, SECOND_START = "disk-full", "second-start"
TRUNCATED, FLIPPED, JOURNAL = "shard-truncated", "shard-flipped", "journal-damaged"
LAUNCH, WORK, COMMIT, MERGE = "launch", "work", "commit", "merge"
MAX_STARTS = 6  # undisturbed starts that a round may need after the disturbed ones


@dataclass(frozen=True)
class Disturbance:
    """One thing that goes wrong during a start.

    Attributes:
        kind: what.
        moment: `launch` (so many seconds after the start), `work` (when a part of the open tasks was computed),
            `commit` (then, when a shard grows next), `merge` (after the last task).
        part: of the open tasks, for `work` and `commit`.
        delay: seconds after the moment.
        rank_0: whether it hits rank 0 or one of the others.
        choice: in [0, 1), which of the others; of a full disk, the room that is left; the size of a second start.
        frozen: of a rank that is killed, whether it is stopped and what is committed looked up before; of a launcher,
            whether the next start begins at once, while the ranks may still be there.
    """

    kind: str
    moment: str
    part: float
    delay: float
    rank_0: bool
    choice: float
    frozen: bool


@dataclass(frozen=True)
class Damage:
    """What is done to the shard folder between two starts: places are fractions of its files and bytes."""

    kind: str
    file: float
    places: tuple[float, ...]
    masks: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """One start of the program: 0 ranks stands for a process without MPI."""

    ranks: int
    ulfm: bool
    disturbances: tuple[Disturbance, ...] = ()
    damage: Damage | None = None


@dataclass(frozen=True)
class Plan:
    """A round: disturbed starts, then as many undisturbed ones as it takes, of the shape of `last`."""

    number: int
    starts: tuple[Start, ...]
    last: tuple[Start, ...]
    killers: tuple[int, ...]
    hanging: tuple[int, ...]
    small_disk: bool


def draw(seed: int, number: int, ranks: int, tasks: int, can_mount: bool) -> Plan:
    """The plan of round `number`; nothing but these arguments decides it."""
    rng = np.random.default_rng([seed, number])
    killers: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    special = rng.random()
    if special < 0.2:
        killers = tuple(int(i) for i in rng.choice(tasks, size=rng.integers(1, 3), replace=False))
    elif special < 0.3:
        hanging = (int(rng.integers(tasks)),)
    small_disk = bool(rng.random() < 0.25) and can_mount
    n = int(rng.integers(2, 5))
    starts = tuple(_start(rng, ranks, small_disk, exclusive=not (killers or hanging)) for _ in range(n))
    last = tuple(Start(*_world(rng, ranks)) for _ in range(MAX_STARTS + len(killers)))
    return Plan(number, starts, last, killers, hanging, small_disk)


def _world(rng: np.random.Generator, ranks: int) -> tuple[int, bool]:
    alone = rng.random() < 0.15
    return (0, False) if alone else (int(rng.integers(2, ranks + 1)), bool(rng.random() < 0.4))


def _start(rng: np.random.Generator, ranks: int, small_disk: bool, exclusive: bool) -> Start:
    size, ulfm = _world(rng, ranks)
    kinds = [RANK_KILL] * 4 + [JOB_KILL] * 2 + [LAUNCHER_KILL] + [*STOP_SIGNALS]
    kinds += [SECOND_START] * 2 if exclusive else []
    kinds += [DISK_FULL] * 4 if small_disk else []
    first = _disturbance(rng, str(rng.choice(kinds)))
    disturbances = [first]
    if ulfm and first.kind == RANK_KILL and rng.random() < 0.5:
        disturbances.append(_disturbance(rng, RANK_KILL))
    damage = _damage(rng) if rng.random() < 0.45 else None
    return Start(size, ulfm, tuple(disturbances), damage)


def _disturbance(rng: np.random.Generator, kind: str) -> Disturbance:
    moment = str(rng.choice([LAUNCH, WORK, COMMIT, MERGE], p=[0.15, 0.4, 0.3, 0.15]))
    longest = {LAUNCH: 1.5, WORK: 0.05, COMMIT: 0.003, MERGE: 0.3}[moment]
    return Disturbance(
        kind=kind,
        moment=moment,
        part=float(rng.uniform(0.0, 0.8)),
        delay=float(rng.uniform(0.0, longest)),
        rank_0=bool(rng.random() < 0.5),
        choice=float(rng.random()),
        frozen=bool(rng.random() < 0.5),
    )


def _damage(rng: np.random.Generator) -> Damage:
    kind = str(rng.choice([TRUNCATED, FLIPPED, JOURNAL], p=[0.45, 0.45, 0.1]))
    count = int(rng.integers(1, 33)) if kind == FLIPPED else 1
    places = tuple(float(x) for x in rng.random(count))
    return Damage(kind, float(rng.random()), places, tuple(int(m) for m in rng.integers(1, 256, count)))
