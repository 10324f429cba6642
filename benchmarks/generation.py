"""What a model generates before anything is reconstructed: compositions, and lattices given the composition.

    python benchmarks/generation.py --csv data/perov_5_val.csv.gz --set data.max_atoms=5 --set train.steps=800
    python benchmarks/generation.py --csv data/perov_5_val.csv.gz --set model.stages=joint

Rows of the file with index % 5 == 4 are left out; one in ten of the others is the validation. Every part is trained
for `train.steps` steps by the loop of the stage `train`, without checkpoints. The last line is one JSON object:

- `parts`: name, validation loss (composition: nats per crystal; else squared error), CPU-seconds of the training;
- `decodable`: share of samples whose composition needs no repair to be one; `valid`: share of all samples that SMACT
  balances (table `smact14`, repaired where needed); `real_valid`: of the training rows; `unique`, `new`: shares of the
  samples whose composition is different from the others', and from those of the training rows;
- `lattice`: for validation compositions, `hit` the share of drawn lattices within 5 % in the lengths and 0.08 in the
  cosines, `best_of_4` the same for the best of four, `volume_error` the median of |log V/V_real| (stages only).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tuning_rows import tuning_rows

from hpcgen.config import Config, loads
from hpcgen.crystal import lattice_parameters
from hpcgen.errors import Failure
from hpcgen.family.cells import draw_cells
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.flow import Entry
from hpcgen.represent.composition import whole_counts
from hpcgen.represent.lattice import decode_lattice
from hpcgen.screen.validity import composition_valid
from hpcgen.train.ddp import processes
from hpcgen.train.loop import train
from hpcgen.train.validation import validation_loss

LENGTHS, COSINES, REPEATS = 0.05, 0.08, 4


def main() -> None:
    """Train, draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", help="data set; without it the built-in data")
    parser.add_argument("--config", help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--n", type=int, default=300, help="samples")
    parser.add_argument("--seed", type=int, default=0, help="of training and samples")
    args = parser.parse_args()
    text = "{}"
    if args.config:
        with open(args.config, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
    source = [f"data.source={args.csv}"] if args.csv else []
    config = loads(text, args.config or "defaults", [*source, f"seed={args.seed}", *args.set])
    entries = tuning_rows(config)
    rows = {split: [e for e in entries if e.split == split] for split in ("train", "validation")}
    family = RepresentationFamily.fit([e.crystal for e in rows["train"]], config, [e.values for e in rows["train"]])
    tensors = {split: family.training_tensors(part, config) for split, part in rows.items()}
    models: dict[str, Trained] = {}
    parts: dict[str, Any] = {}
    with processes("cpu") as procs:
        for part in family.parts(config):
            start = time.process_time()
            x, held_out = (tensors[split][part.name] for split in ("train", "validation"))
            trainer = train(part, config, x, held_out, procs)
            network = trainer.average.eval()
            models[part.name] = Trained(part, network, x["x"].amin(0), x["x"].amax(0))
            loss = validation_loss(part, network, held_out, procs, config.seed)
            parts[part.name] = {
                "validation_loss": loss.loss,
                "cpu_s": round(time.process_time() - start, 1),
            }
    samples = family.generate(models, [f"{i:016x}" for i in range(args.n)], seed=args.seed, settings=config.sample)
    result = {"n": args.n, "stages": config.model.stages, "model": config.model.name, "steps": config.train.steps}
    result |= {"parts": parts, **judge_compositions(family, samples, rows["train"])}
    if "lattice" in models:
        result["lattice"] = judge_lattices(family, models["lattice"], tensors["validation"], rows, config, args.seed)
    print(json.dumps(result))


def judge_compositions(
    family: RepresentationFamily, samples: Sequence[RepresentationSample | Failure], training: Sequence[Entry]
) -> dict[str, float]:
    """Shares of the samples whose compositions are decodable, valid, unique and new."""
    known = {tuple(sorted(e.crystal.numbers.tolist())) for e in training}
    decodable = valid = 0
    drawn: list[tuple[int, ...]] = []
    for sample in samples:
        if isinstance(sample, Failure):
            continue
        composition = np.asarray(sample.composition, dtype=np.float64)
        named = np.flatnonzero(composition > 0)
        try:
            counts, note = whole_counts(composition[named], float(sample.n_atoms))
        except ValueError:
            continue
        numbers = np.repeat(np.array(family.codec.elements)[named], counts)
        decodable += not (note or sample.repair)
        valid += composition_valid(numbers)
        drawn.append(tuple(sorted(numbers.tolist())))
    n = len(samples)
    return {
        "decodable": decodable / n,
        "valid": valid / n,
        "real_valid": float(np.mean([composition_valid(e.crystal.numbers) for e in training])),
        "unique": len(set(drawn)) / n,
        "new": sum(c not in known for c in drawn) / n,
    }


def judge_lattices(
    family: RepresentationFamily,
    trained: Trained,
    tensors: dict[str, Any],
    rows: dict[str, list[Entry]],
    config: Config,
    seed: int,
) -> dict[str, float]:
    """How often a lattice that is drawn for a validation composition is the real one."""
    size, how = config.sample.micro_batch, Draw(seed, config.sample)
    bad = {i for i, _ in family.misfits([e.crystal for e in rows["validation"]])}
    crystals = [e.crystal for i, e in enumerate(rows["validation"]) if i not in bad][:200]
    hits: NDArray[np.bool_] = np.zeros((REPEATS, len(crystals)), dtype=bool)
    volumes = []
    for repeat in range(REPEATS):
        for start in range(0, len(crystals), size):
            block = crystals[start : start + size]
            ids = [f"{repeat}-{start + i}" for i in range(len(block))]
            c, n_atoms = tensors["lattice"]["c"][start : start + len(block)], np.array([len(x) for x in block])
            x = draw_cells(family, trained, how, ids, c, n_atoms, np.full(6, np.nan))
            for i, (features, crystal) in enumerate(
                zip(family.lattice.inverse(x.double().numpy()), block, strict=True), start=start
            ):
                drawn, real = decode_lattice(features, len(crystal)), lattice_parameters(crystal.lattice)
                lengths = np.abs(np.sort(drawn[:3]) / np.sort(real[:3]) - 1)
                cosines = np.abs(np.cos(np.radians(drawn[3:])) - np.cos(np.radians(real[3:])))
                hits[repeat, i] = lengths.max() < LENGTHS and cosines.max() < COSINES
                volumes.append(abs(features[0] - np.log(crystal.volume / len(crystal))))
    return {
        "hit": float(hits.mean()),
        "best_of_4": float(hits.any(0).mean()),
        "volume_error": float(np.median(volumes)),
    }


if __name__ == "__main__":
    main()
