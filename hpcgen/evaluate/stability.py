"""S.U.N.: the share of everything generated that is stable, unique and novel (MatterGen, Nature 639, 624, 2025).

A crystal is stable if its energy, relaxed by the ML potential, is at most 0.1 eV/atom above the hull of the reference;
unique if its relaxed structure equals none before it; novel if it equals no training crystal. Every share is of all
that was generated, failures included. MatterGen's published numbers are of DFT energies, of its own reference (about
850,000 crystals) and of a matcher that also knows disordered crystals; potential and reference are named in the result,
and against a reference that lacks phases the share is an upper bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgen.crystal import Crystal, composition_of
from hpcgen.errors import Failure
from hpcgen.relax.calculator import Relaxed
from hpcgen.screen import find_duplicates, find_known
from hpcgen.thermo import Hulls, MissingElementError, ReferenceSet, compare

STABLE = 0.1  # eV/atom above the hull
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Of one generated crystal.

    Attributes:
        e_hull: energy above the reference hull after relaxation, eV/atom.
        unique: equals no relaxed crystal before it.
        novel: equals no training crystal.
        converged: the relaxation ended within its limits; otherwise the energy is an upper bound.
    """

    e_hull: float
    unique: bool
    novel: bool
    converged: bool


def judge(
    results: Sequence[Relaxed | Failure], scale: str, reference: ReferenceSet, training: Sequence[Crystal]
) -> list[Verdict | Failure]:
    """The verdict on each relaxed crystal, in order; `no-element-reference` where the reference lacks an element.

    Raises:
        ThermoError: if energies of that scale may not be held against the reference.
    """
    compare(scale, reference.scale)
    rows = [(i, r) for i, r in enumerate(results) if isinstance(r, Relaxed)]
    crystals = [r.crystal for _, r in rows]
    first = {i: earlier < 0 for (i, _), earlier in zip(rows, find_duplicates(crystals), strict=True)}
    known = dict(zip((i for i, _ in rows), find_known(crystals, training), strict=True))
    hulls = Hulls(reference)
    out: list[Verdict | Failure] = []
    for i, result in enumerate(results):
        if isinstance(result, Failure):
            out.append(result)
            continue
        try:
            place = hulls.judge(composition_of(result.crystal.numbers), result.energy / len(result.crystal))
        except MissingElementError as error:
            out.append(Failure(f"row:{i + 1}", "evaluate", "no-element-reference", str(error)))
            continue
        out.append(Verdict(place.e_hull, first[i], not known[i], result.converged))
    return out


def sun(verdicts: Sequence[Verdict | Failure], *, asked: int | None = None, threshold: float = STABLE) -> Numbers:
    """Shares of everything generated.

    Args:
        verdicts: of each.
        asked: how much was generated, where that is more than `verdicts`.
        threshold: stable up to here, eV/atom above the hull.
    """
    n = len(verdicts) if asked is None else asked
    good = [v for v in verdicts if isinstance(v, Verdict)]
    stable = [v for v in good if v.e_hull <= threshold]
    return {
        "n": n,
        "stable": len(stable) / n,
        "unique": sum(v.unique for v in good) / n,
        "novel": sum(v.novel for v in good) / n,
        "sun": sum(v.unique and v.novel for v in stable) / n,
        "on_hull": sum(v.e_hull <= 0 and v.unique and v.novel for v in good) / n,
        "threshold_eV": threshold,
        "median_e_hull_eV": float(np.median([v.e_hull for v in good])) if good else float("nan"),
        "not_converged": sum(not v.converged for v in good),
        "failures": dict(Counter(v.kind for v in verdicts if isinstance(v, Failure)).most_common()),
    }
