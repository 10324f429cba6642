"""Structure prediction: the crystal of a composition, from a trained model, against the real one.

    python benchmarks/predict.py --run runs/perov5 --n 200 --attempts 5

For each of the first `--n` test rows of a run folder (its dataset.h5 and checkpoint.pt) a cell and a descriptor are
drawn for the row's own atoms, and rebuilt; of `--attempts` such draws the crystal with the smallest residual is the one
prediction. Rows that the family cannot encode, and what cannot be rebuilt, count
as not matched. Nothing here trains: what the model knows is in the folder.

The last line is one JSON object: `match_rate_all`, `rmse_all`, `match_rate_valid_only`, `rmse_valid_only` by the
definitions of CDVAE (docs/evaluation.md); the same for rows whose reduced formula is one of a training row
(`formula_in_training`) and for the others (`formula_new`); `residual`, the median; `seconds` of drawing and rebuilding.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import load
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.evaluate.cache import Cache, default_folder
from hpcgen.evaluate.fingerprint import STRUCTURE_SIZE, definition
from hpcgen.evaluate.matching import match_pairs
from hpcgen.evaluate.measured import measure
from hpcgen.family.draw import Draw
from hpcgen.family.generator import Staged
from hpcgen.family.request import Request
from hpcgen.flow import Candidate, Entry, seed_of
from hpcgen.stages.sample import restored
from hpcgen.train import checkpoint

Whole = NDArray[np.int64]


class OfRows(Staged):
    """Draws cells and descriptors for the compositions of given crystals, by id."""

    numbers: dict[str, NDArray[Any]]

    def compositions(self, ids: Sequence[str]) -> tuple[Whole, Whole]:
        """Those of the crystals with these ids."""
        return self.family.tokens.encode([self.numbers[id_] for id_ in ids])


def main() -> None:
    """Predict, match, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder with dataset.h5 and checkpoint.pt")
    parser.add_argument("--n", type=int, help="test rows (default: all)")
    parser.add_argument("--attempts", type=int, default=1, help="draws for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="of matching")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with store.open(args.run / "dataset.h5", Entry) as file:
        entries = list(file)
    rows = [e for e in entries if e.split == "test"][: args.n]
    start = time.perf_counter()
    predicted, residuals = predict(args.run, rows, args.attempts, args.seed)
    seconds = time.perf_counter() - start
    real = [e.crystal for e in rows]
    measured = measure(
        predicted,
        processes=args.processes,
        cache=Cache(default_folder(), definition(), STRUCTURE_SIZE),
        label="predictions",
    )
    found = match_pairs(predicted, real, measured.valid, processes=args.processes)
    formulas = {e.crystal.formula for e in entries if e.split == "train"}
    known = np.array([c.formula in formulas for c in real])
    print(
        json.dumps(
            {
                "run": str(args.run),
                "attempts": args.attempts,
                "seed": args.seed,
                **found.rates(),
                "formula_in_training": found.rates(known),
                "formula_new": found.rates(~known),
                "residual": float(np.median(residuals)) if residuals else None,
                "failures": sum(isinstance(p, Failure) for p in predicted),
                "seconds": round(seconds, 1),
            }
        )
    )


def predict(run: Path, rows: Sequence[Entry], attempts: int, seed: int) -> tuple[list[Crystal | Failure], list[float]]:
    """One crystal, or why there is none, for each row; and the residuals of those there are."""
    config = load(run / "config.yaml")
    family, models = restored(checkpoint.load(run / "checkpoint.pt"))
    how = Draw(seed, config.sample.model_copy(update={"attempts": attempts}))
    draw = OfRows(family, models, how, Request())
    out: list[Crystal | Failure] = [Failure(e.id, "predict", "not-encoded", "") for e in rows]
    bad = {i for i, _ in family.misfits([e.crystal for e in rows])}
    good = [i for i in range(len(rows)) if i not in bad]
    draw.numbers = {rows[i].id: rows[i].crystal.numbers for i in good}
    rebuild = family.reconstructor(family.sample_attrs(), config)
    rebuild.warm_up()
    residuals: list[float] = []
    size = config.sample.micro_batch
    for start in range(0, len(good), size):
        block = good[start : start + size]
        with torch.inference_mode():
            samples = draw([rows[i].id for i in block])
        for i, sample in zip(block, samples, strict=True):
            if isinstance(sample, Failure):
                out[i] = sample
                continue
            result = rebuild.reconstruct(sample, sample.id, seed_of(seed, sample.id, "rebuild"))
            if isinstance(result, Candidate):
                residuals.append(result.residual)
                out[i] = result.crystal
            else:
                out[i] = result
    return out, residuals


if __name__ == "__main__":
    main()
