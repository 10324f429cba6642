"""`hpcgen doctor`: is everything here that a run needs, on every rank, and what to do where it is not.

Works alone, under mpiexec and under srun. Rank 0 prints one line per check. A *problem* would stop a run or spoil it;
a *warning* makes it slow, fragile or hard to read. Nothing is left behind in the run folder.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from hpcgen import farm
from hpcgen.config import Config
from hpcgen.doctor import device, dft, facts, folder, launch, node, software
from hpcgen.doctor.finding import Finding
from hpcgen.errors import LaunchError
from hpcgen.farm import survey

__all__ = ["Finding", "examine", "page"]

WIDTH = 110


def examine(config: Config | None, run_folder: Path, *, vasp: bool = True) -> list[Finding]:
    """Every finding, in the order of the page, on every rank. All ranks call it.

    Args:
        config: of the campaign, or None to look at the machine alone.
        run_folder: where the campaign runs; need not exist.
        vasp: look at VASP too, if the configuration has it.
    """
    broken: LaunchError | None = None
    try:
        world = farm.world()
    except LaunchError as error:  # the ranks do not see each other: each looks at its own place
        broken, world = error, farm.World()
    ranks = survey.gather(facts.of_this_rank(config), world)
    clocks = survey.gather({"clock": time.time()}, world)  # the gathering before has brought the ranks together
    return [
        *software.findings(ranks, config),
        *launch.findings(ranks, broken),
        *node.findings(ranks, [c["clock"] for c in clocks]),
        *device.findings(ranks, config, world),
        *folder.findings(ranks, config, run_folder, world),
        *(dft.findings(config, run_folder, world) if vasp else ()),
    ]


def page(findings: Sequence[Finding]) -> str:
    """The findings as text, with a summary as the last line."""
    lines = []
    for f in findings:
        head = f"{f.status:<8} {f.subject:<11} "
        lines += textwrap.wrap(f.found, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [head]
        if f.remedy:
            lead = " " * 9 + f"{'remedy:':<11} "
            lines += textwrap.wrap(f.remedy, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))
    counts = {status: sum(f.status == status for f in findings) for status in ("problem", "warning")}
    said = [f"{n} {status}{'s' if n > 1 else ''}" for status, n in counts.items() if n]
    lines.append(f"doctor: {' and '.join(said)}" if said else "doctor: everything is as it should be")
    return "\n".join(lines)
