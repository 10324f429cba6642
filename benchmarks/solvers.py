"""Error of the samplers alone: on data whose best denoiser is known exactly, so that no network plays a part.

    python benchmarks/solvers.py
    python benchmarks/solvers.py --set diffusion.schedule=linear

The data are a mixture of narrow normal distributions around `--rows` training vectors of the configuration (its joint
vectors), 0.1 of the data's standard deviation wide. All samplers start from the same noise.

width         median distance of a sample to the nearest vector, per dimension, in standard deviations: 0.1 is right
same_vector   share of the samples nearest to the same vector as with 400 steps of dpm++
off           root mean square distance to the sample of those 400 steps, in standard deviations

The last line is one JSON object: sampler -> steps -> figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcgen import config as configuration
from hpcgen import store
from hpcgen.diffusion.samplers import Estimate, sample
from hpcgen.diffusion.schedules import Schedule
from hpcgen.family import get_family
from hpcgen.flow import Entry
from hpcgen.stages import data
from hpcgen.stages.context import Context

WIDTH = 0.1
REFERENCE = 400
STEPS = (5, 10, 20, 50, 100)


def main() -> None:
    """Encode the data, sample, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(Path(__file__).parent.parent / "configs" / "quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--n", type=int, default=64, help="samples")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = configuration.load(args.config, args.overrides)
    x = vectors(config, args.rows, args.seed)
    schedule = Schedule.of(config.diffusion.schedule, config.diffusion.steps)
    estimate = best_estimate(x, schedule)
    noise = torch.randn(args.n, x.shape[1], generator=torch.Generator().manual_seed(args.seed))
    reference = sample("dpm++", estimate, schedule, REFERENCE, lambda: noise)
    print(f"width of the reference: {compare(reference, reference, x)['width']}")
    figures: dict[str, dict[int, Any]] = {"dpm++": {}, "ddim": {}}
    print("| sampler | steps | width | same vector | off |\n|---|---|---|---|---|")
    for sampler, found in figures.items():
        for steps in STEPS:
            found[steps] = compare(sample(sampler, estimate, schedule, steps, lambda: noise), reference, x)
            print(f"| {sampler} | {steps} | " + " | ".join(f"{value}" for value in found[steps].values()) + " |")
    print(json.dumps(figures))


def vectors(config: configuration.Config, rows: int, seed: int) -> Tensor:
    """(rows, L) joint vectors of training structures, drawn at random."""
    with tempfile.TemporaryDirectory(prefix="solvers-") as scratch:
        context = Context(config, Path(scratch) / "run")
        context.claim()
        data.run(context)
        with store.open(context.path("dataset.h5"), Entry) as file:
            crystals = [entry.crystal for entry in file if entry.split == "train"]
    family = get_family("representation").fit(crystals, config)
    encoded = torch.from_numpy(family.encode(crystals)[0])
    return encoded[torch.randperm(len(encoded), generator=torch.Generator().manual_seed(seed))[:rows]]


def best_estimate(x: Tensor, schedule: Schedule) -> Estimate:
    """The posterior mean of x0 for the mixture around the rows of x (M, L)."""
    alpha_bar, squares = schedule.alpha_bar.tolist(), x.square().sum(1)
    variance = (WIDTH * float(x.std())) ** 2

    def estimate(x_t: Tensor, t: int) -> Tensor:
        a, total = alpha_bar[t] ** 0.5, alpha_bar[t] * variance + 1 - alpha_bar[t]
        share = ((2 * a * x_t @ x.T - a**2 * squares) / (2 * total)).softmax(1)
        centre = share @ x
        return centre + a * variance / total * (x_t - a * centre)

    return estimate


def compare(samples: Tensor, reference: Tensor, x: Tensor) -> dict[str, float]:
    """The figures of samples (B, L)."""
    distance, deviation = torch.cdist(samples, x), float(x.std())
    nearest = torch.cdist(reference, x).argmin(1)
    return {
        "width": round(float(distance.min(1).values.median()) / x.shape[1] ** 0.5 / deviation, 4),
        "same_vector": round(float((distance.argmin(1) == nearest).float().mean()), 3),
        "off": round(float((samples - reference).square().mean().sqrt()) / deviation, 3),
    }


if __name__ == "__main__":
    main()
