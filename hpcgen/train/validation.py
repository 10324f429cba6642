"""The validation loss: the same rows, random numbers and order every time, for any number of processes."""

from __future__ import annotations

import math

import torch
from torch import nn

from hpcgen.flow import seed_of
from hpcgen.train.batches import count
from hpcgen.train.ddp import Processes
from hpcgen.train.part import Part, Rows
from hpcgen.train.tally import Mean, Tally

DRAWS = 4096  # at least so many rows with their random numbers, as far as 16 draws of each row give them
CHUNK = 256


@torch.no_grad()
def validation_loss(part: Part, network: nn.Module, data: Rows, procs: Processes, seed: int) -> Mean:
    """Mean loss over the rows, each with several draws of the random numbers; NaN without rows.

    Args:
        part: says what the loss is.
        network: in evaluation mode.
        data: (V, ...) each, on the device; V may be 0.
        procs: this process; all call it.
        seed: of the run.
    """
    tally = Tally(procs.device)
    rows = count(data)
    if rows:
        device = data["x"].device
        generator = torch.Generator(device).manual_seed(seed_of(seed, part.name, "validation"))
        repeats = min(16, math.ceil(DRAWS / rows))
        # in random order: a batch's random numbers may be spread evenly, and a row should not always get the first
        order = torch.randperm(rows * repeats, generator=generator, device=device) % rows
        for number, index in enumerate(order.split(CHUNK)):
            drawn = part.draw(len(index), generator)  # also what other processes compute: it must not depend on them
            if number % procs.size == procs.rank:
                losses = part.losses(network, {k: v.index_select(0, index) for k, v in data.items()}, drawn)
                tally.add(losses, part.levels(drawn))
    return tally.mean(procs)
