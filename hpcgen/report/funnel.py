"""The funnel: how many crystals were left after each step, and where every other one went."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcgen.report.data import RunData
from hpcgen.report.headline import TOLERANCE, stable_limit

CHAIN = {
    "sample": "samples generated",
    "reconstruct": "reconstructed as crystals",
    "screen": "passed screening",
    "relax": "relaxed",
    "hull": "compared with the hull",
    "select": "selected for DFT",
    "dft": "relaxed by DFT",
    "stability": "compared with the hull again",
}
SIDE = {
    "data": "training structures",
    "train": "training",
    "reference": "reference phases",
    "dynamics": "molecular dynamics",
    "phonons": "phonons",
}


@dataclass(frozen=True)
class Step:
    """One step of the funnel.

    Attributes:
        label: what is left, in words.
        entered, left: counts; their difference is `losses`, by kind.
        stage: the stage whose balance this is; empty for a verdict derived from stability.h5.
    """

    label: str
    entered: int
    left: int
    losses: dict[str, int] = field(default_factory=dict)
    stage: str = ""


def chain(data: RunData) -> list[Step]:
    """From the samples to what is stable, unique and novel; stages without a balance are left out.

    Samples of other runs come in as a step of their own, which enters more than the one before left.
    """
    steps = [
        Step(label, flow.entered, flow.left, flow.losses, stage)
        for stage, label in CHAIN.items()
        if (flow := data.flow(stage)) is not None
    ]
    if data.other_samples:
        entered = next(s.entered for s in steps if s.stage == "reconstruct")
        steps.insert(1, Step(f"with {data.other_samples} samples of other runs", entered, entered))
    limit = stable_limit(data)
    rows = [r.stability for r in data.rows]
    stable = [s for s in rows if s.e_hull <= limit + TOLERANCE]
    unique = [s for s in stable if s.unique]
    novel = [s for s in unique if s.novel]
    for label, loss, before, after in (
        (f"at or below {limit:g} eV/atom", f"above {limit:g} eV/atom", rows, stable),
        ("and unique", "equal after relaxation", stable, unique),
        ("and novel", "in the training data", unique, novel),
    ):
        lost = len(before) - len(after)
        steps.append(Step(label, len(before), len(after), {loss: lost} if lost else {}))
    return steps


def side(data: RunData) -> list[Step]:
    """Balances of the stages beside the chain: training data, training, reference."""
    return [
        Step(label, flow.entered, flow.left, flow.losses, stage)
        for stage, label in SIDE.items()
        if (flow := data.flow(stage)) is not None
    ]
