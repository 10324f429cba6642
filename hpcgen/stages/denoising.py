"""`hpcgen evaluate denoising`: checkpoint.pt, dataset.h5 -> denoising-SPLIT.csv and .svg, beside the stages."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen import store
from hpcgen.errors import DataError, UsageError
from hpcgen.flow import Entry, seed_of
from hpcgen.report import svg
from hpcgen.stages.context import Context
from hpcgen.stages.sample import one_thread, restored

if TYPE_CHECKING:
    from hpcgen.family.denoising import Denoised

log = logging.getLogger("hpcgen")

STARTS = (100, 250, 500, 750, 1000)
SHOWN = ("atoms_right", "lengths", "coordinates", "matched")


def run(
    ctx: Context, *, split: str = "test", n: int | None = None, starts: Sequence[int] = STARTS, distances: int = 0
) -> dict[str, Any]:
    """Denoise structures of a split from each starting step, and from the condition alone.

    Sampler, steps, guidance and device are those of the section `sample`, the model is that of checkpoint.pt.

    Args:
        ctx: the run, trained.
        split: `train`, `validation` or `test`.
        n: structures drawn at random; None: all that the model can take.
        starts: steps of noise, each at most those of the model.
        distances: of how many structures the distances of CSPBenchMetrics are computed too, which takes seconds each.

    Returns:
        What the last line of output is: `split`, `n`, `left_out` (structures that the model cannot take), `curve`, see
        `hpcgen.family.denoising.curve`, and `table_1`, see `hpcgen.family.parity`; by starting step. With `distances`
        also their medians, and `distances_n`, of how many structures each is known.

    Raises:
        StoreError: if dataset.h5 is missing or damaged.
        CheckpointError: if there is no finished checkpoint of this configuration.
        ConfigError: for a starting step that the model does not have.
        DataError: if the split has no structure that the model can take.
        UsageError: if the family of the model cannot denoise.
        DependencyError: if a package that distances need is not installed.
    """
    import torch

    from hpcgen.family.denoising import CONDITION_ALONE, curve, summary_json
    from hpcgen.family.parity import parity
    from hpcgen.train import checkpoint
    from hpcgen.train.ddp import pick_device

    config = ctx.config
    trained = checkpoint.load(ctx.path("checkpoint.pt"), family=config.train.family, config_digest=config.digest())
    device = pick_device(config.sample.device)
    family, models = restored(trained, device)
    if not hasattr(family, "denoise"):
        raise UsageError(
            f"hpcgen evaluate denoising does not know the family {family.name}", expected="train.family: pointcloud"
        )
    between = None
    if distances:  # what it lacks is said before the work
        from hpcgen.evaluate.denoised import Distances

        between = Distances(config.relax)
    entries, left_out = _chosen(ctx, family, split, n)
    log.info("denoising: %d structures of %s, %d left out as not of this model", len(entries), split, left_out)
    rows: list[Denoised] = []
    with one_thread(device), torch.inference_mode():
        for row in family.denoise(models, entries, (*starts, CONDITION_ALONE), config, device):
            rows.append(row)
            if len(rows) % len(entries) == 0:
                log.info("denoising: %s done", f"from step {row.start}" if row.start else "from the condition alone")
    found = curve(rows)
    stem = f"denoising-{split}"
    _write(ctx.path(f"{stem}.csv"), _table(rows))
    _write(ctx.path(f"{stem}.svg"), _picture(found))
    by_start = {start: [r for r in rows if r.start == start] for start in found}
    result = {"split": split, "n": len(entries), "left_out": left_out, "curve": summary_json(found)}
    result["table_1"] = summary_json({start: parity(of) for start, of in by_start.items()})
    if between is not None:
        from hpcgen.evaluate.denoised import medians

        chosen = {e.id for e in entries[:distances]}
        of = {start: medians(between, [r for r in rows if r.id in chosen]) for start, rows in by_start.items()}
        result["distances"] = summary_json({start: values for start, (values, _) in of.items()})
        result["distances_n"] = summary_json({start: counts for start, (_, counts) in of.items()})
    return result


def _chosen(ctx: Context, family: Any, split: str, n: int | None) -> tuple[list[Entry], int]:
    """Structures of a split that the family can take, n of them by a draw that belongs to each; and how many it cannot.

    Raises:
        DataError: if there is none.
    """
    path = ctx.path("dataset.h5")
    with store.open(path, Entry) as file:
        entries = [e for e in file if e.split == split]
    bad = {i for i, _ in family.misfits([e.crystal for e in entries])}
    good = [e for i, e in enumerate(entries) if i not in bad]
    if not good:
        raise DataError(
            f"{path} has {len(entries)} structures in the split {split}, and none that the model can take",
            remedy="take another split, or raise data.test_fraction",
        )
    drawn = sorted(good, key=lambda e: seed_of(ctx.config.seed, e.id, "denoising:chosen"))[:n]
    return drawn, len(bad)


def _table(rows: Sequence[Denoised]) -> str:
    import io

    from hpcgen.family.denoising import COLUMNS

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS]
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    return stream.getvalue()


def _picture(found: dict[int, dict[str, float]]) -> str:
    """The curve without what the condition alone gives, which is no starting step."""
    starts = [s for s in found if s]
    series = {name: np.array([100 * found[s][name] for s in starts]) for name in SHOWN}
    chart = svg.curves(np.array(starts, dtype=float), series, "starting step", "%", log=False)
    return svg.standalone(chart, files("hpcgen.report").joinpath("page.css").read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.tmp")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def line(result: dict[str, Any]) -> str:
    """The result as one line of JSON."""
    return json.dumps(result, allow_nan=False)
