"""`hpcgen phonons`: stability.h5 to phonons.h5. No link of the chain: it is asked for when a campaign is done.

What enters are all crystals of stability.h5. Those above `phonons.max_e_hull` or equal to an earlier one are failures
of the kinds `above-limit` and `duplicate`. The others are relaxed further, to `phonons.max_force`, by the calculator of
the campaign, and their modes computed; one that does not get there is a failure `not-relaxed`.
"""

from __future__ import annotations

import time
from typing import Any

from hpcgen import farm, flow, provenance, store
from hpcgen.config import RelaxConfig
from hpcgen.dynamics import phonons
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Phonons, Stability
from hpcgen.relax import get_calculator
from hpcgen.relax.device import one_thread
from hpcgen.relax.minimise import UnphysicalError
from hpcgen.stages.context import Balance, Context

STAGE = "phonons"
SHARDS = "shards-phonons"
SECONDS_PER_ATOM = 1.0  # of the cell, for scheduling only


def run(ctx: Context) -> Balance | None:
    """Compute the modes of every crystal within the limit; called on every rank, returns the balance on rank 0.

    Raises:
        DependencyError: if phonopy is not installed.
        ConfigError: if the calculator of the campaign gives no forces of a crystal as it stands.
    """
    config = ctx.config
    phonons.check_installed()
    farm.pin_device(config.farm, config.relax.device)
    calculator: Any = get_calculator(tightened(config.relax, config.phonons.max_force, config.phonons.max_stress))
    if not hasattr(calculator, "evaluate_all"):
        raise ConfigError(
            f"relax.calculator is {config.relax.calculator}, which relaxes crystals but evaluates none",
            expected="chgnet, ase or gpaw",
        )
    with store.open(ctx.path("stability.h5"), Stability) as f:
        candidates = [str(name) for name in f.column("candidate_id")]
        e_hull, unique = f.column("e_hull"), f.column("unique")
        crystals = f.crystals
    identity = config.identity(STAGE)
    ids = [flow.make_id(identity, STAGE, i) for i in range(len(candidates))]
    wanted = (e_hull <= config.phonons.max_e_hull) & unique

    def work(i: int) -> Phonons | Failure:
        if not wanted[i]:
            kind = "above-limit" if e_hull[i] > config.phonons.max_e_hull else "duplicate"
            text = f"{e_hull[i]:.4f} eV/atom above the hull" if kind == "above-limit" else "equals an earlier crystal"
            return Failure(candidates[i], STAGE, kind, text)
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
        frequency, q = modes.lowest()
        n = len(relaxed.crystal)
        return Phonons(
            id=ids[i],
            crystal=relaxed.crystal,
            candidate_id=candidates[i],
            formula=relaxed.crystal.formula,
            imaginary=frequency < -config.phonons.tolerance,
            lowest_frequency=frequency,
            displacements=modes.displacements,
            supercell_atoms=int(modes.supercell.prod()) * n,
            calculator=calculator.title,
            settings_digest=calculator.settings_digest,
            seconds=time.perf_counter() - start,
            gamma=modes.frequencies[0].reshape(n, 3),
            lowest_q=q,
            supercell=modes.supercell,
        )

    def deliver(result: farm.FarmResult) -> Balance:
        balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
        inputs = {"stability.h5": store.content_digest(ctx.path("stability.h5"))}
        attrs = {"balance": balance.to_json(), "calculator": calculator.title}
        result.write(ctx.path("phonons.h5"), header=provenance.header(config, inputs), attrs=attrs)
        return balance

    sizes = crystals.offset[1:] - crystals.offset[:-1]
    return farm.run(
        ids,
        [SECONDS_PER_ATOM * float(n) if w else 1e-3 for n, w in zip(sizes, wanted, strict=True)],
        work,
        Phonons,
        shards=ctx.path(SHARDS),
        config=config.farm,
        label=STAGE,
        deliver=deliver,
        name_of=lambda i: candidates[i],
    )


def tightened(config: RelaxConfig, max_force: float, max_stress: float) -> RelaxConfig:
    """The same calculator, to smaller forces and stress."""
    return config.model_copy(
        update={"max_force": min(max_force, config.max_force), "max_stress": min(max_stress, config.max_stress)}
    )
