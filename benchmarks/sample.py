"""How long samples take, and how good they are for the number of steps.

    python benchmarks/sample.py                                    # trains configs/quickstart.yaml first: minutes
    python benchmarks/sample.py --run-dir runs/quickstart --sampler dpm++ --steps 20
    python benchmarks/sample.py --run-dir runs/quickstart --table --seeds 5

A run folder with a checkpoint.pt of the configuration is used as it is; in any other one the stages `data` and `train`
run first. Then the stage's own code draws `--n` samples in micro-batches, after one that does not count, and the first
`--decode` are rebuilt into crystals. `--table` does that for DDPM, DDIM and DPM-Solver++ at several numbers of steps.

seconds_per_1000  on the CPU CPU-seconds (one thread), on a GPU seconds of the wall clock
quality           of the crystals: `residual`, the median relative residual of the descriptor, `residual_mean`, its
                  mean, `structure_valid` and `composition_valid`, shares, `failed`, the share without a crystal,
                  `density_distance` and `nearest_distance`, Wasserstein distances of densities (g/cm3) and of smallest
                  distances (angstrom) from those of the training crystals

With several seeds, figures are their means, and `..._spread` standard deviations over the seeds. The last line is one
JSON object, with `--table` of the sampler and steps of the configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import config as configuration
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import CheckpointError, Failure, HpcgenError
from hpcgen.stages.context import Context

TABLE = [("ddpm", 0), ("ddim", 100), ("ddim", 50), ("ddim", 20), ("ddim", 10)]
TABLE += [("dpm++", 100), ("dpm++", 50), ("dpm++", 20), ("dpm++", 10), ("dpm++", 5)]


def main() -> None:
    """Train if needed, sample, decode, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(Path(__file__).parent.parent / "configs" / "quickstart.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--run-dir", type=Path, help="default: a temporary one, so that it is trained each time")
    parser.add_argument("--n", type=int, default=1000, help="samples timed")
    parser.add_argument("--decode", type=int, default=100, help="samples rebuilt into crystals")
    parser.add_argument("--sampler", choices=("ddpm", "ddim", "dpm++"), help="default: the configuration's")
    parser.add_argument("--steps", type=int, help="default: the configuration's")
    parser.add_argument("--table", action="store_true", help="compare samplers and steps")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if min(args.n, args.decode, args.seeds) < 1 or args.decode > args.n:
        parser.error("--n, --decode and --seeds must be at least 1, --decode at most --n")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        config = configuration.load(args.config, args.overrides)
        with tempfile.TemporaryDirectory(prefix="sample-") as scratch:
            context = Context(config, args.run_dir or Path(scratch) / "run")
            prepare(context)
            chosen = (args.sampler or config.sample.sampler, args.steps or config.sample.steps)
            jobs = [job for job in TABLE if job != chosen] if args.table else []
            if args.table:
                print("| sampler | steps | s / 1000 | residual | structure, composition valid | density | nearest |")
                print("|---|---|---|---|---|---|---|")
            for job in [*jobs, chosen]:
                figures = measure(context, *job, args)
                quality = figures["quality"]
                if args.table:
                    print(
                        f"| {job[0]} | {figures['steps']} | {figures['seconds_per_1000']:.3g} "
                        f"| {quality['residual']:.4f} ± {quality['residual_spread']:.4f} "
                        f"| {quality['structure_valid']:.1%}, {quality['composition_valid']:.1%} "
                        f"| {quality['density_distance']:.3f} ± {quality['density_distance_spread']:.3f} "
                        f"| {quality['nearest_distance']:.3f} ± {quality['nearest_distance_spread']:.3f} |",
                        flush=True,
                    )
    except HpcgenError as error:
        raise SystemExit(f"{error}") from None
    print(json.dumps(figures))


