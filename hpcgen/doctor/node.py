"""What the ranks of a node share: cores, memory, limits, and a clock that agrees with the other nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcgen.doctor.facts import UNLIMITED
from hpcgen.doctor.finding import Facts, Finding, by_host, some
from hpcgen.doctor.finding import size as bytes_text

SKEW = 2.0  # seconds; more than the ranks need to tell each other the time, also on a busy node
GIB = 1024**3
MEMORY_PER_RANK = 1.0 * GIB  # a rank that relaxes holds torch and the potential
SHARED_PER_RANK = 16 * 1024**2  # what Open MPI puts into /dev/shm
OPEN_FILES = 1024
PROCESSES_PER_RANK = 32
TEMPORARY = 64 * 1024**2


def findings(ranks: Sequence[Facts], clocks: Sequence[float]) -> Iterator[Finding]:
    yield _cores(ranks)
    yield _memory(ranks)
    yield _limits(ranks)
    if len(ranks) > 1:
        yield _clocks(ranks, clocks)


def _cores(ranks: Sequence[Facts]) -> Finding:
    """Threads asked for against cores allowed, on the worst node."""
    crowded: list[tuple[float, str, str, str]] = []
    for host, here in by_host(ranks).items():
        cores = sorted({core for facts in here for core in facts["cores"]})
        if len(here) == 1:
            continue
        if len(cores) < len(here) and len(cores) < here[0]["cpus"]:
            text = f"{len(here)} ranks on {host} are pinned to {len(cores)} of its {here[0]['cpus']} cores"
            remedy = "srun --cpu-bind=cores with --cpus-per-task, or mpiexec --bind-to none; check --ntasks-per-node"
            crowded.append((len(here) / len(cores), text, f"core {some(cores)}", remedy))
            continue
        threads = sum(_number(facts["threads"]) or len(facts["cores"]) for facts in here)
        if threads > len(cores):
            unset = not all(facts["threads"] for facts in here)
            each = "OMP_NUM_THREADS is not set" if unset else f"OMP_NUM_THREADS={here[0]['threads']}"
            text = f"{len(here)} ranks on {host} have {len(cores)} cores for {threads} threads ({each})"
            fitting = max(len(cores) // len(here), 1)
            remedy = f"export OMP_NUM_THREADS={fitting}" if fitting * len(here) <= len(cores) else "start fewer ranks"
            crowded.append((threads / len(cores), text, "", remedy))
    if crowded:
        _, text, detail, remedy = max(crowded)
        return Finding("warning", "cores", text + (f": {detail}" if detail else ""), remedy)
    counts = sorted({len(facts["cores"]) for facts in ranks})
    allowed = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    setting = ranks[0]["threads"]
    per = "a rank may use" if len(ranks) > 1 else "this process may use"
    said = f"OMP_NUM_THREADS={setting}" if setting else "OMP_NUM_THREADS is not set"
    return Finding("ok", "cores", f"{per} {allowed} of {ranks[0]['cpus']} cores; {said}")


def _memory(ranks: Sequence[Facts]) -> Finding:
    nodes = by_host(ranks)
    host = min(nodes, key=lambda h: nodes[h][0]["memory"] / len(nodes[h]))
    count = len(nodes[host])
    left = min(facts["memory"] for facts in nodes[host])
    share = left / count
    text = f"{bytes_text(left)} left on {host}"
    text += f" for {count} ranks, {bytes_text(share)} each" if count > 1 else ""
    shared = min(facts["shared"] for facts in nodes[host])
    if share < MEMORY_PER_RANK:
        remedy = "ask for more (--mem or --mem-per-cpu), or start fewer ranks per node"
        return Finding(
            "warning", "memory", f"{text}; relaxing takes about {bytes_text(MEMORY_PER_RANK)} a rank", remedy
        )
    if count > 1 and 0 <= shared < SHARED_PER_RANK * count:
        remedy = "mount a larger /dev/shm (a container needs --shm-size), or ranks may die of SIGBUS"
        return Finding(
            "warning", "memory", f"/dev/shm of {host} has {bytes_text(shared)} free for {count} ranks", remedy
        )
    return Finding("ok", "memory", text)


def _limits(ranks: Sequence[Facts]) -> Finding:
    """ulimits, of the rank that has least of each."""
    least = {name: min((f["limits"][name] for f in ranks), key=_as_number) for name in ("nofile", "nproc", "memlock")}
    most = max(len(here) for here in by_host(ranks).values())
    directory, free = min((facts["temporary"] for facts in ranks), key=lambda t: t[1])
    text = f"{_limit(least['nofile'])} open files, {_limit(least['nproc'])} processes, "
    text += f"{_limit(least['memlock'], bytes_text)} locked memory, {bytes_text(free)} in {directory}"
    remedy = ""
    if _as_number(least["nofile"]) < OPEN_FILES:
        remedy = f"ulimit -n {OPEN_FILES} or more, before the ranks start"
    elif _as_number(least["nproc"]) < PROCESSES_PER_RANK * most:
        remedy = "raise ulimit -u: the threads of all your processes on a node count"
    elif Path("/sys/class/infiniband").exists() and least["memlock"] != UNLIMITED:
        remedy = "ulimit -l unlimited: InfiniBand needs it, and the site sets it for Slurm's jobs"
    elif 0 <= free < TEMPORARY:
        remedy = "set TMPDIR to a folder with more space: MPI keeps its session files there"
    return Finding("warning" if remedy else "ok", "limits", text, remedy)


def _clocks(ranks: Sequence[Facts], clocks: Sequence[float]) -> Finding:
    spread = max(clocks) - min(clocks)
    if spread <= SKEW:
        return Finding("ok", "clocks", f"agree within {spread:.1f} s")
    ahead, behind = (ranks[clocks.index(pick(clocks))]["host"] for pick in (max, min))
    remedy = "times in logs and of files cannot be compared; ask the site's support (ntp), or leave that node out"
    return Finding("warning", "clocks", f"{ahead} is {spread:.0f} s ahead of {behind}", remedy)


def _number(text: str) -> int:
    first = text.split(",")[0]  # OMP_NUM_THREADS may be a list, by level of nesting
    return int(first) if first.isdigit() else 0


def _as_number(limit: int) -> float:
    return float("inf") if limit == UNLIMITED else limit


def _limit(limit: int, show=str) -> str:
    return "unlimited" if limit == UNLIMITED else show(limit)
