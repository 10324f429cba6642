"""What telling a model of point clouds its elements does: sets of elements of test rows, at several guidances.

    python benchmarks/guidance.py --model runs/denoising --n 128 --guidance 0 3

`--model` is a run folder with checkpoint.pt and dataset.h5, such as benchmarks/denoising.py leaves. Each set is drawn
once as it is; once more from the same noise under the next row's set, where the two differ; and both once more with the
condition left out. The last line is one JSON object, for each guidance shares of all samples, means over `--seeds`
seeds of the noise, and in `spread` the range of each over the seeds:

all_elements       every element of the set occurs
valid_structure    no two atoms within 0.5 angstrom, volume at least 0.1 cubic angstrom
atoms_right        as many atoms as the row has whose set it is
differ             of the pairs of which both decode: another number of atoms, or a length that differs by over 2 %
differ_untold      the same with the condition left out
untold_identical   arrays of such a pair that are equal bit by bit
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgen import config, store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.diffusion.sampling import PartSampler
from hpcgen.errors import Failure, HpcgenError
from hpcgen.family.conditions import ELEMENTS
from hpcgen.family.pointcloud import CLOUD, PointCloudFamily
from hpcgen.family.pointcloud_generator import to_samples
from hpcgen.flow import Candidate, Entry, seed_of
from hpcgen.represent.composition import order_elements
from hpcgen.screen.validity import structure_valid
from hpcgen.stages.sample import one_thread, restored
from hpcgen.train import checkpoint

Set = tuple[int, ...]
LENGTHS_DIFFER = 0.02


def main() -> None:
    """Restore, draw, decode, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="run folder with checkpoint.pt and dataset.h5")
    parser.add_argument("--n", type=int, default=128, help="test rows")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the noise, from the model's on")
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.0, 3.0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the sampling")
    args = parser.parse_args()
    if min(args.n, args.seeds) < 1:
        parser.error("--n and --seeds must be at least 1")
    trained = checkpoint.load(args.model / "checkpoint.pt", family="pointcloud")
    family, models = restored(trained)
    settings = config.loads(trained.config, "checkpoint.pt", overrides=args.set)
    with store.open(args.model / "dataset.h5", Entry) as file:
        rows = [e for e in file if e.split == "test"]
    bad = {i for i, _ in family.misfits([e.crystal for e in rows])}
    rows = sorted((e for i, e in enumerate(rows) if i not in bad), key=lambda e: seed_of(0, e.id, "guidance"))[: args.n]
    with one_thread(torch.device("cpu")), torch.inference_mode():
        found = {
            f"{w:g}": over_seeds([figures(family, models, rows, settings, w, seed) for seed in range(args.seeds)])
            for w in args.guidance
        }
    print(json.dumps({"n": len(rows), "seeds": args.seeds, **found}))


def over_seeds(of: list[dict[str, float]]) -> dict[str, Any]:
    """Means, and the ranges of what differs."""
    ranges = {key: float(np.ptp([f[key] for f in of])) for key in of[0]}
    return {
        **{key: round(float(np.mean([f[key] for f in of])), 4) for key in of[0]},
        "spread": {key: round(width, 4) for key, width in ranges.items() if width},
    }


def figures(
    family: PointCloudFamily, models: dict[str, Any], rows: list[Entry], settings: Config, guidance: float, seed: int
) -> dict[str, float]:
    """The shares at one guidance, with the noise of one seed."""
    how = settings.sample.model_copy(update={"guidance": guidance})
    trained = models[CLOUD]
    sampler = PartSampler(trained.part, trained.network, how, settings.seed + seed, (trained.lower, trained.upper))
    ids, sets = [e.id for e in rows], [order_elements(e.crystal.numbers.tolist()) for e in rows]

    def arrays(of: list[Set], told: bool) -> np.ndarray:
        c = torch.from_numpy(np.stack([family.conditions.ask({ELEMENTS: z}) for z in of]))
        c = c if told else trained.part.condition.without(c)
        blocks = [slice(i, i + how.micro_batch) for i in range(0, len(ids), how.micro_batch)]
        return np.concatenate([sampler.draw(ids[b], c[b]).numpy()[: len(ids[b])] for b in blocks])

    decoder = family.reconstructor(family.sample_attrs(), settings)

    def crystals(of: list[Set], x: np.ndarray) -> list[Crystal | None]:
        samples = to_samples(family, ids, of, x)
        built = [s if isinstance(s, Failure) else decoder.reconstruct(s, s.id, 0) for s in samples]
        return [b.crystal if isinstance(b, Candidate) else None for b in built]

    others = [*sets[1:], sets[0]]
    pairs = [i for i, (a, b) in enumerate(zip(sets, others, strict=True)) if a != b]
    x, y, u, v = (arrays(of, told) for told in (True, False) for of in (sets, others))
    own = crystals(sets, x)

    def differ(first: list[Crystal | None], second: list[Crystal | None]) -> float:
        both = [(a, b) for i in pairs if (a := first[i]) is not None and (b := second[i]) is not None]
        return float(np.mean([_differ(a, b) for a, b in both]))

    of_rows = list(zip(own, sets, rows, strict=True))
    return {
        "all_elements": np.mean([c is not None and set(c.numbers.tolist()) == set(z) for c, z, _ in of_rows]),
        "valid_structure": np.mean([c is not None and structure_valid(c) for c in own]),
        "atoms_right": np.mean([c is not None and len(c) == len(e.crystal) for c, _, e in of_rows]),
        "pairs": len(pairs),
        "differ": differ(own, crystals(others, y)),
        # what the points are made of has no name then: both are decoded as of the first set
        "differ_untold": differ(crystals(sets, u), crystals(sets, v)),
        "untold_identical": float(np.mean([np.array_equal(u[i], v[i]) for i in pairs])),
    }


def _differ(a: Crystal, b: Crystal) -> bool:
    return len(a) != len(b) or bool((np.abs(a.parameters[:3] / b.parameters[:3] - 1) > LENGTHS_DIFFER).any())


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        raise SystemExit(str(error)) from None
