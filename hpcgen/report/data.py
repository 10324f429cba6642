"""What the report knows: every file of the run folder, read once and joined by id.

Only stability.h5 is required; whatever else is missing leaves its part of the report out.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import CrystalBatch, FloatArray
from hpcgen.errors import Failure
from hpcgen.flow import Dynamics, Relaxation, Stability, Survivor
from hpcgen.report.distribution import Distribution
from hpcgen.report.training import read

FILES = (
    *("dataset.h5", "samples.h5", "candidates.h5", "survivors.h5", "relaxed-*.h5", "reference.h5", "stability*.h5"),
    *("selected.h5", "dynamics.h5", "phonons.h5"),
)
"""Files of a run folder, in the order of the stages; those after stability.h5 only where something was asked for."""

REFERENCE = "reference.h5"
DYNAMICS, PHONONS = "dynamics.h5", "phonons.h5"
"""What `hpcgen dynamics` and `hpcgen phonons` write, beside the chain."""

VERDICT = "stability.h5"
"""The last hull: what headlines, ranks and shares are taken from. `stability-*.h5` are those of other calculators."""

STAGE_ORDER = (
    *("data", "train", "sample", "reconstruct", "screen", "relax", "reference", "hull"),
    *("select", "dft", "stability", "dynamics", "phonons"),
)
REJECTING = {"survivors.h5": "screen", "selected.h5": "select"}
"""Files whose records may be dropped with a reason, and their stages."""

EXAMPLES = 3


@dataclass(frozen=True)
class StageFlow:
    """What went through one stage.

    Attributes:
        stage: its name.
        entered, left: items in and out; the rest is in `losses`.
        losses: items lost, by kind.
        seconds: wall time, None where the pipeline did not record it.
    """

    stage: str
    entered: int
    left: int
    losses: dict[str, int]
    seconds: float | None


@dataclass(frozen=True)
class Loss:
    """Items that one stage lost for one reason, with a few messages."""

    stage: str
    kind: str
    count: int
    examples: list[str]


FAR_BELOW = -0.1
"""eV/atom. New phases lie a few hundredths below a complete hull. What lies further below tells of competing phases
that the reference lacks, or of a potential that fails there; it is kept, marked, and ranked last."""


@dataclass(frozen=True, eq=False)
class Row:
    """One crystal of stability.h5 with what the earlier stages knew about it.

    Attributes:
        stability: the verdict.
        relaxation: its relaxation, None if no relaxed-*.h5 holds it.
        residual: relative residual of its reconstruction, NaN if unknown.
        judged_by: the calculator whose energy `stability` rests on.
        others: the verdicts of other calculators on the same candidate, by calculator.
        dynamics: what molecular dynamics says of it, None if it was not simulated.
        phonons: its harmonic modes, None if they were not computed; a record of phonons.h5.
        relaxations: all its relaxations by calculator, that of `stability` first.
        final: False if only another calculator's hull (`stability-*.h5`) has it, not stability.h5.
    """

    stability: Stability
    relaxation: Relaxation | None
    residual: float
    judged_by: str = ""
    others: dict[str, Stability] = field(default_factory=dict)
    dynamics: Dynamics | None = None
    phonons: Any = None
    final: bool = True
    relaxations: dict[str, Relaxation] = field(default_factory=dict)

    @property
    def doubtful(self) -> bool:
        """Whether it lies so far below the reference hull that competitors must be missing there (`FAR_BELOW`)."""
        return self.stability.e_hull < FAR_BELOW

    @property
    def converged(self) -> bool | None:
        """Whether the relaxation converged; None if unknown."""
        return None if self.relaxation is None else bool(self.relaxation.converged)


@dataclass(frozen=True, eq=False)
class RunData:
    """Everything the report shows.

    Attributes:
        config: the configuration of the run.
        rows: the crystals of stability.h5, most stable first.
        rest: crystals that only the hull of an earlier calculator has (not selected, or failed since), likewise.
        flows: what went through each stage, in order.
        losses: failures and rejections, by stage and kind.
        attrs: root attributes of each file that is there, by file name.
        generated, training: distributions of the candidates and of the training split; None if the file is missing.
        curves: columns of train.csv as numbers (NaN where empty), by part of the generator; empty if there is none.
        timings: seconds by stage as the pipeline recorded them.
    """

    config: Config
    rows: list[Row]
    flows: list[StageFlow]
    losses: list[Loss]
    attrs: dict[str, dict[str, Any]]
    generated: Distribution | None
    training: Distribution | None
    curves: dict[str, dict[str, FloatArray]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    rest: list[Row] = field(default_factory=list)

    @property
    def calculators(self) -> list[str]:
        """Whose energies were compared with a hull: that of stability.h5 first."""
        final = [r.judged_by for r in self.rows[:1]] or [str(self.config.relax.calculator)]
        others = [name for r in (*self.rows, *self.rest) for name in r.others]
        return list(dict.fromkeys([*final, *others]))

    def flow(self, stage: str) -> StageFlow | None:
        """The flow of one stage, None if unknown."""
        return next((f for f in self.flows if f.stage == stage), None)

    @property
    def generated_count(self) -> int:
        """Samples asked of the generator, and those of other runs that were rebuilt with them: the denominator of every
        share of 'everything generated'.
        """
        for stage in ("sample", "reconstruct"):
            flow = self.flow(stage)
            if flow is not None:
                return flow.entered + (self.other_samples if stage == "sample" else 0)
        return len(self.rows)

    @property
    def other_samples(self) -> int:
        """Samples of other runs (`reconstruct.more_samples`): what entered the reconstruction beside this run's own."""
        own, all_of_them = self.flow("sample"), self.flow("reconstruct")
        return 0 if own is None or all_of_them is None else max(0, all_of_them.entered - own.left)


