"""`hpcgen relax`: survivors.h5 and candidates.h5 to relaxed-mlip.h5, by the calculator of `relax.calculator`.

What enters are the survivors that the screening kept. A crystal that explodes, collapses or that the potential
cannot handle is a failure with the id of its candidate; one that does not converge within `relax.max_steps` goes on
with `converged` false.
"""

from __future__ import annotations

from hpcgen import farm, flow, provenance, store
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor
from hpcgen.relax import cost, get_calculator, relax_one
from hpcgen.stages.context import Balance, Context

STAGE = "relax"
SHARDS = "shards-relax"


def run(ctx: Context) -> Balance | None:
    """Relax every kept survivor; called on every rank, returns the balance on rank 0."""
    config = ctx.config
    farm.pin_device(config.farm, config.relax.device)
    tasks = kept_candidates(ctx)
    calculator = get_calculator(config.relax)
    ids = [flow.make_id(config.identity(STAGE), STAGE, index) for index, _, _ in tasks]

    def work(i: int) -> Relaxation | Failure:
        _, candidate_id, crystal = tasks[i]
        return relax_one(calculator, crystal, ids[i], candidate_id)

    def deliver(result: farm.FarmResult) -> Balance:
        balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
        inputs = {name: store.content_digest(ctx.path(name)) for name in ("survivors.h5", "candidates.h5")}
        attrs = {
            "balance": balance.to_json(),
            "calculator": calculator.title,
            "scale": calculator.scale,
            "settings_digest": calculator.settings_digest,
        }
        result.write(ctx.path("relaxed-mlip.h5"), header=provenance.header(config, inputs), attrs=attrs)
        return balance

    return farm.run(
        ids,
        [cost(len(crystal)) for _, _, crystal in tasks],
        work,
        Relaxation,
        shards=ctx.path(SHARDS),
        config=config.farm,
        label=STAGE,
        deliver=deliver,
        name_of=lambda i: tasks[i][1],
    )


def kept_candidates(ctx: Context) -> list[tuple[int, str, Crystal]]:
    """(row in survivors.h5, candidate id, crystal) of each survivor that was kept, in the order of the file.

    Raises:
        StoreError: if survivors.h5 names a candidate that candidates.h5 does not hold.
    """
    with store.open(ctx.path("candidates.h5"), Candidate) as f:
        rows = {candidate_id: row for row, candidate_id in enumerate(f.ids)}
        crystals = f.crystals
    with store.open(ctx.path("survivors.h5"), Survivor) as f:
        kept, names = f.column("kept"), f.column("candidate_id")
    unknown = [name for name, keep in zip(names, kept, strict=True) if keep and name not in rows]
    if unknown:
        raise StoreError(
            f"survivors.h5 names {len(unknown)} candidates that candidates.h5 does not hold, such as {unknown[0]}",
            expected="two files of one run",
            remedy="run `hpcgen screen --redo`",
        )
    return [(i, name, crystals[rows[name]]) for i, (name, keep) in enumerate(zip(names, kept, strict=True)) if keep]
