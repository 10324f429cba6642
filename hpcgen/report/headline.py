"""The numbers a group leader asks for first, named exactly."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgen.report.data import FAR_BELOW, Row, RunData
from hpcgen.screen import spacegroup_symbol

TOLERANCE = 1e-8
"""A member of the hull has e_hull 0 up to rounding, eV/atom."""


COMPARABLE = "energies and reference on one scale"
"""The only kind of share (`Reference.kind`) that may stand beside published ones without a warning."""


@dataclass(frozen=True)
class Threshold:
    """How many crystals lie at or below one energy above the hull.

    Attributes:
        e_hull: the threshold, eV/atom.
        relaxed: crystals of stability.h5 at or below it.
        unique, sun: those of them that are unique, and that are unique and novel, among the relaxed crystals.
        of_relaxed, of_generated, sun_of_generated: shares; NaN where the denominator is 0.
    """

    e_hull: float
    relaxed: int
    unique: int
    sun: int
    of_relaxed: float
    of_generated: float
    sun_of_generated: float


@dataclass(frozen=True)
class Reference:
    """Which energies were compared with which, in words that cannot be taken for something else.

    Attributes:
        calculator: the potential, as relaxed-mlip.h5 names it.
        scale, reference_scale: energy scales of the results and of the reference.
        source, date, digest: where the reference comes from, and its content.
        label, comparison: whether the two scales are the same, and why they may be compared.
        entries: number of its entries, 0 if unknown.
        same_potential: the reference was computed by the potential that relaxed the crystals.
        headline, text: the warning shown on the page.
        kind: what a share of stable crystals is called with this reference, beside published ones.
    """

    calculator: str
    scale: str
    reference_scale: str
    source: str
    label: str
    comparison: str
    date: str
    digest: str
    entries: int
    same_potential: bool
    headline: str
    text: str
    kind: str


def thresholds(data: RunData) -> list[Threshold]:
    """Counts for each of `hull.thresholds`, ascending."""
    stable = [r.stability for r in data.rows]
    out = []
    for limit in sorted(data.config.hull.thresholds):
        below = [s for s in stable if s.e_hull <= limit + TOLERANCE]
        unique = [s for s in below if s.unique]
        sun = sum(bool(s.novel) for s in unique)
        generated = data.generated_count
        out.append(
            Threshold(
                limit,
                len(below),
                len(unique),
                sun,
                _share(len(below), len(stable)),
                _share(len(below), generated),
                _share(sun, generated),
            )
        )
    return out


def stable_limit(data: RunData) -> float:
    """The threshold that headlines call stable: 0.1 eV/atom at most, as MatterGen; the lowest if all are above."""
    limits = sorted(data.config.hull.thresholds) or [0.0]
    return max((t for t in limits if t <= 0.1 + TOLERANCE), default=limits[0])


def reference(data: RunData) -> Reference:
    """What the energies mean, from the attributes of reference.h5 and stability.h5 and from the rows."""
    hull = data.attrs.get("stability.h5", {})
    ref = data.attrs.get("reference.h5", {})
    first = data.rows[0] if data.rows else None
    relaxed = data.attrs.get("relaxed-mlip.h5", {})
    calculator = first.relaxation.calculator if first and first.relaxation else ""
    calculator = calculator or str(relaxed.get("calculator") or data.config.relax.calculator)
    scale = (first.stability.scale if first else "") or str(hull.get("scale") or relaxed.get("scale") or "unknown")
    reference_scale = str(
        ref.get("scale")
        or (first.stability.reference_scale if first else "")
        or hull.get("reference_scale")
        or "unknown"
    )
    same = data.config.hull.reference == "self"
    source = str(hull.get("source") or ref.get("source") or data.config.hull.reference)
    label = str(hull.get("label") or (first.stability.label if first else ""))
    entries = int(ref.get("count", 0))
    digest = str(hull.get("reference_digest") or (first.stability.reference_digest if first else ""))
    if same:
        headline = f"Screening by {calculator} against a reference made by the same potential, NOT Materials Project"
        text = (
            f"The competing phases are {entries or 'the'} elements and training structures relaxed by the same "
            "potential. A phase that is missing there makes a crystal look more stable than it is. Use these numbers "
            "to rank candidates, not to claim stability."
        )
    elif label == "same-scale":
        headline = f"Energies by {calculator} against the reference {source}"
        text = f"Crystals and reference are on the same scale, {scale}."
    else:
        headline = f"Screening by {calculator} against {source}"
        text = (
            f"Energies of the crystals are on the scale {scale}, those of the reference on {reference_scale}. "
            "No crystal here was computed by DFT: the potential's own error comes on top of "
            "each number. A phase that the reference lacks makes a crystal look more stable than it is. Use these "
            "numbers to rank candidates, not to claim stability."
        )
    return Reference(
        calculator=calculator,
        scale=scale,
        reference_scale=reference_scale,
        source=source,
        label=label,
        comparison=str(hull.get("comparison", "")),
        date=str(ref.get("date", "")),
        digest=digest,
        entries=entries,
        same_potential=same,
        headline=headline,
        text=text,
        kind=_kind(same, source, label),
    )


def _kind(same: bool, source: str, label: str) -> str:
    if same or "partial" in source:
        return "screening against a partial hull"
    return COMPARABLE if label == "same-scale" else "screening by a potential"


def lines(data: RunData) -> list[str]:
    """Five lines for the terminal and the head of the page."""
    limit = stable_limit(data)
    counts = {t.e_hull: t for t in thresholds(data)}
    converged = sum(r.converged is True for r in data.rows)
    built, screened = data.flow("reconstruct"), data.flow("screen")
    text = [f"{plural(data.generated_count, 'sample')} generated"]
    if built:
        text.append(f"{built.left} reconstructed")
    if screened:
        text.append(f"{screened.left} passed screening")
    ref = reference(data)
    first = f"{data.config.name}: {', '.join(text)}"
    second = f"{plural(len(data.rows), 'crystal')} relaxed by {ref.calculator}, {converged} converged"
    third = "energy above hull at or below " + ", ".join(
        f"{t.e_hull:g} eV/atom: {t.relaxed} ({percent(t.of_generated)} of all generated)" for t in counts.values()
    )
    if limit in counts:
        sun = counts[limit]
        share = percent(sun.sun_of_generated)
        fourth = f"stable (<= {limit:g} eV/atom), unique and novel: {sun.sun} ({share} of all generated)"
    else:
        fourth = "stable, unique and novel: no threshold configured"
    doubtful = sum(r.doubtful for r in data.rows)
    if doubtful:
        fourth += (
            f", {doubtful} of the relaxed so far below the hull (< {FAR_BELOW:g} eV/atom) that the reference must lack "
            "competing phases: not to be trusted"
        )
    best = best_row(data)
    if best is not None:
        s = best.stability
        which = "most stable new one" if s.unique and s.novel else "most stable"
        fourth += f"; {which}: {s.formula} ({spacegroup_symbol(s.spacegroup)}) at {s.e_hull:+.3f} eV/atom"
    return [first, second, third, fourth, ref.headline]


def best_row(data: RunData) -> Row | None:
    """The most stable plausible crystal, a unique and novel one if there is any; None without crystals."""
    good = [r for r in data.rows if r.stability.unique and r.stability.novel and not r.doubtful]
    return next(iter(good or data.rows), None)


def numbers(data: RunData) -> dict[str, Any]:
    """The content of report.json: for machines, with null where a number does not exist."""
    energies = np.array([r.stability.e_hull for r in data.rows])
    return {
        "schema": "hpcgen.report",
        "schema_version": 1,
        "name": data.config.name,
        "summary": lines(data),
        "generated": data.generated_count,
        "relaxed": len(data.rows),
        "converged": sum(r.converged is True for r in data.rows),
        "unique": sum(bool(r.stability.unique) for r in data.rows),
        "novel": sum(bool(r.stability.novel) for r in data.rows),
        "far_below_hull": sum(r.doubtful for r in data.rows),
        "e_hull_median": None if not len(energies) else _finite(float(np.median(energies))),
        "e_hull_min": None if not len(energies) else _finite(float(energies.min())),
        "thresholds": [{k: _finite(v) for k, v in t.__dict__.items()} for t in thresholds(data)],
        "reference": reference(data).__dict__,
        "stages": [f.__dict__ for f in data.flows],
        "losses": [loss.__dict__ for loss in data.losses],
        "config_digest": data.config.digest(),
        "seed": data.config.seed,
        "files": {name: str(a.get("content_digest", "")) for name, a in data.attrs.items()},
    }


def percent(share: float) -> str:
    """A share as text: `12.5 %`, or a dash where it does not exist."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def group_text(number: int) -> str:
    """Short symbol of a space group with its screw axes lowered, such as `P4₂/mnm`; a question mark for 0."""
    return re.sub(r"_(\d)", lambda m: chr(0x2080 + int(m.group(1))), spacegroup_symbol(number))


def plural(n: int, word: str) -> str:
    """`1 crystal`, `2 crystals`."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
