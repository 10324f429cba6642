"""The farm: every task computed at least once, every result counted exactly once."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen import __version__
from hpcgen.config import FarmConfig
from hpcgen.errors import EXIT_INTERNAL, HpcgenError
from hpcgen.farm import agreement
from hpcgen.farm.channel import Channel, exit_together, part
from hpcgen.farm.result import FarmResult
from hpcgen.farm.solo import obey, order_received
from hpcgen.farm.starts import Farm
from hpcgen.farm.units import Units
from hpcgen.farm.world import World
from hpcgen.farm.world import world as launched_world


def run(
    task_ids: Sequence[str] | NDArray[np.bytes_],
    costs: ArrayLike,
    work: Callable[[Any], Any],
    record_type: type,
    *,
    shards: Path | None,
    config: FarmConfig,
    label: str,
    groups: Sequence[Sequence[int]] | None = None,
    deliver: Callable[[FarmResult], Any] | None = None,
    name_of: Callable[[int], str] | None = None,
    world: World | None = None,
) -> Any:
    """Do every task that has no committed result yet, and hand all results to the leader.

    Every rank calls it with the same tasks. The leader is rank 0; if it dies and the MPI survives that, the next one
    is. Which rank does which task, and how often the run was killed, does not change the result.

    Args:
        task_ids: (M) unique ids, at most 16 ASCII characters.
        costs: (M,) estimated seconds of each task, needed on rank 0 only; only the schedule depends on them.
        work: index of a task -> a record of `record_type` or a `Failure`; must depend on nothing but the task. If it
            raises, that is a `Failure` of the kind `internal-error`; `DeviceFailure` takes this rank out of the run;
            an `HpcgenError` ends the run. With `groups`: indices of a group's tasks -> a record or `Failure` for each.
            If that raises, takes too long or kills its process, it is called with each task of the group alone.
        record_type: a type that the store knows.
        shards: folder for the shards, seen by all ranks; None: results are dropped, to measure scheduling alone.
        config: limits, chunk size and log interval.
        label: name of the stage, for messages.
        groups: the tasks that are done together, such as the micro-batches of a network, each task in one group. They
            may depend on the tasks alone, not on the ranks.
        deliver: called on the leader with the `FarmResult`, to write the output, while the others wait; if the leader
            dies in it, the next one calls it again. After it the shards are removed.
        name_of: index -> id of the item in failures that the farm makes itself; default: the task's id.
        world: the ranks; default: those that the launcher started.

    Returns:
        On the leader what `deliver` returned, or the `FarmResult` if there is none; None on the others.

    Raises:
        LaunchError: if the ranks do not have the same tasks or the same version of hpcgen, or no device works.
        StoreError: if shards in the folder hold other records, or cannot be written.
        SystemExit: with code 75, after SIGTERM or SIGUSR1, with everything done so far committed.
    """
    ids = np.asarray(task_ids, dtype="S16")
    work_all = work if groups is not None else (lambda members: [work(members[0])])
    if order := order_received(label):
        members = [int(np.flatnonzero(ids == task.encode())[0]) for task in order.tasks]
        return obey(order, members, work_all, record_type, name_of)
    world = world or launched_world()
    agreement.check(world, {"hpcgen version": __version__, "tasks": hashlib.sha256(ids.tobytes()).hexdigest()})
    channel = Channel(world.comm) if world.comm is not None else None
    farm = Farm(
        channel, ids, Units(len(ids), groups), costs, work_all, record_type, shards, config, label, deliver, name_of
    )
    try:
        value = farm.run()
        part()
        return value
    except BaseException as error:
        if isinstance(error, SystemExit):
            exit_together(int(error.code or 0), farm.channel)
            raise
        if world.size == 1:
            raise
        # The others wait for messages of this rank, so an exception here may not just unwind.
        if isinstance(error, HpcgenError):
            print(f"rank {world.rank}: {error}", file=sys.stderr)
            world.abort(error.exit_code, farm.channel)
        print(f"rank {world.rank} of {world.size}, {label}:\n{traceback.format_exc()}", file=sys.stderr)
        world.abort(EXIT_INTERNAL, farm.channel)
        raise
