"""PCCD's own experiment on rows of a data set: train, put noise on structures, take it off, compare.

    python benchmarks/denoising.py configs/pccd_mp.yaml --run-dir runs/denoising --set train.steps=2000

Rows of the file with index % 5 == 4 are the split `test`, three of every fifty of the others the validation. Training
and evaluation are those of `hpcgen train` and `hpcgen evaluate denoising`, on `--n` structures of each of the splits
`test` and `train`; the tables and pictures lie in the run folder. The last line is one JSON object with the curves
and tables (`hpcgen.stages.denoising.run` says which), the CPU-seconds of the training, and `by_formula`: shares of the
test rows apart, `seen` those that share a reduced formula with a training row, `unseen` the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import config, data, store
from hpcgen.flow import Entry, make_id
from hpcgen.stages import denoising, train
from hpcgen.stages.context import Context


def main() -> None:
    """Read, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file of a campaign of point clouds")
    parser.add_argument("--run-dir", type=Path, required=True, help="run folder; one that exists is gone on with")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--n", type=int, default=256, help="structures of each split")
    parser.add_argument("--distances", type=int, default=0, help="test structures with distances (needs matminer)")
    args = parser.parse_args()
    context = Context(config.load(args.config, args.set), args.run_dir)
    context.claim()
    if not context.path("dataset.h5").exists():
        write_dataset(context)
    start = time.process_time()
    train.run(context)
    seconds = time.process_time() - start
    wanted = {"test": args.distances, "train": 0}
    result = {split: denoising.run(context, split=split, n=args.n, distances=d) for split, d in wanted.items()}
    settings = context.config
    print(
        json.dumps(
            {
                "model": settings.model.name,
                "steps": settings.train.steps,
                "batch": settings.train.batch,
                "train_cpu_s": round(seconds, 1),
                **result,
                "by_formula": by_formula(context),
            }
        )
    )


def by_formula(context: Context) -> dict[str, dict[str, Any]]:
    """Shares of the test rows in denoising-test.csv by starting step, 0 for the condition alone; n of each kind."""
    with store.open(context.path("dataset.h5"), Entry) as file:
        trained = {e.crystal.formula for e in file if e.split == "train"}
    with context.path("denoising-test.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    found: dict[str, dict[str, Any]] = {}
    for kind in ("seen", "unseen"):
        of_kind = [r for r in rows if (r["formula"] in trained) == (kind == "seen")]
        found[kind] = {"n": len({r["id"] for r in of_kind})}
        for name in ("atoms_right", "composition_right", "matched"):
            at = {start: [r[name] == "True" for r in of_kind if r["start"] == start] for start in _starts(of_kind)}
            found[kind][name] = {start: round(float(np.mean(values)), 4) for start, values in at.items()}
    return found


def _starts(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(r["start"] for r in rows))


def write_dataset(context: Context) -> None:
    """dataset.h5 with every fifth row for testing."""
    settings = context.config
    read = data.load(settings.data, settings.conditions, processes=data.available_cores())
    entries = []
    for index, label, crystal, known in zip(read.indices, read.labels, read.crystals, read.properties, strict=True):
        split = "test" if index % 5 == 4 else "validation" if index % 50 < 3 else "train"
        entries.append(
            Entry(make_id(settings.identity("data"), "data", index), crystal, label, split, json.dumps(known))
        )
    store.write(context.path("dataset.h5"), Entry, entries, failures=read.failures)


if __name__ == "__main__":
    main()
