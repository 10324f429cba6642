"""The rows of a data set that may be tuned on: all but every fifth, which are the test rows."""

from __future__ import annotations

import json

from hpcgen import data
from hpcgen.config import Config
from hpcgen.flow import Entry


def tuning_rows(config: Config, rows: int | None = None) -> list[Entry]:
    """Usable rows of `config.data` (among the first `rows`) but the test rows, one in ten of them for validation."""
    read = data.load(config.data, config.conditions, n=rows)
    kept = [i for i, index in enumerate(read.indices) if index % 5 != 4]
    return [
        Entry(
            f"{i:016x}",
            read.crystals[i],
            read.labels[i],
            "validation" if number % 10 == 3 else "train",
            json.dumps(read.properties[i]),
        )
        for number, i in enumerate(kept)
    ]
