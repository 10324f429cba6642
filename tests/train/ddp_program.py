"""What the processes of test_ddp.py run; not a test by itself.

usage: torchrun ... ddp_program.py all|nan FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hpcgen import diffusion, models
from hpcgen.config import loads
from hpcgen.train import ddp
from hpcgen.train.loop import Batches, train

LENGTH = 12
BATCHES = (8, 7)  # 7 cannot be dealt out evenly


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


def gradients(procs: ddp.Processes, batch: int) -> dict[str, torch.Tensor]:
    """The gradients that the optimiser sees after one global batch."""
    config = configuration(batch)
    torch.manual_seed(0)
    model = models.build(config.model, (LENGTH,))
    torch.nn.init.normal_(model.last.weight)
    schedule = diffusion.Schedule.of("cosine", 50)
    x0, t, eps = Batches(toy_data(), batch, 3, schedule).share(0, procs)
    wrapped = procs.wrap(model)  # held until after backward: DDP averages gradients as long as it lives
    losses = diffusion.loss(wrapped, x0, t, eps, schedule, diffusion.OBJECTIVES["v"])
    procs.mean_loss(losses, batch).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def trained(procs: ddp.Processes, folder: Path | None, batch: int = 7, *, broken: bool = False) -> torch.nn.Module:
    """The network after eight steps; `broken`: the data of the last process are no numbers."""
    data = toy_data()
    if broken and procs.rank == procs.size - 1:
        data[:] = float("nan")
    csv_path = folder / f"train-{procs.size}.csv" if folder else None
    return train(configuration(batch), data[:30], data[30:], procs, keep=lambda weights: None, csv_path=csv_path)


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
            "weights": trained(procs, folder).state_dict(),
        }
        if procs.first:
            torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    main()
