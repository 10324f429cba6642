"""Speed of training: hpcgen's engine beside a plain DataLoader loop, the same network on the same machine.

    python benchmarks/train.py --preset paper --seconds 60
    python benchmarks/train.py --preset resmlp --seconds 20 --processes 2
    python benchmarks/train.py --preset paper --seconds 60 --batch 512     # on a GPU

Three things take turns in short blocks, so that a busy machine disturbs them alike, and each figure is the median over
the blocks: a step of the engine (`Trainer.advance`); the bare network (forward, backward, optimiser, on one batch that
never changes); and the loop, as one writes it in an afternoon: DataLoader, fp32, the preset's batch, Adam, no averaged
weights, `loss.item()`. Data are random numbers, which cost the same.

Keys of the last line, one JSON object:
    samples_per_s           rows a second, of the engine
    loop_samples_per_s      of the loop
    overhead_fraction       part of the engine's step that is not the bare network
    fraction_of_peak_flops  floating-point operations of the network (torch counts them) over those of a large matrix
                            product in the same time
    step_ms                 of the engine, a batch of `batch`
With --processes N, on this node: `ddp_samples_per_s` of N processes that share the same global batch, each with
`threads` threads, and `ddp_scaling`, that over N times one process (both by the clock on the wall).

On a CPU times are CPU-seconds over threads; on a GPU the wall's, waiting for the device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from hpcgen.config import Config, loads
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.train import ddp
from hpcgen.train.trainer import Trainer

Step = Callable[[], object]


@dataclass(frozen=True)
class Preset:
    """A network and what it is trained on: vectors of `length`, batches of `batch`."""

    length: int
    batch: int
    settings: str


PRESETS = {
    "paper": Preset(1300, 64, "model: {name: unet1d, width: 64}\ndiffusion: {steps: 2000, objective: noise}"),
    "unet": Preset(400, 64, "model: {name: unet1d, width: 32, attention_dim: 64, patch: 4}"),
    "resmlp": Preset(400, 128, "model: {name: resmlp, width: 256, resnet_blocks: 3}"),
}
ROWS = 4096
BLOCKS = 5  # at least


def main() -> None:
    """Measure and print."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    preset = PRESETS[args.preset]
    config = configuration(preset, args)
    if args.worker:
        _worker(preset, config, args)
        return
    device = ddp.pick_device(args.device)
    trainer = make_trainer(preset, config, ddp.Processes(0, 1, device))
    steps: dict[str, Step] = {
        "engine": trainer.advance,
        "bare": bare(trainer),
        "loop": plain_loop(trainer, preset.batch).__next__,
    }
    seconds = take_turns(steps, args.seconds, device)
    flops = count_flops(steps["bare"]) / seconds["bare"]
    print(f"{args.preset}: {sum(p.numel() for p in trainer.network.parameters()):,} parameters on {device}")
    figures = {
        "preset": args.preset,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": args.threads,
        "batch": trainer.batch,
        "samples_per_s": round(trainer.batch / seconds["engine"], 1),
        "loop_samples_per_s": round(preset.batch / seconds["loop"], 1),
        "overhead_fraction": round(1 - seconds["bare"] / seconds["engine"], 4),
        "fraction_of_peak_flops": round(flops * seconds["bare"] / seconds["engine"] / peak_flops(trainer), 4),
        "step_ms": round(1000 * seconds["engine"], 3),
    }
    if args.processes > 1:
        one, many = (launch(args, n) for n in (1, args.processes))
        figures |= {
            "processes": args.processes,
            "ddp_samples_per_s": round(many, 1),
            "ddp_scaling": round(many / one / args.processes, 3),
        }
    print(json.dumps(figures))


def configuration(preset: Preset, args: argparse.Namespace) -> Config:
    """The preset, with more steps than anyone waits for."""
    train = f"train: {{steps: 1000000, batch: {args.batch or preset.batch}, compile: {str(args.compile).lower()}}}"
    return loads(f"{preset.settings}\n{train}", "the preset", args.set)


def make_trainer(preset: Preset, config: Config, procs: ddp.Processes) -> Trainer:
    """The engine on random vectors."""
    data = {"x": torch.randn(ROWS, preset.length, generator=torch.Generator().manual_seed(0))}
    part = DiffusionPart("joint", config.model, config.diffusion, (preset.length,))
    return Trainer(part, config, data, procs)


