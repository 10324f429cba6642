"""A generator family of three numbers, for the tests of the stages train and sample. Not a test by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcgen import store
from hpcgen.config import Config, SampleConfig, loads
from hpcgen.crystal import Crystal
from hpcgen.diffusion import DiffusionPart
from hpcgen.errors import ConfigError, Failure
from hpcgen.family.draw import Draw, Trained
from hpcgen.flow import Entry, array, make_id
from hpcgen.stages.context import Context

JOINT = "joint"
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
    def fit(cls, crystals: Sequence[Crystal], config: Config, values: Any = None) -> ToyFamily:
        return cls(torch.tensor(np.array([np.log(c.parameters[:3]) for c in crystals]).mean(0)))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ToyFamily:
        return cls(state["mean"])

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def misfits(self, crystals: Sequence[Crystal]) -> list[tuple[int, str]]:
        return [(i, "carbon is not for toys") for i, c in enumerate(crystals) if 6 in c.numbers]

    def parts(self, config: Config) -> list[DiffusionPart]:
        return [DiffusionPart(JOINT, config.model, config.diffusion, (3,))]

    def training_tensors(self, entries: Sequence[Entry], config: Config) -> dict[str, dict[str, torch.Tensor]]:
        good = [np.log(e.crystal.parameters[:3]) for e in entries if 6 not in e.crystal.numbers]
        return {JOINT: {"x": torch.tensor(np.array(good).reshape(-1, 3) - self.mean.numpy(), dtype=torch.float32)}}

    def generator(
        self,
        models: Mapping[str, Trained],
        *,
        seed: int,
        settings: SampleConfig,
        device: torch.device | str = "cpu",
        conditions: Mapping[str, Any] | None = None,
    ) -> Callable[[Sequence[str]], list[Any]]:
        if conditions:
            raise ConfigError(f"samples are asked for by {', '.join(conditions)}", expected="nothing")
        draw = Draw(seed, settings, device)

        def generate(ids: Sequence[str]) -> list[Any]:
            x = draw.arrays(models[JOINT], ids, None).numpy()[: len(ids)]
            return [
                EdgeSample(id_, np.exp(row + self.mean.numpy()).astype(np.float32))
                if np.isfinite(row).all()
                else Failure(id_, "sample", "not-finite", "not a number")
                for id_, row in zip(ids, x, strict=True)
            ]

        return generate

    def score(
        self, models: Mapping[str, Trained], part: str, real: Sequence[Crystal], config: Config, device: Any = "cpu"
    ) -> dict[str, float]:
        return {"toys": float(len(real))}

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