def collect(folder: Path, config: Config) -> RunData:
    """Read a run folder.

    Raises:
        StoreError: if stability.h5 is missing, or a file is damaged or of another schema.
    """
    recorded = _stages_json(folder / "stages.json")
    attrs: dict[str, dict[str, Any]] = {}
    losses: list[Loss] = []
    balances = {stage: e["balance"] for stage, e in recorded.items() if e.get("balance")}
    timings = {stage: float(e["seconds"]) for stage, e in recorded.items() if "seconds" in e}
    generated = training = None
    residuals: dict[str, float] = {}
    paths = [path for pattern in FILES for path in sorted(folder.glob(pattern))]

    for path in paths if folder / VERDICT in paths else [folder / VERDICT]:  # opening says what is wrong
        with store.open(path) as f:
            attrs[path.name] = dict(f.attrs)
            if "balance" in f.attrs:
                balance = json.loads(f.attrs["balance"])
                balances[balance["stage"]] = balance
            losses += _failures(f.failures)
            if path.name == "dataset.h5":
                training = Distribution.of(_only(f.crystals, [s == "train" for s in f.column("split")]))
            elif path.name == "candidates.h5":
                generated = Distribution.of(f.crystals)
                residuals = dict(zip(f.ids, np.asarray(f.column("residual"), dtype=float).tolist(), strict=True))
            elif path.name in REJECTING:
                losses += _rejections(REJECTING[path.name], list(f))

    order = [*STAGE_ORDER, *(stage for stage in balances if stage not in STAGE_ORDER)]
    flows = [
        StageFlow(stage, b["entered"], b["left"], b["failures"], timings.get(stage))
        for stage in order
        if (b := balances.get(stage)) and stage != "report"
    ]
    losses.sort(key=lambda loss: order.index(loss.stage) if loss.stage in order else len(order))
    rows, rest = _rows(folder, residuals)
    curves = read(folder / "train.csv")
    return RunData(config, rows, flows, losses, attrs, generated, training, curves, timings, rest)


def _rows(folder: Path, residuals: dict[str, float]) -> tuple[list[Row], list[Row]]:
    """The crystals of stability.h5, and those that only other hulls have; each with what all calculators say."""
    relaxations: dict[str, Relaxation] = {}
    for path in sorted(folder.glob("relaxed-*.h5")):
        with store.open(path) as f:
            relaxations |= {r.id: r for r in f if isinstance(r, Relaxation)}
    simulated, modes = _by_candidate(folder / DYNAMICS), _by_candidate(folder / PHONONS)
    rows: dict[str, Row] = {}
    rest: dict[str, Row] = {}
    for path in (folder / VERDICT, *sorted(folder.glob("stability-*.h5"))):
        with store.open(path, Stability) as f:
            for s in f:
                relaxation = relaxations.get(s.relaxation_id)
                name = relaxation.calculator if relaxation else s.scale
                residual = residuals.get(s.candidate_id, math.nan)
                final = path.name == VERDICT
                row = Row(
                    s,
                    relaxation,
                    residual,
                    name,
                    dynamics=simulated.get(s.candidate_id),
                    phonons=modes.get(s.candidate_id),
                    final=final,
                )
                known = rows.setdefault(s.candidate_id, row) if final else rows.get(s.candidate_id)
                known = known or rest.setdefault(s.candidate_id, row)
                if relaxation is not None:
                    known.relaxations[name] = relaxation
                if not final:
                    known.others[name] = s
    return _ranked(rows.values()), _ranked(rest.values())


def _by_candidate(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    with store.open(path) as f:
        return {record.candidate_id: record for record in f}


def _ranked(rows: Iterable[Row]) -> list[Row]:
    """The most stable first; at the end what lies implausibly low, and what has no energy."""
    return sorted(rows, key=lambda r: (r.doubtful, math.isnan(r.stability.e_hull), r.stability.e_hull, r.stability.id))


def _stages_json(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {entry["stage"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def _only(batch: CrystalBatch, wanted: list[bool]) -> CrystalBatch:
    return CrystalBatch.of([batch[i] for i, w in enumerate(wanted) if w])


def _failures(failures: list[Failure]) -> list[Loss]:
    messages: dict[tuple[str, str], list[str]] = defaultdict(list)
    for failure in failures:
        messages[failure.stage, failure.kind].append(f"{failure.id}: {failure.message}")
    return _counted(messages)


def _rejections(stage: str, verdicts: list[Any]) -> list[Loss]:
    """What a stage dropped, said in words; `verdicts` have `kept` and `reason`."""
    messages: dict[tuple[str, str], list[str]] = defaultdict(list)
    for s in verdicts:
        if not s.kept:
            detail = _detail(s) if isinstance(s, Survivor) else ""
            messages[stage, s.reason].append(f"{s.candidate_id}: {s.formula}" + (f", {detail}" if detail else ""))
    return _counted(messages)


def _detail(s: Survivor) -> str:
    return {
        "atoms-too-close": f"smallest distance {s.smallest_distance:.2f} Å",
        "cell-collapsed": f"density {s.density:.0f} g/cm³",
        "composition-invalid": "no neutral set of oxidation states",
        "duplicate": f"equals {s.duplicate_of}",
        "not-novel": "matches a training structure",
    }.get(s.reason, "")


def _counted(messages: dict[tuple[str, str], list[str]]) -> list[Loss]:
    """The most frequent first."""
    ordered = sorted(messages.items(), key=lambda item: -len(item[1]))
    return [Loss(stage, kind, len(m), m[:EXAMPLES]) for (stage, kind), m in ordered]
