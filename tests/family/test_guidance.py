"""Classifier-free guidance on real rows: what is asked for moves the property of what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hpcgen import data
from hpcgen.config import Config, loads
from hpcgen.crystal import FloatArray
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.features import CompositionFeatures
from hpcgen.family.generator import Staged
from hpcgen.family.representation import RepresentationFamily
from hpcgen.family.request import Request
from hpcgen.flow import Entry
from hpcgen.train.ddp import processes
from hpcgen.train.loop import train

ROWS, DRAWN = 1000, 256
PROPERTY = "heat_all"  # formation energy of the perovskites, eV per atom


def test_guidance_moves_the_property_of_real_compositions(data_folder: Path) -> None:
    """The judge is a linear model of composition and property; rows with index % 5 == 4 are not used."""
    config = loads(
        f"data: {{source: {data_folder / 'perov_5_val.csv.gz'}, max_atoms: 5}}\n"
        f"conditions: {{scalars: [{PROPERTY}]}}\n"
        "train: {steps: 300, batch: 128, learning_rate: 0.003, validate_every: 300, device: cpu}"
    )
    entries = rows(config)
    family = RepresentationFamily.fit([e.crystal for e in entries], config, [e.values for e in entries])
    features = CompositionFeatures(family.codec.elements, family.codec.channels, config.data.max_atoms)
    values = np.array([e.values[PROPERTY] for e in entries])
    judge = linear(features.encode(*family.tokens.encode([e.crystal.numbers for e in entries])), values)
    part, tensors = family.parts(config)[0], family.training_tensors(entries, config)["composition"]
    with processes("cpu") as procs:
        trainer = train(part, config, tensors, {k: v[:0] for k, v in tensors.items()}, procs)
    lower, upper = tensors["x"].aminmax(dim=0)
    models = {part.name: Trained(part, trainer.average.eval(), lower, upper)}
    ids = [f"{i:016x}" for i in range(DRAWN)]

    def mean_of_drawn(asked: float, guidance: float) -> float:
        how = Draw(0, config.sample.model_copy(update={"guidance": guidance, "micro_batch": DRAWN}))
        drawn = Staged(family, models, how, Request.of({PROPERTY: asked})).compositions(ids)
        return float(judge(features.encode(*drawn)).mean())

    low, high = np.percentile(values, [10, 90])
    moved = [mean_of_drawn(high, w) - mean_of_drawn(low, w) for w in (0.0, 2.0)]
    assert moved[0] > 0.15  # of the 1.7 eV between what is asked for, as far as a linear judge sees them
    assert moved[1] > 1.3 * moved[0]


def rows(config: Config) -> list[Entry]:
    read = data.load(config.data, config.conditions, n=ROWS)
    kept = [i for i, index in enumerate(read.indices) if index % 5 != 4]
    return [Entry(f"{i:016x}", read.crystals[i], read.labels[i], "train", json.dumps(read.properties[i])) for i in kept]


def linear(x: FloatArray, y: FloatArray):
    """Ridge regression: a function of features (M, F) -> (M,)."""
    centre, mean = x.mean(0, dtype=np.float64), y.mean()
    a = x - centre
    weights = np.linalg.solve(a.T @ a + 3.0 * np.eye(a.shape[1]), a.T @ (y - mean))
    return lambda features: (features - centre) @ weights + mean
