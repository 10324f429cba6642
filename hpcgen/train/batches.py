"""Which rows and random numbers a step trains on: a function of the seed and the step alone.

So nothing of it needs to be stored for a restart, and it does not depend on the number of processes: every process
draws the global batch whole, on the device of the data, and takes its share.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from hpcgen.errors import LaunchError, TrainingError
from hpcgen.flow import seed_of
from hpcgen.train.ddp import Processes
from hpcgen.train.part import Part, Rows

log = logging.getLogger("hpcgen")


class Batches:
    """Global batches: the rows in a new order each epoch, and the random numbers of each step.

    Batches run on across the ends of epochs, so that every row is used equally often.

    Args:
        part: says which random numbers a batch needs.
        data: (M, ...) each, on the device of `procs`.
        batch: B, rows of a global batch, at most M.
        seed: of the run.
    """

    def __init__(self, part: Part, data: Rows, batch: int, seed: int) -> None:
        self.part, self.data, self.batch, self.seed = part, data, batch, seed
        self.size = count(data)
        self.device = data["x"].device
        self._generator = torch.Generator(self.device)
        self._orders: dict[int, Tensor] = {}

    def _seed(self, item: str, purpose: str = "train") -> int:
        return seed_of(self.seed, f"{self.part.name}:{item}", purpose)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = self._generator.manual_seed(self._seed(f"epoch:{epoch}"))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = torch.randperm(self.size, generator=generator, device=self.device)
        return self._orders[epoch]

    def rows(self, step: int) -> Tensor:
        """(B,) rows of the batch of this step (from 0)."""
        out = []
        position, end = step * self.batch, (step + 1) * self.batch
        while position < end:
            epoch, start = divmod(position, self.size)
            out.append(self._order(epoch)[start : start + end - position])
            position += len(out[-1])
        return out[0] if len(out) == 1 else torch.cat(out)

    def share(self, step: int, procs: Processes) -> tuple[Rows, dict[str, Tensor]]:
        """This process' share of the batch of a step (from 0): B' rows of the data, and their random numbers."""
        mine = procs.share(self.batch)
        rows = self.rows(step)[mine]
        drawn = self.part.draw(self.batch, self._generator.manual_seed(self._seed(f"step:{step}")))
        return {k: v.index_select(0, rows) for k, v in self.data.items()}, {k: v[mine] for k, v in drawn.items()}

    def seed_network(self, step: int, procs: Processes) -> None:
        """Seed torch's own generators, which dropout draws from, for a step of one process."""
        seed = self._seed(f"step:{step}", f"network {procs.rank}")
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)


def count(data: Rows) -> int:
    """M, the number of rows."""
    return len(data["x"])


def effective_batch(batch: int, rows: int, procs: Processes) -> int:
    """The global batch: at most the rows there are, at least one row for each process.

    Raises:
        TrainingError: if there are no rows.
        LaunchError: if there are more processes than rows in a batch.
    """
    if rows == 0:
        raise TrainingError("there are no training vectors", remedy="give more data, or lower data.test_fraction")
    if batch > rows and procs.first:
        log.warning("train.batch is %d and there are %d training vectors: batches of %d", batch, rows, rows)
    batch = min(batch, rows)
    if batch < procs.size:
        raise LaunchError(
            f"{procs.size} processes share batches of {batch}", remedy="start fewer processes, or raise train.batch"
        )
    return batch
