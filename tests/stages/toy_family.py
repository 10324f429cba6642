"""A generator family of three numbers, for the tests of the stages train and sample. Not a test by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgen import store
from hpcgen.config import Config, loads
from hpcgen.crystal import Crystal
from hpcgen.flow import Entry, array, make_id
from hpcgen.stages.context import Context

CONFIG = """
name: toy
seed: 5
model: {width: 8, attention_dim: 16, attention_heads: 2, resnet_blocks: 1}
diffusion: {steps: 50}
train: {family: toy, steps: 6, batch: 8, validate_every: 3, checkpoint_every: 2}
sample: {n: 5, steps: 10, micro_batch: 4}
"""


@dataclass(frozen=True, eq=False)
class EdgeSample:
    """Three numbers."""

    id: str
    values: np.ndarray = array("f4", "edges of a box", shape=("D",), unit="angstrom", group="toy")  # noqa: RUF009 - a dataclass field


store.register(EdgeSample, "hpcgen.samples")


class ToyFamily:
    """Encodes a crystal as the logarithms of its cell's edges; cannot encode carbon."""

    name = "toy"
    sample_type = EdgeSample

    def __init__(self, mean: torch.Tensor) -> None:
        self.mean = mean

    @classmethod
    def fit(cls, crystals: Sequence[Crystal], config: Config) -> ToyFamily:
        return cls(torch.tensor(np.array([np.log(c.parameters[:3]) for c in crystals]).mean(0)))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ToyFamily:
        return cls(state["mean"])

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean}

    @property
    def shape(self) -> tuple[int, ...]:
        return (3,)

    def encode(self, crystals: Sequence[Crystal]) -> tuple[np.ndarray, list[tuple[int, str]]]:
        bad = [(i, "carbon is not for toys") for i, c in enumerate(crystals) if 6 in c.numbers]
        good = [np.log(c.parameters[:3]) - self.mean.numpy() for c in crystals if 6 not in c.numbers]
        return np.array(good, dtype=np.float32).reshape(-1, 3), bad

    def to_samples(self, ids: Sequence[str], x: np.ndarray) -> list[EdgeSample]:
        edges = np.exp(x + self.mean.numpy()).astype(np.float32)
        return [EdgeSample(id_, row) for id_, row in zip(ids, edges, strict=True)]

    def sample_attrs(self) -> dict[str, Any]:
        return {"names": ["a", "b", "c"]}


def write_dataset(folder: Path, config: Config, rows: int = 20) -> None:
    """dataset.h5 of `rows` boxes: one in five for testing, one in five for validation, row 7 of carbon."""
    rng = np.random.default_rng(0)
    splits = ("train", "train", "train", "validation", "test")
    entries = [
        Entry(
            make_id(config.identity("data"), "data", i),
            Crystal(np.diag(rng.uniform(3, 6, 3)), np.zeros((1, 3)), np.array([6 if i == 7 else 11])),
            source=f"row:{i}",
            split=splits[i % 5],
        )
        for i in range(rows)
    ]
    store.write(folder / "dataset.h5", Entry, entries)


def context(folder: Path, overrides: Sequence[str] = (), *, rows: int = 20) -> Context:
    """A run folder with a data set, on the CPU."""
    config = loads(CONFIG, overrides=[*overrides, "train.device=cpu", "sample.device=cpu"])
    ctx = Context(config, folder)
    ctx.claim()
    if rows:
        write_dataset(folder, config, rows)
    return ctx


def main() -> None:
    """usage: torchrun ... toy_family.py FOLDER: the stage train in a folder that `context` has filled."""
    import sys

    from hpcgen.family import FAMILIES
    from hpcgen.stages import train

    FAMILIES["toy"] = "toy_family:ToyFamily"
    ctx = context(Path(sys.argv[1]), rows=0)
    balance = train.run(ctx)
    print(f"balance {balance}", flush=True)


if __name__ == "__main__":
    main()
