"""What each rank knows about itself, told to all: the questions of `hpcgen doctor` that only MPI can answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hpcgen.farm.world import World, library_of, load_mpi


def gather(facts: dict[str, Any], world: World) -> list[dict[str, Any]]:
    """The facts of every rank, in the order of the ranks, on every rank. All ranks call it.

    Args:
        facts: what JSON can hold; may differ in size between ranks.
        world: the ranks.
    """
    if world.comm is None:
        return [facts]
    mine = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    sizes = world.collect(np.array([len(mine)], dtype=np.int64))[:, 0]
    padded = np.zeros(sizes.max(), dtype=np.uint8)
    padded[: len(mine)] = mine
    return [json.loads(row[:size].tobytes()) for row, size in zip(world.collect(padded), sizes, strict=True)]


def library() -> str:
    """Name and version of the MPI library that mpi4py uses, such as `Open MPI v5.0.11`.

    MPI is loaded but, unless `world` did so before, not initialised: under some launchers that would end the process.

    Raises:
        ImportError, RuntimeError: if there is no mpi4py, or no MPI library that it can use.
    """
    return library_of(load_mpi())
