"""`hpcgen relax`: survivors.h5 and candidates.h5 to relaxed-mlip.h5, by the calculator of `relax.calculator`.

What enters are the survivors that the screening kept. A crystal that explodes, collapses, falls apart or that the
calculator cannot handle is a failure with the id of its candidate; one that does not converge within
`relax.max_steps` goes on with `converged` false.

A task is a crystal, and `relax.batch` crystals that follow one another are relaxed side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcgen import farm, flow, provenance, store
from hpcgen.crystal import CrystalBatch
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor
from hpcgen.relax import cost, get_calculator, relax_all
from hpcgen.stages.context import Balance, Context

STAGE = "relax"
SHARDS = "shards-relax"


@dataclass(frozen=True, eq=False)
class Kept:
    """The survivors that were kept, in the order of the file, as compact arrays: every rank holds them.

    Attributes:
        rows: (K,) rows of survivors.h5.
        candidate_ids: of the K candidates.
        crystals: their K crystals.
    """

    rows: Sequence[int]
    candidate_ids: Sequence[str]
    crystals: CrystalBatch


def run(ctx: Context) -> Balance | None:
    """Relax every kept survivor; called on every rank, returns the balance on rank 0."""
    config = ctx.config
    farm.pin_device(config.farm, config.relax.device)
    kept = kept_candidates(ctx)
    calculator = get_calculator(config.relax)
    identity = config.identity(STAGE)
    ids = [flow.make_id(identity, STAGE, row) for row in kept.rows]

    def work(members: list[int]) -> list[Relaxation | Failure]:
        crystals = [kept.crystals[i] for i in members]
        return relax_all(calculator, crystals, [ids[i] for i in members], [kept.candidate_ids[i] for i in members])

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
        [cost(int(n)) for n in np.diff(kept.crystals.offset)],
        work,
        Relaxation,
        shards=ctx.path(SHARDS),
        config=config.farm,
        label=STAGE,
        groups=groups_of(len(ids), config.relax.batch),
        deliver=deliver,
        name_of=lambda i: kept.candidate_ids[i],
    )


def groups_of(tasks: int, size: int) -> list[range]:
    """The tasks in runs of `size`, the last one shorter."""
    return [range(start, min(start + size, tasks)) for start in range(0, tasks, size)]


def kept_candidates(ctx: Context) -> Kept:
    """What goes on to relaxation.

    Raises:
        StoreError: if survivors.h5 names a candidate that candidates.h5 does not hold.
    """
    with store.open(ctx.path("survivors.h5"), Survivor) as f:
        kept = np.flatnonzero(f.column("kept")).tolist()
        names = f.column("candidate_id")
        wanted = [str(names[row]) for row in kept]
    with store.open(ctx.path("candidates.h5"), Candidate) as f:
        rows = {candidate_id: row for row, candidate_id in enumerate(f.ids)}
        unknown = [name for name in wanted if name not in rows]
        if unknown:
            raise StoreError(
                f"survivors.h5 names {len(unknown)} candidates that candidates.h5 does not hold, such as {unknown[0]}",
                expected="two files of one run",
                remedy="run `hpcgen screen --redo`",
            )
        return Kept(kept, wanted, f.crystals.take([rows[name] for name in wanted]))
