"""Networks for the descriptor on the same budget: validation loss, and crystals rebuilt from what they generate.

    python benchmarks/networks.py --csv data/perov_5_val.csv.gz --seconds 120 --model '{name: resmlp, width: 256}'

The part `descriptor` alone is trained, given composition and cell, for as many steps as take `--seconds` of CPU time
(measured on the first ones; one process), or for `--steps`. Then each of `--n` validation crystals is asked for by its
own composition and cell: a descriptor is drawn, rebuilt by the solver of a campaign, and matched with the crystal it
should be. Rows with index % 5 == 4 are left out; one in ten of the others is the validation. One line of JSON for each
`--model`:

- `steps`, `cpu_s`, `parameters`; `validation_loss`: squared error of the averaged weights;
- `match_rate`: share of the crystals rebuilt that are the crystal asked for (StructureMatcher of CDVAE);
  `distance`: median of |drawn - real| / |real| of the descriptors; `residual`: median after reconstruction.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import yaml
from tuning_rows import tuning_rows

from hpcgen.config import Config, loads
from hpcgen.errors import Failure
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.parts import DESCRIPTOR
from hpcgen.family.representation import RepresentationFamily
from hpcgen.family.samples import of_stages
from hpcgen.flow import Candidate, Entry, seed_of
from hpcgen.stages.roundtrip import match
from hpcgen.train.ddp import processes
from hpcgen.train.loop import train
from hpcgen.train.part import Part
from hpcgen.train.trainer import Trainer
from hpcgen.train.validation import validation_loss

FIRST_STEPS = 30


def main() -> None:
    """Train each network, judge it, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="data set")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU time of the training")
    parser.add_argument("--steps", type=int, help="of the training, in place of a time")
    parser.add_argument("--model", action="append", required=True, help="section `model` in YAML; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--rows", type=int, help="of the data set, drawn at random")
    parser.add_argument("--n", type=int, default=64, help="crystals asked for")
    parser.add_argument("--seed", type=int, default=0, help="of training and samples")
    args = parser.parse_args()
    entries: list[Entry] | None = None
    for text in args.model:
        settings = {"model": yaml.safe_load(text), "data": {"source": args.csv}, "seed": args.seed}
        config = loads(json.dumps(settings), args.csv, args.set)
        if entries is None:
            entries = tuning_rows(config, args.rows)
        print(json.dumps({"model": text} | run(config, entries, args.steps or args.seconds, args.n)), flush=True)


def run(config: Config, entries: Sequence[Entry], budget: float, n: int) -> dict[str, Any]:
    """Train the descriptor's network and draw for `n` validation crystals. `budget`: CPU-seconds, or int: steps."""
    rows = {split: [e for e in entries if e.split == split] for split in ("train", "validation")}
    family = RepresentationFamily.fit([e.crystal for e in rows["train"]], config)
    tensors = {split: family.training_tensors(part, config)[DESCRIPTOR] for split, part in rows.items()}
    (part,) = (p for p in family.parts(config) if p.name == DESCRIPTOR)
    with processes("cpu") as procs:
        if isinstance(budget, float):
            budget /= _seconds_per_step(part, config, tensors["train"], procs)
        config = _with_steps(config, budget)
        start = time.process_time()
        trainer = train(part, config, tensors["train"], tensors["train"] | {"x": tensors["train"]["x"][:0]}, procs)
        cpu = time.process_time() - start
        network = trainer.average.eval()
        loss = validation_loss(part, network, tensors["validation"], procs, config.seed).loss
    return {
        "steps": trainer.step,
        "cpu_s": round(cpu, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "validation_loss": round(loss, 5),
        **judge(family, Trained(part, network, *tensors["train"]["x"].aminmax(dim=0)), tensors, rows, config, n),
    }


def judge(
    family: RepresentationFamily,
    trained: Trained,
    tensors: dict[str, dict[str, torch.Tensor]],
    rows: dict[str, list[Entry]],
    config: Config,
    n: int,
) -> dict[str, float]:
    """What is drawn for the compositions and cells of validation crystals, against these crystals."""
    bad = {i for i, _ in family.misfits([e.crystal for e in rows["validation"]])}
    crystals = [e.crystal for i, e in enumerate(rows["validation"]) if i not in bad][:n]
    how, size = Draw(config.seed, config.sample), config.sample.micro_batch
    ids = [f"{i:016x}" for i in range(len(crystals))]
    c = tensors["validation"]["c"]
    with torch.inference_mode():
        blocks = [
            how.arrays(trained, ids[k : k + size], c[k : k + size][: len(ids[k : k + size])])
            for k in range(0, len(ids), size)
        ]
    drawn = torch.cat(blocks)[: len(ids)].double().numpy()
    real = tensors["validation"]["x"][: len(ids)].double().numpy()
    vectors, wanted = family.descriptor.inverse(drawn), family.descriptor.inverse(real)
    counts, elements = family.tokens.encode([x.numbers for x in crystals])
    parameters = np.array([x.parameters for x in crystals])
    rebuild = family.reconstructor(family.sample_attrs(), config)
    rebuild.warm_up()
    samples = of_stages(family, ids, counts, elements, parameters[None], vectors[None])
    built = [rebuild.reconstruct(s, s.id, seed_of(config.seed, s.id, "rebuild")) for s in samples]
    found = [(b, x) for b, x in zip(built, crystals, strict=True) if isinstance(b, Candidate)]
    assert all(isinstance(b, Candidate | Failure) for b in built)
    return {
        "n": len(crystals),
        "match_rate": sum(match(b.crystal, x) is not None for b, x in found) / len(crystals),
        "distance": float(np.median(np.linalg.norm(vectors - wanted, axis=1) / np.linalg.norm(wanted, axis=1))),
        "residual": float(np.median([b.residual for b, _ in found])) if found else float("nan"),
    }


def _seconds_per_step(part: Part, config: Config, rows: dict[str, torch.Tensor], procs: Any) -> float:
    trainer = Trainer(part, _with_steps(config, FIRST_STEPS), rows, procs)
    trainer.advance()
    start = time.process_time()
    while trainer.step < FIRST_STEPS:
        trainer.advance()
    return (time.process_time() - start) / (FIRST_STEPS - 1)


def _with_steps(config: Config, steps: float) -> Config:
    steps = max(1, round(steps))
    update = {"steps": steps, "validate_every": max(1, steps // 4)}
    return config.model_copy(update={"train": config.train.model_copy(update=update)})


if __name__ == "__main__":
    main()
