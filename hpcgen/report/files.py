"""The report's files for other programs: stability.csv, CIFs, report.json."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from hpcgen.crystal import Crystal, to_structure
from hpcgen.flow import Stability
from hpcgen.report.data import Row

JOINED = ("far_below_hull", "residual", "atoms", "converged", "max_force", "max_force_initial", "steps", "calculator")
"""Columns of stability.csv that come from other files than stability.h5."""


def columns() -> list[str]:
    """Header of stability.csv: every scalar of `Stability`, then `JOINED`."""
    return [f.name for f in fields(Stability) if f.name != "crystal"] + list(JOINED)


def write_csv(path: Path, rows: list[Row]) -> None:
    """One line per crystal, ranked as on the page; full precision; empty where unknown."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns())
        for row in rows:
            stored = [getattr(row.stability, f.name) for f in fields(Stability) if f.name != "crystal"]
            r = row.relaxation
            relaxed = (
                [None] * 5 if r is None else [r.converged, r.max_force, r.max_force_initial, r.steps, r.calculator]
            )
            joined = [row.doubtful, row.residual, len(row.stability.crystal), *relaxed]
            writer.writerow([_cell(v) for v in (*stored, *joined)])


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value


def cif_name(rank: int, formula: str, identity: str) -> str:
    """A safe file name from rank (1 is the most stable), formula and id, whatever these hold."""
    parts = [re.sub(r"[^A-Za-z0-9]", "", text)[:40] for text in (formula, identity)]
    return "-".join([f"{rank:04d}", *(p for p in parts if p)]) + ".cif"


def write_cif(path: Path, crystal: Crystal) -> None:
    """The crystal in its own cell (P1), coordinates to eight digits."""
    from pymatgen.io.cif import CifWriter

    path.write_text(str(CifWriter(to_structure(crystal), significant_figures=8)), encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON; a number that is not finite is an error, not invalid JSON."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
