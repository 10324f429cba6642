"""When this job ends, as its batch system says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime


def job_end(walltime: float | None, environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds since 1970 at which this job is killed, or None if nobody knows.

    Args:
        walltime: seconds from now, if the user says so; else Slurm is asked.
        environ: the environment, for tests.
    """
    if walltime is not None:
        return time.time() + walltime
    if re.fullmatch(r"\d+", environ.get("SLURM_JOB_END_TIME", "")):
        return float(environ["SLURM_JOB_END_TIME"])
    job = environ.get("SLURM_JOB_ID", "")
    if not job.isdigit() or shutil.which("scontrol") is None:
        return None
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
    found = re.search(r"EndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", shown)
    return datetime.fromisoformat(found[1]).timestamp() if found else None
