"""What the processes of test_ddp.py run; not a test by itself.

usage: torchrun ... ddp_program.py all|nan FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hpcgen.config import Config, loads
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.train import ddp
from hpcgen.train.checkpoint import Origin
from hpcgen.train.history import History
from hpcgen.train.keeper import Keeper
from hpcgen.train.loop import train
from hpcgen.train.trainer import Trainer

LENGTH = 12
BATCHES = (8, 7)  # 7 cannot be dealt out evenly
STOPPED = 4  # the first line of train.csv, where the processes first look at each other


def toy_data(rows: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    mixing = torch.randn(3, LENGTH, generator=generator)
    return torch.randn(rows, 3, generator=generator) @ mixing


def configuration(batch: int, steps: int = 8):
    return loads(f"""
seed: 3
model: {{width: 8, attention_dim: 16, attention_heads: 2}}
diffusion: {{steps: 50}}
train: {{steps: {steps}, batch: {batch}, validate_every: 4, device: cpu, warmup: 2}}
""")


def part_of(config: Config) -> DiffusionPart:
    return DiffusionPart("joint", config.model, config.diffusion, (LENGTH,))


def gradients(procs: ddp.Processes, batch: int) -> dict[str, torch.Tensor]:
    """The gradients that the optimiser sees after one global batch."""
    config = configuration(batch)
    trainer = Trainer(part_of(config), config, {"x": toy_data()}, procs)
    torch.manual_seed(0)
    torch.nn.init.normal_(trainer.network.last.weight)
    rows, drawn = trainer.batches.share(0, procs)
    procs.mean_loss(trainer.part.losses(trainer.forward, rows, drawn), batch).backward()
    return {name: p.grad for name, p in trainer.network.named_parameters()}


def trained(procs: ddp.Processes, folder: Path | None, batch: int = 7, *, broken: bool = False, **options) -> Trainer:
    """The trainer after eight steps; `broken`: the data of the last process are no numbers."""
    data = toy_data()
    if broken and procs.rank == procs.size - 1:
        data[:] = float("nan")
    if folder and procs.first:
        options["history"] = History(folder / f"train-{procs.size}.csv", "joint")
    config = configuration(batch)
    return train(part_of(config), config, {"x": data[:30]}, {"x": data[30:]}, procs, **options)


def preempted(procs: ddp.Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The weights after a stop that only the last process was told of, and a new start."""
    folder.mkdir(exist_ok=True)
    keeper = Keeper(folder / "checkpoints", Origin("toy", "", ""), 2) if procs.first else None
    looks = iter(range(1, 100))
    first = trained(procs, folder, keeper=keeper, stop=lambda: next(looks) == 1 and procs.rank == procs.size - 1)
    assert first.step == STOPPED
    return trained(procs, folder, keeper=keeper).network.state_dict()


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    with ddp.processes("cpu") as procs:
        if what == "nan":
            trained(procs, None, broken=True)
            return
        result = {
            "size": procs.size,
            "threads": torch.get_num_threads(),
            "gradients": {batch: gradients(procs, batch) for batch in BATCHES},
            "weights": trained(procs, folder).network.state_dict(),
            "resumed": preempted(procs, folder / "preempted"),
        }
        if procs.first:
            torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    main()
