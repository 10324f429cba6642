"""Many crystals relaxed side by side: what has converged leaves, and the next one enters.

The order in which they enter depends on the crystals alone, so the crystals that are evaluated together are the same
on every rank and after every restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.relax.calculator import Relaxed
from hpcgen.relax.minimise import Descent, Evaluation, UnphysicalError

EvaluateAll = Callable[[Sequence[Crystal]], Sequence[Evaluation | UnphysicalError]]
"""The evaluation of each crystal, or why it has none."""


def relax_together(
    evaluate_all: EvaluateAll, ids: Sequence[str], crystals: Sequence[Crystal], config: RelaxConfig, atoms: int
) -> list[Relaxed | Failure]:
    """Relax each crystal by `minimise.Descent`.

    Args:
        evaluate_all: the potential. What it raises goes to the caller: no crystal of its batch is known to be guilty.
        ids: of the crystals, for failures.
        crystals: they enter in this order.
        config: criteria.
        atoms: evaluated at a time, at least one crystal.

    Returns:
        In the order of the crystals, a result or a failure of the stage `relax` each.
    """
    out: list[Relaxed | Failure | None] = [None] * len(crystals)
    going: dict[int, Descent] = {}
    entered = 0

    def fail(index: int, error: UnphysicalError) -> None:
        kind = error.kind
        if kind == "isolated-atom" and index in going and going[index].steps:
            kind = "dissociated"
        out[index] = Failure(ids[index], "relax", kind, f"{crystals[index].formula}: {error}")
        going.pop(index, None)

    while True:
        load = sum(len(descent.now) for descent in going.values())
        while entered < len(crystals) and (not going or load + len(crystals[entered]) <= atoms):
            try:
                going[entered] = Descent(crystals[entered], config)
                load += len(crystals[entered])
            except UnphysicalError as error:
                fail(entered, error)
            entered += 1
        if not going:
            return [item for item in out if item is not None]
        indices = list(going)
        start = time.perf_counter()
        results = evaluate_all([going[i].now for i in indices])
        per_atom = (time.perf_counter() - start) / load
        for i, result in zip(indices, results, strict=True):
            going[i].seconds += per_atom * len(crystals[i])
            try:
                if isinstance(result, UnphysicalError):
                    raise result
                going[i].take(result)
                if going[i].done:
                    out[i] = going[i].result()
                    going.pop(i)
            except UnphysicalError as error:
                fail(i, error)
