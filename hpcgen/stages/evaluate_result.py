"""What an evaluation writes: the numbers of every set, their mean, and everything that says what they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcgen import __version__
from hpcgen.evaluate import generation, table
from hpcgen.evaluate.sources import CrystalSet
from hpcgen.screen.validity import OXIDATION_STATES
from hpcgen.stages.evaluate_inputs import Real, Request

Numbers = dict[str, Any]


def result_of(
    what: str,
    request: Request,
    sets: Sequence[CrystalSet],
    real: Real,
    results: Sequence[Numbers],
    *,
    definitions: dict[str, str],
    **more: Any,
) -> Numbers:
    """The numbers of all sets, their mean, and everything that says what they are of."""
    named = [
        {
            "set": s.name,
            "digest": s.digest,
            "items": len(s.items),
            "failures": dict(Counter(f.kind for f in s.failures).most_common()),
            "numbers": numbers,
        }
        for s, numbers in zip(sets, results, strict=True)
    ]
    return {
        "experiment": what,
        "hpcgen": __version__,
        "sets": named,
        "mean": generation.average(list(results)),
        **more,
        "reference": {
            "set": real.reference.name,
            "digest": real.reference.digest,
            "rows": len(real.reference.items),
            "failures": dict(Counter(f.kind for f in real.reference.failures)),
        },
        "training": {"rows": len(real.training), "from": real.trained_on},
        "definitions": {"oxidation_states": OXIDATION_STATES, **definitions},
        "seed": request.seed,
        "draws": request.draws,
    }


def columns(result: Numbers) -> dict[str, Numbers]:
    """The columns of the result's table."""
    many = result["sets"]
    out = {s["set"] if len(many) > 1 else "generated": s["numbers"] for s in many}
    if len(many) > 1:
        out["mean"] = result["mean"]
    for extra in ("best_of", "ceiling", "together", "ceiling_together", "training_rows"):
        if extra in result:
            out[extra.replace("_", " ")] = result[extra]
    return out


def write(result: Numbers, folder: Path) -> Path:
    """Write `evaluation-WHAT.json` into a folder; returns its path."""
    path = folder / f"evaluation-{result['experiment']}.json"
    table.write_json(path, result)
    return path
