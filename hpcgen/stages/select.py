"""`hpcgen select`: stability-mlip.h5 to selected.h5: which crystals go on to VASP, and why others do not.

A crystal keeps the first reason that applies, in this order:

| reason | dropped because |
|---|---|
| `not-unique` | after relaxation it equals an earlier crystal |
| `not-novel` | it matches the training data (`select.require_novel`) |
| `not-relaxed` | the ML potential did not converge (`select.require_converged`) |
| `e-hull-too-high` | it lies more than `select.max_e_hull` above the first hull |
| `system-full` | `select.per_system` more stable crystals of its chemical system are in |
| `budget-spent` | those ranked before it use up `select.max_structures` or `select.node_hours` |

Chemical systems take turns: the most stable crystal of each comes first, the most stable of all in front, then the
second of each. So a budget that is cut short has been spent on many systems, not on many variants of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hpcgen import flow, provenance, store
from hpcgen.config import Config, SelectConfig
from hpcgen.flow import Relaxation, Selected, Stability
from hpcgen.stages.context import Balance, Context

STAGE = "select"


def run(ctx: Context) -> Balance:
    """Judge every crystal of the first hull and write selected.h5, best first."""
    files = [ctx.path(name) for name in ("stability-mlip.h5", "relaxed-mlip.h5")]
    with store.open(files[0], Stability) as f:
        crystals = list(f)
    with store.open(files[1], Relaxation) as f:
        converged = dict(zip(f.ids, f.column("converged"), strict=True))
    verdicts = judge(crystals, [bool(converged[s.relaxation_id]) for s in crystals], ctx.config)
    dropped = [v.reason for v in verdicts if not v.kept]
    balance = Balance.of(STAGE, len(verdicts), len(verdicts) - len(dropped), dropped)
    store.write(
        ctx.path("selected.h5"),
        Selected,
        verdicts,
        header=provenance.header(ctx.config, {p.name: store.content_digest(p) for p in files}),
        attrs={"balance": balance.to_json(), "node_hours": sum(v.node_hours for v in verdicts if v.kept)},
    )
    return balance


def judge(crystals: Sequence[Stability], converged: Sequence[bool], config: Config) -> list[Selected]:
    """The verdicts: first those that were ranked, in their order, then the others in the order of the file.

    Args:
        crystals: of the first hull.
        converged: whether the ML potential relaxed each completely.
        config: the configuration.
    """
    select: SelectConfig = config.select
    reasons = [_own_reason(s, ok, select) for s, ok in zip(crystals, converged, strict=True)]
    order = _turns([i for i, reason in enumerate(reasons) if not reason], crystals, reasons, select)
    hours = [estimated_hours(len(s.crystal), select) for s in crystals]
    spent, taken = 0.0, 0
    for i in order:
        full = select.max_structures is not None and taken >= select.max_structures
        dear = select.node_hours is not None and spent + hours[i] > select.node_hours
        if full or dear:
            reasons[i] = "budget-spent"
        else:
            spent, taken = spent + hours[i], taken + 1
    rank = {i: place + 1 for place, i in enumerate(order)}
    ranked = [*order, *(i for i in range(len(crystals)) if i not in rank)]
    return [
        Selected(
            id=flow.make_id(config.identity(STAGE), STAGE, i),
            candidate_id=crystals[i].candidate_id,
            relaxation_id=crystals[i].relaxation_id,
            kept=not reasons[i],
            reason=reasons[i],
            rank=rank.get(i, 0),
            formula=crystals[i].formula,
            system="-".join(crystals[i].crystal.elements),
            e_hull=crystals[i].e_hull,
            atoms=len(crystals[i].crystal),
            node_hours=hours[i],
        )
        for i in ranked
    ]


def estimated_hours(atoms: int, select: SelectConfig) -> float:
    """Node-hours that a cell of so many atoms is expected to take: an estimate, which the user scales."""
    return select.hours_16_atoms * (atoms / 16) ** 2


def _own_reason(s: Stability, converged: bool, select: SelectConfig) -> str:
    if not s.unique:
        return "not-unique"
    if select.require_novel and not s.novel:
        return "not-novel"
    if select.require_converged and not converged:
        return "not-relaxed"
    return "" if s.e_hull <= select.max_e_hull else "e-hull-too-high"


def _turns(good: list[int], crystals: Sequence[Stability], reasons: list[str], select: SelectConfig) -> list[int]:
    """`good` in the order of their turns; those beyond `per_system` get their reason and stay out."""
    systems: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in sorted(good, key=lambda i: (crystals[i].e_hull, crystals[i].id)):
        systems[crystals[i].crystal.elements].append(i)
    turns = []
    for members in systems.values():
        for turn, i in enumerate(members):
            if select.per_system is not None and turn >= select.per_system:
                reasons[i] = "system-full"
            else:
                turns.append((turn, crystals[i].e_hull, crystals[i].id, i))
    return [i for _, _, _, i in sorted(turns)]
