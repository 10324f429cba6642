"""The report of a run: one self-contained HTML page, tables, CIFs and pictures.

report/index.html       the page (works offline)
report/stability.csv    every crystal with an energy, all columns
report/survivors/*.cif  the crystals of the page's table
report/report.json      the numbers and the crystals of the table, for machines
report/*.png            funnel, crystals, and both (`overview.png`)
"""

from __future__ import annotations

import json
from pathlib import Path

from hpcgen.config import Config

__all__ = ["build", "summary"]


def build(folder: Path, config: Config, into: Path) -> int:
    """Write the report of run folder `folder` into the new folder `into`.

    Returns:
        The number of crystals in stability.h5.

    Raises:
        StoreError: if stability.h5 is missing, or a file of the run is damaged.
    """
    from hpcgen.report.cards import chosen
    from hpcgen.report.data import REFERENCE, collect
    from hpcgen.report.files import TABLE_ROWS, cif_path, crystals_json, write_cif, write_csv, write_json
    from hpcgen.report.headline import numbers
    from hpcgen.report.page import render
    from hpcgen.report.phases import Competitors
    from hpcgen.report.pictures import write_pictures
    from hpcgen.report.table import all_rows

    data = collect(folder, config)
    rows = all_rows(data)
    (into / "survivors").mkdir(parents=True)
    write_csv(into / "stability.csv", rows, data.calculators)
    for rank, row in enumerate(rows[:TABLE_ROWS], 1):
        write_cif(into / cif_path(rank, row), row.stability.crystal)
    write_json(into / "report.json", {**numbers(data), "crystals": crystals_json(rows)})
    write_pictures(into, data)
    reference, shown = folder / REFERENCE, [row.stability for _, row in chosen(data)]
    competitors = Competitors(reference, (r.stability for r in data.rows), shown) if reference.exists() else None
    (into / "index.html").write_text(render(data, competitors), encoding="utf-8")
    return len(data.rows)


def summary(run_folder: str | Path) -> list[str]:
    """The five lines that say how the run went, from its finished report; empty before there is one."""
    file = Path(run_folder) / "report" / "report.json"
    if not file.is_file():
        return []
    return list(json.loads(file.read_text(encoding="utf-8"))["summary"])
