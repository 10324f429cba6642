"""A part that is quickly trained, with dropout, and what it learns from; also a program that is killed in the middle.

usage: toy_part.py FOLDER KILL_AFTER: train in a folder, and die by SIGKILL after so many steps
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from hpcgen.config import Config, loads
from hpcgen.train.checkpoint import Origin
from hpcgen.train.ddp import Processes
from hpcgen.train.history import History
from hpcgen.train.keeper import Keeper
from hpcgen.train.loop import train
from hpcgen.train.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))
ORIGIN = Origin("toy", "configuration", "data")
LENGTH = 6


class Denoise:
    """Removes noise of a known level by a network with dropout, so that torch's own generator matters too."""

    name = "toy"

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(LENGTH + 1, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, LENGTH))

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        on = {"generator": generator, "device": generator.device}
        return {"level": torch.rand(batch, **on), "eps": torch.randn(batch, LENGTH, **on)}

    def losses(self, network: nn.Module, rows: dict[str, Tensor], drawn: dict[str, Tensor]) -> Tensor:
        level = drawn["level"][:, None]
        noisy = rows["x"] + level * drawn["eps"]
        return (network(torch.cat([noisy, level], 1)) - rows["x"]).square().mean(1)

    def levels(self, drawn: dict[str, Tensor]) -> Tensor:
        return drawn["level"]


def toy_rows(rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(9))
    return {"x": torch.randn(rows, 2, generator=generator) @ mixing}


def configuration(**train_keys: object) -> Config:
    keys = {"steps": 30, "batch": 16, "validate_every": 7, "checkpoint_every": 10, "warmup": 5} | train_keys
    return loads(f"train: {{{', '.join(f'{k}: {v}' for k, v in keys.items())}}}")


def keeper(folder: Path, keep: int = 2, origin: Origin = ORIGIN) -> Keeper:
    return Keeper(folder / "checkpoints", origin, keep)


def run(folder: Path, config: Config | None = None, shift: float = 0.0, **options: object) -> Trainer:
    """Train on 50 rows (3.1 batches) in a folder, from where its checkpoints end; `shift` is between them and the
    validation rows."""
    keep, history = keeper(folder), History(folder / "train.csv", "toy")
    options = {"keeper": keep, "history": history} | options
    rows = {"x": toy_rows(50)["x"] + shift}
    return train(Denoise(), config or configuration(), rows, toy_rows(20, 1), ALONE, **options)


class After:
    """A `stop` that is true, or does something, once it was looked at so many times: after so many steps on the CPU."""

    def __init__(self, steps: int, do=lambda: True) -> None:
        self.left, self.do = steps, do

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0 and self.do()


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    run(folder, stop=After(steps, lambda: os.kill(os.getpid(), signal.SIGKILL)))


if __name__ == "__main__":
    main()
