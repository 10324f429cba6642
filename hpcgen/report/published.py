"""What others published, beside the same shares of this run, with what makes the two differ."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from hpcgen.report.data import RunData
from hpcgen.report.headline import COMPARABLE, TOLERANCE, percent, reference

LIMITS = (0.08, 0.25)
"""eV/atom, the columns of published.json."""


def comparison(data: RunData) -> dict[str, Any] | None:
    """Header and rows of the table, this run first; None if no crystal was judged."""
    if not data.rows:
        return None
    known = json.loads(files("hpcgen.report").joinpath("published.json").read_text(encoding="utf-8"))
    energies = [r.stability.e_hull for r in data.rows]
    own = [percent(sum(e <= limit + TOLERANCE for e in energies) / len(energies)) for limit in LIMITS]
    theirs = [
        [model, *("–" if share is None else f"{share:.4g} %" for share in shares), of, source]
        for model, *shares, of, source in known["rows"]
    ]
    ref = reference(data)
    return {
        "columns": known["columns"],
        "own": [f"this run, {ref.kind}", *own, f"{len(energies)} relaxed crystals, by {ref.calculator}", ""],
        "rows": theirs,
        "comparable": ref.kind == COMPARABLE,
    }
