"""Stage reconstruct: samples.h5 -> candidates.h5, over all MPI ranks.

Every rank opens samples.h5 itself and reads only the sample it works on. A candidate's random stream is seeded by
its own id, so the candidates are the same on any number of ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hpcgen import farm, provenance, store
from hpcgen.errors import Failure, StoreError
from hpcgen.family import get_family
from hpcgen.flow import Candidate, make_id, seed_of
from hpcgen.stages.context import Balance, Context

log = logging.getLogger("hpcgen")

STAGE = "reconstruct"


def run(ctx: Context) -> Balance | None:
    """Turn every sample into a crystal and write candidates.h5. All ranks call it.

    Returns:
        The balance on rank 0, None on the others.

    Raises:
        StoreError: if samples.h5 is missing, damaged or of another schema, or its attributes do not fit its family.
        ConfigError: if its family is not known here.
    """
    config, path = ctx.config, ctx.path("samples.h5")
    world = farm.world()
    with store.open(path) as samples:
        family = str(samples.attrs.get("family", ""))
        if samples.schema != "hpcgen.samples" or not family:
            raise StoreError(
                f"{path} holds {samples.schema}" + ("" if family else ", and names no family"),
                expected="hpcgen.samples as `hpcgen sample` writes it",
            )
        if world.rank == 0:
            samples.verify()
        reconstructor = get_family(family).reconstructor(samples.attrs, config)
        run_digest = config.identity(STAGE)
        warm_up_in_turn(reconstructor.warm_up, world)

        def work(index: int) -> Candidate | Failure:
            candidate_id = make_id(run_digest, STAGE, index)
            return reconstructor.reconstruct(samples[index], candidate_id, seed_of(config.seed, candidate_id, STAGE))

        def deliver(result: farm.FarmResult) -> Balance:
            balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
            header = provenance.header(config, {path.name: samples.content_digest})
            attrs = {"family": family, "balance": balance.to_json(), **reconstructor.candidate_attrs()}
            result.write(ctx.path("candidates.h5"), header=header, attrs=attrs)
            return balance

        # shards of other samples are never taken for these
        shards = ctx.path(f"shards-{STAGE}-{samples.content_digest[:16]}")
        return farm.run(
            samples.raw_ids,
            reconstructor.costs(samples),
            work,
            Candidate,
            shards=shards,
            config=config.farm,
            label=STAGE,
            deliver=deliver,
            world=world,
        )


def warm_up_in_turn(warm_up: Callable[[], None], world: farm.World) -> None:
    """Compile kernels outside the tasks; rank 0 first, so that the others find its work in the cache."""
    if world.rank == 0:
        warm_up()
    world.barrier()
    if world.rank != 0:
        warm_up()
