"""Many structures through VASP: what every stage that runs it has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcgen import slots
from hpcgen.config import SlotsConfig, VaspConfig
from hpcgen.crystal import Crystal
from hpcgen.farm.signals import StopSignals
from hpcgen.vasp.inputs import Plan
from hpcgen.vasp.site import check_site

PROGRAM = "hpcgen.vasp.task:run"


def order(config: VaspConfig, crystal: Crystal, plan: Plan) -> dict[str, Any]:
    """What a slot is told of one structure."""
    geometry = {"lattice": crystal.lattice.tolist(), "frac": crystal.frac.tolist(), "numbers": crystal.numbers.tolist()}
    return {"vasp": config.model_dump(mode="json"), "plan": plan.to_json(), **geometry}


def compute(
    root: Path,
    tasks: Sequence[str],
    order_of: Callable[[str], dict[str, Any]],
    vasp: VaspConfig,
    config: SlotsConfig,
    *,
    elements: Iterable[str],
    shard: str = "0-of-1",
    then: Callable[[str], Iterable[str]] = lambda task: (),
    in_vain: Callable[[str], Iterable[str]] = lambda task: (),
) -> slots.Summary:
    """Do what is left of some tasks in slots, until all are done, or time or a signal ends it.

    Args:
        root: folder of the ledger and of the tasks; made if it is not there.
        tasks: their names.
        order_of: what a slot is told of one, as `order` makes it.
        vasp: how VASP is started.
        config: of the slots.
        elements: of all structures.
        shard: this part of several, `0-of-1` for all.
        then, in_vain: see `slots.Controller`.

    Raises:
        DependencyError, LaunchError: if VASP cannot be started here.
        StoreError: if the disk is full.
        RunFolderError: if another controller of the same part is at work.
    """
    check_site(vasp, set(elements))
    settings = slots.SlotSettings(
        n=config.n,
        attempts=config.attempts,
        end=slots.job_end(config.walltime),
        reserve=config.reserve,
        shortest=config.shortest,
        grace=config.grace,
        free=int(config.min_free * 1e9),
        interval=config.log_interval,
        wrapper=tuple(config.wrapper),
    )
    root.mkdir(exist_ok=True)
    with StopSignals() as stop:
        controller = slots.Controller(
            root.resolve(), PROGRAM, order_of, settings, shard, lambda: stop.raised, then, in_vain
        )
        return controller.run(tasks)
