"""How the processes were started: MPI, its library, Slurm's way to connect the tasks, ranks per node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from hpcgen.doctor.finding import Facts, Finding, by_host, differing, some
from hpcgen.errors import LaunchError

# what mpi4py's library can be started by, as `srun --mpi` calls it
PMI_OF = {"Open MPI": ("pmix",), "MPICH": ("pmi2", "pmix", "cray_shasta"), "Intel": ("pmi2", "pmix")}


def findings(ranks: Sequence[Facts], broken: LaunchError | None) -> Iterator[Finding]:
    library = ranks[0]["mpi"]
    others = differing(ranks, "mpi")
    if others:
        other = ranks[others[0]]
        yield Finding(
            "problem",
            "MPI",
            f"rank 0 uses {library}, but rank {others[0]} on {other['host']} {other['mpi']}",
            "load the same MPI module and activate the same environment on every node",
        )
    elif library.startswith("none"):
        yield Finding(
            "problem" if broken else "warning",
            "MPI",
            f"{library.removeprefix('none: ')}: hpcgen runs as one process",
            "pip install 'hpcgen[mpi]', or build mpi4py with the MPI of this site",
        )
    else:
        version = ranks[0]["packages"].get("mpi4py", "")
        yield Finding("ok", "MPI", f"mpi4py {version} with {library}")
    if broken is not None:
        expected = f" (expected: {broken.expected})" if broken.expected else ""
        yield Finding("problem", "ranks", broken.found + expected, broken.remedy)
    else:
        yield _ranks(ranks)
    if shutil.which("srun"):
        yield _slurm(library)


def _ranks(ranks: Sequence[Facts]) -> Finding:
    nodes = by_host(ranks)
    if len(ranks) == 1:
        return Finding("ok", "ranks", f"this process alone, on {ranks[0]['host']}")
    by = "srun" if "SLURM_STEP_ID" in os.environ and "OMPI_COMM_WORLD_SIZE" not in os.environ else "mpiexec"
    where = some(f"{len(on_node)} on {host}" for host, on_node in nodes.items())
    return Finding("ok", "ranks", f"{len(ranks)} ranks started by {by}, all connected: {where}")


def _slurm(library: str) -> Finding:
    """Whether srun can start this MPI, by what `srun --mpi=list` offers."""
    try:
        listed = subprocess.run(
            ["srun", "--mpi=list"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("warning", "Slurm", f"srun does not answer: {error}", "ask the site's support")
    offered = sorted(set(re.findall(r"\b(?:pmix|pmi2|cray_shasta|pmi1)\b", listed.stdout + listed.stderr)))
    if not offered:
        lines = (listed.stdout + listed.stderr).strip().splitlines() or ["it lists no way to start MPI"]
        if "SLURM_JOB_ID" not in os.environ:
            return Finding("ok", "Slurm", f"srun is installed, but finds no cluster ({lines[0]})")
        return Finding("warning", "Slurm", f"srun cannot be used here: {lines[0]}", "start ranks with mpiexec")
    wanted = next((names for maker, names in PMI_OF.items() if maker in library), ())
    usable = [name for name in wanted if name in offered]
    if usable:
        return Finding("ok", "Slurm", f"offers {', '.join(offered)}; {library} needs srun --mpi={usable[0]}")
    if not wanted:
        return Finding("ok", "Slurm", f"offers {', '.join(offered)}")
    return Finding(
        "warning",
        "Slurm",
        f"offers {', '.join(offered)}, and {library} needs {' or '.join(wanted)}",
        f"start ranks with mpiexec (HPCGEN_LAUNCHER=mpiexec), or use an mpi4py for {' or '.join(offered)}",
    )
