"""Results as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def flat(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted name."""
    out: dict[str, Any] = {}
    for key, value in numbers.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of text: a line for each number, a column for each set; `± spread` where there is one.

    Args:
        columns: nested numbers by the title of their column.
    """
    leaves = {title: flat(numbers) for title, numbers in columns.items()}
    keys = list(dict.fromkeys(key for column in leaves.values() for key in column if not key.endswith("_spread")))
    rows = [["", *leaves]]
    for key in keys:
        rows.append([key, *(_cell(column.get(key), column.get(f"{key}_spread")) for column in leaves.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _cell(value: Any, spread: float | None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, float):
        text = f"{value:.4f}"
        return f"{text} ± {spread:.4f}" if spread else text
    return str(value)


def plain(value: Any) -> Any:
    """The same with what JSON lacks (NaN, infinity) as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result; the file appears by rename, when it is complete."""
    part = path.with_name(f"{path.name}.tmp")
    part.write_text(json.dumps(plain(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def line(result: Mapping[str, Any]) -> str:
    """A result as one line of JSON."""
    return json.dumps(plain(result), allow_nan=False)
