"""Stage reconstruct: samples.h5, and sample files of other runs -> candidates.h5, over all MPI ranks.

Every rank opens the files itself and reads only the sample it works on. A candidate's random stream is seeded by
its own id, so the candidates are the same on any number of ranks.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from hpcgen import farm, provenance
from hpcgen.flow import Candidate
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.sample_files import STAGE, SampleFiles, balances_json

log = logging.getLogger("hpcgen")


def run(ctx: Context) -> Balance | None:
    """Turn every sample into a crystal and write candidates.h5. All ranks call it.

    Samples are those of samples.h5 and of the files that `reconstruct.more_samples` names, each rebuilt as its family
    does it.

    Returns:
        The balance on rank 0, None on the others.

    Raises:
        StoreError: if a file of samples is missing, damaged or of another schema, or its attributes do not fit its
            family.
        ConfigError: if a family is not known here, or two files hold the same sample.
    """
    config = ctx.config
    world = farm.world()
    with SampleFiles(ctx, verify=world.rank == 0) as samples:
        warm_up_in_turn(samples.warm_up, world)

        def deliver(result: farm.FarmResult) -> Balance:
            failures = result.failures
            balance = Balance.of(STAGE, result.tasks, result.records, failures)
            attrs = {"family": ", ".join(samples.families), "balance": balance.to_json(), **samples.attrs}
            if len(samples.sources) > 1:
                by_file = samples.balances(failures)
                attrs["balance_by_file"] = balances_json(by_file)
                for label, part in by_file.items():
                    log.info("%s: %s", label, part)
            header = provenance.header(config, samples.digests)
            result.write(ctx.path("candidates.h5"), header=header, attrs=attrs)
            return balance

        # shards of other samples are never taken for these
        contents = hashlib.blake2b("".join(samples.digests.values()).encode(), digest_size=8).hexdigest()
        return farm.run(
            samples.ids,
            samples.costs(),
            samples.rebuild,
            Candidate,
            shards=ctx.path(f"shards-{STAGE}-{contents}"),
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
