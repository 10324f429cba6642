"""`hpcgen screen`: candidates.h5 and dataset.h5 to survivors.h5, one verdict per candidate.

A candidate that is dropped keeps its record with the first reason that applies, in this order:

| reason | dropped because |
|---|---|
| `cell-collapsed` | the volume is below 0.1 cubic angstrom |
| `atoms-too-close` | two atoms (own images included) are nearer than `screen.min_distance` |
| `residual-too-high` | the reconstruction misses its target by more than `screen.max_residual` |
| `composition-invalid` | SMACT does not balance it (`screen.require_valid_composition`) |
| `duplicate` | it equals an earlier candidate that came this far (`screen.require_unique`) |
| `not-novel` | it matches a training structure or one of `screen.known` (`screen.require_novel`) |

Uniqueness is judged among the candidates that pass the rules above it, so that a bad copy never drops a good
one; novelty is judged for every structurally valid candidate, whatever else is wrong with it.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from hpcgen import flow, provenance, store
from hpcgen.config import ScreenConfig
from hpcgen.crystal import Crystal, space_group
from hpcgen.family import get_family
from hpcgen.flow import Candidate, Survivor
from hpcgen.screen import Effort, composition_valid, find_duplicates, find_known, structure_problem
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.known import known_structures

log = logging.getLogger("hpcgen")

STAGE = "screen"


def run(ctx: Context) -> Balance:
    """Judge every candidate and write survivors.h5.

    Raises:
        ConfigError: if `screen.max_residual` names a family that there is not.
    """
    if isinstance(ctx.config.screen.max_residual, dict):
        for name in ctx.config.screen.max_residual:
            get_family(name)  # a name with a slip would keep everything
    candidates_file, dataset_file = ctx.path("candidates.h5"), ctx.path("dataset.h5")
    with store.open(candidates_file, Candidate) as f:
        candidates = list(f)
    known = known_structures(ctx)
    uniqueness, novelty = Effort(), Effort()
    identity = ctx.config.identity(STAGE)
    survivors = judge(candidates, known.crystals, ctx.config.screen, identity, uniqueness, novelty)
    dropped = [s.reason for s in survivors if not s.kept]
    balance = Balance.of(STAGE, len(survivors), len(survivors) - len(dropped), dropped)
    inputs = {p.name: store.content_digest(p) for p in (candidates_file, dataset_file)} | known.inputs
    store.write(
        ctx.path("survivors.h5"),
        Survivor,
        survivors,
        header=provenance.header(ctx.config, inputs),
        attrs={
            "balance": balance.to_json(),
            "uniqueness": str(uniqueness),
            "novelty": str(novelty),
            "known": known.text,
        },
    )
    return balance


def judge(
    candidates: list[Candidate],
    training: list[Crystal],
    config: ScreenConfig,
    run_digest: str,
    uniqueness: Effort | None = None,
    novelty: Effort | None = None,
) -> list[Survivor]:
    """The verdict on each candidate, in order.

    Args:
        candidates: all of them.
        training: the known crystals, which novelty is judged against.
        config: the rules.
        run_digest: for the ids of the records.
        uniqueness, novelty: what was compared is added to them.
    """
    crystals = [c.crystal for c in candidates]
    distance = [c.smallest_distance() for c in crystals]
    balanced = [composition_valid(c.numbers) for c in crystals]
    sound = [not structure_problem(c, config.min_distance, d) for c, d in zip(crystals, distance, strict=True)]

    reasons = []
    for candidate, d, composition in zip(candidates, distance, balanced, strict=True):
        reason = structure_problem(candidate.crystal, config.min_distance, d)
        limit = config.residual_limit(candidate.family)
        if not reason and limit < math.inf and not candidate.residual <= limit:
            reason = "residual-too-high"
        if not reason and config.require_valid_composition and not composition:
            reason = "composition-invalid"
        reasons.append(reason)

    novel = np.zeros(len(candidates), dtype=bool)
    checked = np.flatnonzero(sound)
    novel[checked] = ~np.array(find_known([crystals[i] for i in checked], training, novelty), dtype=bool)

    duplicate_of = [""] * len(candidates)
    passed = [i for i, reason in enumerate(reasons) if not reason]
    for i, earlier in zip(passed, find_duplicates([crystals[i] for i in passed], uniqueness), strict=True):
        if earlier >= 0:
            duplicate_of[i] = candidates[passed[earlier]].id
            if config.require_unique:
                reasons[i] = "duplicate"
        if not reasons[i] and config.require_novel and not novel[i]:
            reasons[i] = "not-novel"

    return [
        Survivor(
            id=flow.make_id(run_digest, STAGE, i),
            candidate_id=candidate.id,
            kept=not reasons[i],
            reason=reasons[i],
            formula=candidate.crystal.formula,
            spacegroup=space_group(candidate.crystal) if sound[i] else 0,
            smallest_distance=distance[i],
            density=candidate.crystal.density,
            composition_valid=balanced[i],
            duplicate_of=duplicate_of[i],
            novel=bool(novel[i]),
        )
        for i, candidate in enumerate(candidates)
    ]
