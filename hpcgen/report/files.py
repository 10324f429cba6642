"""The report's files for other programs: stability.csv, CIFs, report.json."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hpcgen.crystal import Crystal, to_structure
from hpcgen.flow import Stability
from hpcgen.report.data import Row

TABLE_ROWS = 1000
"""Rows of the page's table and CIF files at most; stability.csv always holds all."""

JOINED = ("far_below_hull", "residual", "atoms", "converged", "max_force", "max_force_initial", "steps", "calculator")
"""Columns of stability.csv that come from other files than stability.h5."""

DYNAMICS = ("stays", "stays_up_to", "ion", "activation_energy", "conductivity", "conductivity_factor")
"""Columns that come from dynamics.h5; `dynamics_` stands before their names."""


def columns(calculators: Sequence[str] = ()) -> list[str]:
    """Header of stability.csv: every scalar of `Stability`, `JOINED`, `DYNAMICS`, what follows from `calculators`.

    Args:
        calculators: whose verdicts there are. If they are several, each has a column `e_hull (NAME)`, and `final`
            says whether stability.h5 holds the crystal; if not, the other columns are those of the calculator named.
    """
    several = ["final", *(f"e_hull ({name})" for name in calculators)] if len(calculators) > 1 else []
    return (
        [f.name for f in fields(Stability) if f.name != "crystal"]
        + list(JOINED)
        + [f"dynamics_{n}" for n in DYNAMICS]
        + several
    )


def write_csv(path: Path, rows: list[Row], calculators: Sequence[str] = ()) -> None:
    """One line per crystal, ranked as on the page; full precision; empty where unknown."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        header = columns(calculators)
        writer.writerow(header)
        for row in rows:
            facts = facts_of(row, calculators)
            writer.writerow([_cell(facts[name]) for name in header])


def facts_of(row: Row, calculators: Sequence[str] = ()) -> dict[str, Any]:
    """The columns of one crystal by name; None or NaN where unknown."""
    s, r = row.stability, row.relaxation
    facts = {f.name: getattr(s, f.name) for f in fields(Stability) if f.name != "crystal"}
    facts |= {"far_below_hull": row.doubtful, "residual": row.residual, "atoms": len(s.crystal)}
    facts |= {name: getattr(r, name) if r else None for name in JOINED[3:]}
    facts |= {f"dynamics_{name}": getattr(row.dynamics, name) if row.dynamics else None for name in DYNAMICS}
    judged = row.others | ({row.judged_by: s} if row.final else {})
    facts |= {f"e_hull ({name})": judged[name].e_hull if name in judged else None for name in calculators}
    return facts | {"final": row.final}


def crystals_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The crystals of the page's table for machines: rank, CIF, verdict by calculator; null where unknown."""
    out = []
    for rank, row in enumerate(rows[:TABLE_ROWS], 1):
        facts = {k: None if _cell(v) == "" and not isinstance(v, str) else v for k, v in facts_of(row).items()}
        judged = {name: s.e_hull for name, s in row.others.items()} | (
            {row.judged_by: row.stability.e_hull} if row.final else {}
        )
        out.append({"rank": rank if row.final else None, "cif": cif_path(rank, row), **facts, "e_hull_by": judged})
    return out


def cif_path(rank: int, row: Row) -> str:
    """Where the CIF of a row lies, relative to the page; empty for rows beyond the table."""
    return f"survivors/{cif_name(rank, row.stability.formula, row.stability.id)}" if rank <= TABLE_ROWS else ""


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
