"""`hpcgen report`: everything in the run folder to report/index.html, stability.csv, CIFs and pictures."""

from __future__ import annotations

import os
import shutil

from hpcgen import report
from hpcgen.stages.context import Balance, Context

STAGE = "report"


def run(ctx: Context) -> Balance:
    """Build the report in a temporary folder and put it in place of an older one."""
    final = ctx.path("report")
    building, old = (ctx.path(f".report.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        count = report.build(ctx.folder, ctx.config, building)
        if final.exists():
            final.rename(old)
        building.rename(final)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return Balance.of(STAGE, count, count, [])
