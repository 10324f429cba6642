"""De novo generation: validity, coverage, distances of distributions, uniqueness and novelty of a set of crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.coverage import Thresholds, nearest
from hpcgen.evaluate.distributions import Mean, earth_movers
from hpcgen.evaluate.measured import Measured
from hpcgen.screen import find_duplicates, find_known

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is not fixed by the definitions.

    Attributes:
        thresholds: coverage thresholds by the name of their protocol.
        draws: draws of 1,000 valid samples for the distances of distributions, and of real rows for the ceiling.
        seed: of the draws.
    """

    thresholds: Mapping[str, Thresholds]
    draws: int = 5
    seed: int = 0


def compare_sets(made: Measured, reference: Measured, settings: Settings) -> Numbers:
    """Validity, coverage and distances of distributions of one set, by CDVAE's definitions.

    Args:
        made: what was generated, failures included; shares are of all of it.
        reference: the real crystals.
        settings: thresholds and draws.

    Raises:
        DataError: if nothing was generated or no reference crystal has a fingerprint.
    """
    try:
        near = nearest(made.structure, made.composition, reference.structure, reference.composition)
    except ValueError as error:
        raise DataError(f"{error}", remedy="give files that hold crystals") from None
    valid = made.valid
    out: Numbers = {
        "n": len(made),
        "validity_structure": float(made.structure_valid.mean()),
        "validity_structure_own_images": float(made.own_images_valid.mean()),
        "validity_composition": float(made.composition_valid.mean()),
        "validity": float(valid.mean()),
        "fingerprint_failed": int((~made.has_fingerprint).sum()),
        "coverage": {
            name: {"thresholds": t.name, "cov_r": near.recall(t), "cov_p": near.precision(t)}
            for name, t in settings.thresholds.items()
        },
        "n_valid": int(valid.sum()),
    }
    for name, column in (("emd_density", "density"), ("emd_elements", "n_elements")):
        x, y = getattr(made, column), getattr(reference, column)
        distance = earth_movers(x[valid], y[np.isfinite(reference.density)], draws=settings.draws, seed=settings.seed)
        out[name], out[f"{name}_spread"] = distance
    return out


def ceiling(real: Measured, reference: Measured, n: int, settings: Settings) -> Numbers:
    """`compare_sets` of real crystals instead of generated ones: what no generator is expected to beat.

    Args:
        real: real crystals that are not the reference.
        reference: as in `compare_sets`.
        n: crystals in the generated set; as many real ones are drawn, or all there are.
        settings: with fewer than all, the mean over `settings.draws` draws.
    """
    if not len(real):
        raise DataError("there are no real crystals to hold against the reference", remedy="give --training")
    if n >= len(real):
        return compare_sets(real, reference, settings)
    rng = np.random.default_rng(settings.seed)
    draws = [rng.choice(len(real), n, replace=False) for _ in range(settings.draws)]
    return average([compare_sets(real.take(np.sort(rows)), reference, settings) for rows in draws])


def average(results: Sequence[Numbers]) -> Numbers:
    """Means over sets of every number that all of them have, with the standard deviation beside it as `NAME_spread`."""
    first = results[0]
    if len(results) == 1:
        return first
    out: Numbers = {}
    for key, value in first.items():
        if not all(key in r for r in results):
            continue
        if isinstance(value, Mapping):
            out[key] = average([r[key] for r in results])
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if not key.endswith("_spread"):
                out[key], out[f"{key}_spread"] = Mean.of([r[key] for r in results])
        else:
            out[key] = value
    return out


def novel_items(items: Sequence[Crystal | Failure], made: Measured, training: Sequence[Crystal]) -> NDArray[np.bool_]:
    """(M,) which items are structurally valid crystals that equal no training crystal."""
    rows, crystals = _valid(items, made)
    novel = np.zeros(len(items), dtype=bool)
    novel[rows] = ~np.array(find_known(crystals, training), dtype=bool)
    return novel


def uniqueness_and_novelty(
    items: Sequence[Crystal | Failure],
    made: Measured,
    training: Sequence[Crystal],
    novel_ones: NDArray[np.bool_] | None = None,
) -> tuple[Numbers, list[bool]]:
    """Shares of everything generated that equal no earlier one, and no training crystal (`hpcgen.screen.matching`).

    Only structurally valid crystals can be unique or novel. `novel_ones` is what `novel_items` says, if it is known.

    Returns:
        `unique`; with training crystals also `novel`, `unique_and_novel` and `known_formula` (share of the valid
        ones whose reduced formula a training crystal has); and which items are unique and novel.
    """
    rows, crystals = _valid(items, made)
    unique = np.array(find_duplicates(crystals), dtype=int) < 0
    out: Numbers = {"unique": float(unique.sum() / len(items))}
    good = unique
    if len(training):
        novel = (novel_items(items, made, training) if novel_ones is None else novel_ones)[rows]
        formulas = {c.formula for c in training}
        out["novel"] = float(novel.sum() / len(items))
        out["unique_and_novel"] = float((unique & novel).sum() / len(items))
        out["known_formula"] = float(np.mean([made.formula[i] in formulas for i in rows])) if rows else float("nan")
        good = unique & novel
    chosen = [False] * len(items)
    for row, yes in zip(rows, good, strict=True):
        chosen[row] = bool(yes)
    return out, chosen


def _valid(items: Sequence[Crystal | Failure], made: Measured) -> tuple[list[int], list[Crystal]]:
    """Places of the structurally valid crystals, and these."""
    found = [(i, item) for i, item in enumerate(items) if isinstance(item, Crystal) and made.structure_valid[i]]
    return [i for i, _ in found], [crystal for _, crystal in found]


def apart(made: Measured, reference: Measured, formulas: set[str], settings: Settings) -> Numbers:
    """Coverage of the reference apart: rows that share a reduced formula with a training row, and those that do not."""
    near = nearest(made.structure, made.composition, reference.structure, reference.composition)
    known = np.array([f in formulas for f in reference.formula])[reference.has_fingerprint]
    out: Numbers = {}
    for group, rows in (("formula_in_training", known), ("formula_new", ~known)):
        out[group] = {"reference_rows": int(rows.sum())}
        for name, t in settings.thresholds.items():
            covered: FloatArray = near.covered(t)[rows].astype(float)
            out[group][f"cov_r_{name}"] = float(covered.mean()) if len(covered) else None
    return out
