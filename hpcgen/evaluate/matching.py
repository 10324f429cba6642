"""Match rates against real crystals: one prediction for each (CDVAE, DiffCSP), and everyone to reference (METRe).

A match is one of `StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)`; its RMSE is the root mean square displacement
over (V/N)^(1/3), as the matcher gives it.

- *Match rate, all*: matched rows over all rows. *Valid only*: a row counts as matched only if the prediction is valid
  by CDVAE (structure, composition, fingerprint); the denominator stays (`RecEval` of CDVAE). RMSE is the mean over
  matches.
- *METRe* (arXiv 2509.12178): share of reference crystals that any prediction matches; *cRMSE* is the mean over the
  whole reference of the smallest RMSE, with `stol` where nothing matches. Predictions need not be paired with rows.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.parallel import mapped

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

STOL, LTOL, ANGLE_TOL = 0.5, 0.3, 10.0
Numbers = dict[str, Any]


@cache
def matcher() -> StructureMatcher:
    """The matcher of the published match rates, one for each process."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL)


def rms(pair: tuple[Crystal | Failure, Crystal | Failure]) -> float:
    """Normalised root mean square displacement of a prediction from the real crystal, NaN without a match."""
    a, b = pair
    if isinstance(a, Failure) or isinstance(b, Failure) or a.formula != b.formula:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = matcher().get_rms_dist(to_structure(a), to_structure(b))
        except (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError):  # cells unlike a crystal, as in CDVAE
            return float("nan")
    return float("nan") if found is None else float(found[0])


@dataclass(frozen=True, eq=False)
class Matches:
    """Paired predictions.

    Attributes:
        rms: (R,) of each reference row, NaN without a match.
        valid: (R,) whether the prediction is valid by CDVAE.
    """

    rms: FloatArray
    valid: NDArray[np.bool_]

    def rates(self, rows: ArrayLike | None = None) -> Numbers:
        """Match rates and RMSE, of all rows or those of a mask; None where there is nothing to take a mean of."""
        mask = np.ones(len(self.rms), dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
        out: Numbers = {"rows": int(mask.sum())}
        for name, counted in (("all", mask), ("valid_only", mask & self.valid)):
            found = self.rms[counted & np.isfinite(self.rms)]
            out[f"match_rate_{name}"] = len(found) / int(mask.sum()) if mask.any() else None
            out[f"rmse_{name}"] = float(found.mean()) if len(found) else None
        return out


def match_pairs(
    predictions: Sequence[Crystal | Failure],
    reference: Sequence[Crystal | Failure],
    valid: ArrayLike,
    *,
    processes: int,
) -> Matches:
    """Match each prediction with the reference row of the same place.

    Raises:
        DataError: if there is not one prediction for each row.
    """
    if len(predictions) != len(reference):
        raise DataError(
            f"{len(predictions)} predictions for {len(reference)} reference rows cannot be paired",
            expected="one prediction for each row, in the same order",
        )
    pairs = list(zip(predictions, reference, strict=True))
    return Matches(np.array(list(mapped(rms, pairs, processes=processes, label="matching"))), np.asarray(valid, bool))


def best_of(sets: Sequence[Matches]) -> Matches:
    """For each row the prediction with the smallest RMSE among several sets; valid ones first."""
    values = np.array([np.where(np.isfinite(m.rms), m.rms, np.inf) + np.where(m.valid, 0.0, 1e6) for m in sets])
    rows, best = np.arange(values.shape[1]), values.argmin(axis=0)
    return Matches(np.array([m.rms for m in sets])[best, rows], np.array([m.valid for m in sets])[best, rows])


def everyone_to_reference(
    predictions: Sequence[Crystal | Failure], reference: Sequence[Crystal], *, processes: int
) -> FloatArray:
    """(R,) smallest RMSE of any prediction to each reference crystal, NaN where none matches.

    Only predictions of the same reduced formula can match, so only these are compared.
    """
    by_formula: dict[str, list[Crystal]] = defaultdict(list)
    for item in predictions:
        if isinstance(item, Crystal):
            by_formula[item.formula].append(item)
    tasks = [(c, tuple(by_formula.get(c.formula, ()))) for c in reference]
    return np.array(list(mapped(_smallest, tasks, processes=processes, label="everyone to reference", unit=" rows")))


def metre(smallest: FloatArray) -> Numbers:
    """METRe and cRMSE from `everyone_to_reference`."""
    matched = np.isfinite(smallest)
    return {"metre": float(matched.mean()), "crmse": float(np.where(matched, smallest, STOL).mean())}


def _smallest(task: tuple[Crystal, tuple[Crystal, ...]]) -> float:
    real, made = task
    found = [value for value in (rms((c, real)) for c in made) if np.isfinite(value)]
    return min(found, default=float("nan"))