def prepare(context: Context) -> None:
    """Data set and checkpoint, unless they are there."""
    from hpcgen.stages import data, train

    context.claim()
    if not context.path("dataset.h5").exists():
        data.run(context)
    if not context.path("checkpoint.pt").exists():
        train.run(context)


def measure(context: Context, sampler: str, steps: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one sampler, means over the seeds."""
    from hpcgen.stages.data import training_structures
    from hpcgen.stages.sample import one_thread
    from hpcgen.train import checkpoint
    from hpcgen.train.ddp import pick_device

    trained = checkpoint.load(context.path("checkpoint.pt"))
    total = configuration.loads(trained.config).diffusion.steps
    if trained.family != context.config.train.family:
        raise CheckpointError(f"the checkpoint is of the family {trained.family}", remedy="use another --run-dir")
    steps = total if sampler == "ddpm" else steps
    device = pick_device(context.config.sample.device)
    seconds, qualities = [], []
    real = [crystal for _, crystal in training_structures(context)]
    for seed in range(args.seeds):
        sample = context.config.sample.model_copy(update={"sampler": sampler, "steps": steps})
        config = context.config.model_copy(update={"sample": sample, "seed": context.config.seed + seed})
        with one_thread(device):
            elapsed, samples = draw(trained, config, device, args.n)
        seconds.append(elapsed * 1000 / args.n)
        qualities.append(quality(trained, config, samples[: args.decode], real))
    mean = {key: float(np.mean([q[key] for q in qualities])) for key in qualities[0]}
    for key in ("residual", "density_distance", "nearest_distance"):
        mean[f"{key}_spread"] = float(np.std([q[key] for q in qualities]))
    return {
        "n": args.n,
        "seconds_per_1000": round(float(np.mean(seconds)), 4),
        "steps": steps,
        "quality": {key: round(value, 5) for key, value in mean.items()},
        "sampler": sampler,
        "device": str(device),
        "seeds": args.seeds,
        "decoded": args.decode,
    }


def draw(trained: Any, config: Config, device: Any, n: int) -> tuple[float, list[Any]]:
    """Seconds and results of n samples, in whole micro-batches where n allows it."""
    from hpcgen.flow import make_id
    from hpcgen.stages.sample import generator

    generate = generator(trained, config, device)
    size = config.sample.micro_batch
    ids = [make_id(f"benchmark/{config.seed}", "sample", i) for i in range(n)]
    generate(ids[:size])
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    results = [result for i in range(0, n, size) for result in generate(ids[i : i + size])]
    return clock() - start, results


def quality(trained: Any, config: Config, samples: list[Any], real: Sequence[Crystal]) -> dict[str, float]:
    """What comes of samples when they are rebuilt into crystals."""
    from hpcgen.family import get_family
    from hpcgen.family.scores import distance
    from hpcgen.flow import seed_of
    from hpcgen.screen import composition_valid, structure_problem

    family = get_family(trained.family)
    attrs = family.from_state(trained.family_state).sample_attrs()
    reconstructor = family.reconstructor(attrs, config)
    made = [
        x if isinstance(x, Failure) else reconstructor.reconstruct(x, x.id, seed_of(config.seed, x.id, "reconstruct"))
        for x in samples
    ]
    good = [x for x in made if not isinstance(x, Failure)]
    sound = [not structure_problem(x.crystal, config.screen.min_distance) for x in good]
    balanced = [composition_valid(x.crystal.numbers) for x in good]
    residuals = [x.residual for x in good] or [float("nan")]
    ours = [x.crystal for x in good]
    return {
        "density_distance": distance([c.density for c in ours], [c.density for c in real]),
        "nearest_distance": distance([c.smallest_distance() for c in ours], [c.smallest_distance() for c in real]),
        "residual": float(np.median(residuals)),
        "residual_mean": float(np.mean(residuals)),
        "structure_valid": sum(sound) / len(samples),
        "composition_valid": sum(balanced) / len(samples),
        "failed": 1 - len(good) / len(samples),
    }


if __name__ == "__main__":
    main()
