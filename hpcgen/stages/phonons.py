"""`hpcgen phonons`: stability.h5 to phonons.h5. No link of the chain: it is asked for when a campaign is done.

What enters are all crystals of stability.h5. Those above `phonons.max_e_hull`, equal to an earlier one or beyond
`phonons.n` are failures of the kinds `above-limit`, `duplicate` and `budget-spent`. The others are relaxed further, to
`phonons.max_force`, by the calculator of the campaign, and their modes computed; one that does not get there is a
failure `not-relaxed`. With `phonons.forces: vasp` VASP does both, in slots: see `phonons_vasp`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hpcgen import farm, provenance, store
from hpcgen.config import RelaxConfig
from hpcgen.dynamics import phonons
from hpcgen.errors import ConfigError, Failure, UsageError
from hpcgen.flow import Phonons
from hpcgen.relax import get_calculator
from hpcgen.relax.device import one_thread
from hpcgen.relax.minimise import UnphysicalError
from hpcgen.stages import phonons_vasp
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.phonons_crystals import OUTPUT, STAGE, choose, record

SHARDS = "shards-phonons"
SECONDS_PER_ATOM = 1.0  # of the cell, for scheduling only


def run(ctx: Context) -> Balance | None:
    """Compute the modes of every crystal within the limit; called on every rank, returns the balance on rank 0.

    Raises:
        DependencyError: if phonopy is not installed.
        ConfigError: if the calculator of the campaign gives no forces of a crystal as it stands.
        SystemExit: by VASP, with EXIT_REQUEUE if jobs are left.
    """
    config = ctx.config
    phonons.check_installed()
    if config.phonons.forces == "vasp":
        return phonons_vasp.run(ctx)
    farm.pin_device(config.farm, config.relax.device)
    calculator: Any = get_calculator(tightened(config.relax, config.phonons.max_force, config.phonons.max_stress))
    if not hasattr(calculator, "evaluate_all"):
        raise ConfigError(
            f"relax.calculator is {config.relax.calculator}, which relaxes crystals but evaluates none",
            expected="chgnet, ase or gpaw",
        )
    chosen = choose(ctx, "stability.h5")
    candidates, crystals = chosen.candidates, chosen.crystals

    def work(i: int) -> Phonons | Failure:
        if i in chosen.refused:
            return chosen.refused[i]
        start = time.perf_counter()
        (relaxed,) = calculator.relax([candidates[i]], [crystals[i]])
        if isinstance(relaxed, Failure):
            return Failure(candidates[i], STAGE, relaxed.kind, relaxed.message)
        if not relaxed.converged:
            text = f"forces stay above {config.phonons.max_force} eV/angstrom after {relaxed.steps} steps"
            return Failure(candidates[i], STAGE, "not-relaxed", f"{relaxed.crystal.formula}: {text}")
        try:
            with one_thread():
                modes = phonons.spectrum(calculator.evaluate_all, relaxed.crystal, config.phonons)
        except UnphysicalError as error:
            return Failure(candidates[i], STAGE, error.kind, f"{relaxed.crystal.formula}: {error}")
        return record(
            chosen,
            i,
            relaxed.crystal,
            modes,
            config.phonons,
            calculator=calculator.title,
            settings_digest=calculator.settings_digest,
            scale=calculator.scale,
            max_force=float(np.linalg.norm(relaxed.forces, axis=1).max()),
            seconds=time.perf_counter() - start,
        )

    def deliver(result: farm.FarmResult) -> Balance:
        balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
        inputs = {"stability.h5": store.content_digest(ctx.path("stability.h5"))}
        attrs = {"balance": balance.to_json(), "calculator": calculator.title, "identity": config.identity(STAGE)}
        result.write(ctx.path(OUTPUT), header=provenance.header(config, inputs), attrs=attrs)
        return balance

    sizes = crystals.offset[1:] - crystals.offset[:-1]
    return farm.run(
        chosen.ids,
        [1e-3 if i in chosen.refused else SECONDS_PER_ATOM * float(n) for i, n in enumerate(sizes)],
        work,
        Phonons,
        shards=ctx.path(SHARDS),
        config=config.farm,
        label=STAGE,
        deliver=deliver,
        name_of=lambda i: candidates[i],
    )


def run_shard(ctx: Context, shard: int, shards: int) -> int:
    """One part of several, for job arrays; by VASP only.

    Raises:
        UsageError: if the forces are those of a potential, where ranks share the work.
    """
    if ctx.config.phonons.forces != "vasp":
        raise UsageError(
            "--shard was given, and phonons.forces is `mlip`: ranks share that work by themselves",
            remedy="srun hpcgen phonons CONFIG, without --shard; or --set phonons.forces=vasp",
        )
    phonons.check_installed()
    return phonons_vasp.run_shard(ctx, shard, shards)


def check(ctx: Context) -> None:
    """Return if phonons.h5 is not there, or was made with the settings of the configuration.

    Raises:
        RunFolderError: if it was made with others: they are no part of what a run folder belongs to.
    """
    ctx.check_made_alike(OUTPUT, STAGE, "`phonons`, or of what comes before", unknown=True)


def tightened(config: RelaxConfig, max_force: float, max_stress: float) -> RelaxConfig:
    """The same calculator, to smaller forces and stress."""
    return config.model_copy(
        update={"max_force": min(max_force, config.max_force), "max_stress": min(max_stress, config.max_stress)}
    )