def bare(trainer: Trainer) -> Step:
    """Forward, backward and update of a network of its own on one batch."""
    network = trainer.part.network().to(trainer.procs.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    forward = torch.compile(network) if trainer.settings.compile else network
    rows, drawn = trainer.batches.share(0, trainer.procs)
    x, target = rows["x"], torch.randn_like(rows["x"])

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with trainer.autocast():
            loss = F.mse_loss(forward(x, drawn["t"]), target)
        loss.backward()
        optimiser.step()

    return step


def plain_loop(trainer: Trainer, batch: int) -> Iterator[float]:
    """Training as an ordinary implementation does it, a step a turn."""
    device, part = trainer.procs.device, trainer.part
    assert isinstance(part, DiffusionPart)
    network: nn.Module = part.network().to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    alpha_bar = part.schedule.alpha_bar.float().to(device)
    loader = DataLoader(TensorDataset(trainer.batches.data["x"].cpu()), batch_size=batch, shuffle=True)
    while True:
        for (x,) in loader:
            x = x.to(device)
            t = torch.randint(0, len(alpha_bar), (len(x),), device=device)
            noise = torch.randn_like(x)
            a = alpha_bar[t][:, None]
            loss = F.mse_loss(network(a.sqrt() * x + (1 - a).sqrt() * noise, t), noise)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.item()


def take_turns(steps: dict[str, Step], seconds: float, device: torch.device) -> dict[str, float]:
    """Seconds of one step of each, the median over blocks that take turns for so many seconds in all."""
    sizes = {}
    for name, step in steps.items():
        timed(step, 2, device)  # warm up: compiling, allocating
        sizes[name] = max(1, int(seconds / (4 * BLOCKS * len(steps)) / timed(step, 2, device)))
    blocks: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(blocks["bare"]) < BLOCKS:
        for name, step in steps.items():
            blocks[name].append(timed(step, sizes[name], device))
    return {name: statistics.median(values) for name, values in blocks.items()}


def timed(step: Step, times: int, device: torch.device) -> float:
    """Seconds of one of so many steps: CPU-seconds over threads, or the wall's with a GPU."""
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter() if gpu else time.process_time()
    for _ in range(times):
        step()
    if gpu:
        torch.cuda.synchronize()
    return ((time.perf_counter() - start) if gpu else (time.process_time() - start) / torch.get_num_threads()) / times


def count_flops(step: Step) -> int:
    """Floating-point operations of matrix products and convolutions in a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_flops(trainer: Trainer) -> float:
    """Operations a second in the product of two large matrices, in the precision that the network runs in."""
    device = trainer.procs.device
    size = 8192 if device.type == "cuda" else 1536
    with trainer.autocast():
        a = torch.randn(size, size, device=device) @ torch.randn(size, size, device=device)
    times = 20 if device.type == "cuda" else 3
    product = timed(lambda: a @ a, times, device), timed(lambda: a @ a, times, device)
    return 2 * size**3 / min(product)


def launch(args: argparse.Namespace, processes: int) -> float:
    """Rows a second of so many processes, by the clock on the wall."""
    with tempfile.TemporaryDirectory(prefix="train-") as name:
        out = Path(name) / "figure"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        options = [f"--preset={args.preset}", f"--seconds={args.seconds / 2}", f"--threads={args.threads}"]
        options += [f"--device={args.device}", f"--worker={out}", *(f"--set={s}" for s in args.set)]
        options += [f"--batch={args.batch}"] if args.batch else []
        subprocess.run([*command, __file__, *options], check=True, env=os.environ)
        return float(out.read_text(encoding="utf-8"))


def _worker(preset: Preset, config: Config, args: argparse.Namespace) -> None:
    """One process of `launch`."""
    with ddp.processes(args.device) as procs:
        torch.set_num_threads(args.threads)
        trainer = make_trainer(preset, config, procs)
        for _ in range(2):
            trainer.advance()
        procs.wait()
        start, steps = time.perf_counter(), 0
        while not procs.any(time.perf_counter() - start > args.seconds):
            trainer.advance()
            steps += 1
        if procs.first:
            args.worker.write_text(str(steps * trainer.batch / (time.perf_counter() - start)), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring, about (default: 60)")
    parser.add_argument("--batch", type=int, help="global batch of the engine (default: the preset's)")
    parser.add_argument("--threads", type=int, default=1, help="of each process, on a CPU (default: 1)")
    parser.add_argument("--processes", type=int, default=1, help="also measure so many DDP processes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compile", action="store_true", help="train.compile")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
