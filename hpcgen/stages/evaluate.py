"""`hpcgen evaluate generation|reconstruction|csp|sun`: any generator's crystals against real ones, outside the chain.

Each writes `evaluation-WHAT.json` and returns the same; docs/evaluation.md defines every number. The reference is a
file of real crystals. With `own_split`, its rows with number % 5 == 4 (from 0) are the reference and the others the
training rows; otherwise the training rows are a file of their own, or the training split of the run folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import HullConfig, RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate import coverage, distances, generation, matching
from hpcgen.evaluate.cache import Cache
from hpcgen.evaluate.distributions import earth_movers
from hpcgen.evaluate.energies import relaxed, single_points
from hpcgen.evaluate.fingerprint import definition
from hpcgen.evaluate.measured import Measured
from hpcgen.evaluate.sources import CrystalSet, read_set
from hpcgen.evaluate.stability import Verdict, judge, sun
from hpcgen.flow import Relaxation, Stability
from hpcgen.relax import get_calculator
from hpcgen.stages.evaluate_inputs import Real, Request, cache_of, ceiling_rows, kind_of, measured, real_of, sets_of
from hpcgen.stages.evaluate_result import Numbers, result_of
from hpcgen.stages.reference import read_reference
from hpcgen.thermo import compare

log = logging.getLogger("hpcgen")
DEFAULT_MATCHER = "pymatgen StructureMatcher(stol=0.3, ltol=0.2, angle_tol=5)"


def generation_of(request: Request, potential: RelaxConfig | None = None) -> Numbers:
    """Validity, coverage, EMD, uniqueness and novelty, beside the same of real rows.

    Several sets are also taken `together`, because recall, uniqueness and novelty depend on how many samples there are.

    Args:
        request: what is evaluated.
        potential: the calculator of the EMD of energies; None: without it.

    Raises:
        DataError, StoreError: for what cannot be read.
        DependencyError: if matminer is not installed.
    """
    sets, real, cache = sets_of(request), real_of(request), cache_of(request)
    kind = request.kind or kind_of(request.reference)
    thresholds = {"cdvae": coverage.CDVAE[kind], "structrepdiff": coverage.STRUCTREPDIFF[kind]}
    settings = generation.Settings(thresholds, request.draws, request.seed)
    reference = measured(real.reference, cache, request)
    formulas = {c.formula for c in real.training}
    made = [measured(s, cache, request) for s in sets]

    def numbers_of(items: Sequence[Crystal | Failure], m: Measured, novel: NDArray[np.bool_]) -> Numbers:
        numbers = generation.compare_sets(m, reference, settings)
        numbers |= generation.uniqueness_and_novelty(items, m, real.training, novel)[0]
        if formulas:
            numbers["reference_apart"] = generation.apart(m, reference, formulas, settings)
        return numbers

    everything, whole = [item for s in sets for item in s.items], Measured.together(made)
    novel = generation.novel_items(everything, whole, real.training)  # at once: training rows are reduced once
    each = np.split(novel, np.cumsum([len(s.items) for s in sets])[:-1])
    results = [numbers_of(s.items, m, new) for s, m, new in zip(sets, made, each, strict=True)]
    held, against, note = ceiling_rows(real, reference, cache, request)
    top = generation.ceiling(held, against, max(len(s.items) for s in sets), settings)
    more: Numbers = {}
    if len(sets) > 1:
        more["together"] = numbers_of(everything, whole, novel)
        more["ceiling_together"] = generation.ceiling(held, against, len(everything), settings)
    definitions = {**definition(), "coverage_thresholds": f"those of {kind}"}
    if potential is not None:
        top |= _add_energies(results, sets, made, real, request, potential)
        definitions["potential"] = get_calculator(potential).title
    return result_of(
        "generation", request, sets, real, results, definitions=definitions, ceiling=top, ceiling_is=note, **more
    )


def reconstruction_of(request: Request) -> Numbers:
    """Match rate and RMSE of predictions that are paired with the reference rows, all and valid only."""
    sets, real, cache = sets_of(request), real_of(request), cache_of(request)
    results = [_paired(s, real, cache, request)[1] for s in sets]
    return result_of("reconstruction", request, sets, real, results, definitions=_matcher_definition())


def csp_of(request: Request, potential: RelaxConfig | None = None) -> Numbers:
    """Match rate, RMSE, METRe and cRMSE of predicted crystals; several sets are several predictions for each row.

    Sets that do not have one prediction for each row get METRe and cRMSE alone.

    Args:
        request: what is evaluated.
        potential: the calculator of the energy distance; None: without CSPBenchMetrics' distances.
    """
    sets, real, cache = sets_of(request), real_of(request), cache_of(request)
    crystals = [c for c in real.reference.items if isinstance(c, Crystal)]
    definitions = _matcher_definition()
    results, matches = [], []
    for s in sets:
        numbers: Numbers = {}
        if len(s.items) == len(real.reference.items):
            found, numbers = _paired(s, real, cache, request)
            matches.append(found)
            if potential is not None:
                numbers["distances"] = _distances(s, real, request, potential)
                definitions["potential"] = get_calculator(potential).title
        else:
            log.warning("evaluate: %s has %d crystals for %d rows: METRe alone", s.name, len(s.items), len(crystals))
        smallest = matching.everyone_to_reference(s.items, crystals, processes=request.processes)
        results.append({**numbers, **matching.metre(smallest)})
    extra: Numbers = {}
    if len(matches) > 1:
        extra["best_of"] = {"predictions": len(matches), **matching.best_of(matches).rates()}
    if real.training:
        smallest = matching.everyone_to_reference(real.training, crystals, processes=request.processes)
        extra["training_rows"] = matching.metre(smallest)
    return result_of("csp", request, sets, real, results, definitions=definitions, **extra)


def _distances(s: CrystalSet, real: Real, request: Request, potential: RelaxConfig) -> Numbers:
    """Medians of each distance and the number of rows where it is defined."""
    pairs = list(zip(s.items, real.reference.items, strict=True))
    values = distances.distances(pairs, processes=request.processes)
    made, _ = single_points(s.items, potential, processes=request.processes)
    true, _ = single_points(real.reference.items, potential, processes=request.processes)
    values["energy"] = np.abs(made - true)
    out: Numbers = {}
    for name, column in values.items():
        found = column[np.isfinite(column)]
        out[name] = {
            "median": float(np.median(found)) if len(found) else None,
            "mean": float(found.mean()) if len(found) else None,
            "rows": len(found),
        }
    return out


def sun_of(request: Request, hull: HullConfig | None, potential: RelaxConfig) -> Numbers:
    """Stable, unique and novel shares after relaxation by the ML potential, against a reference.

    Args:
        request: what is evaluated.
        hull: the reference; None: RUN is a run folder whose stability.h5 says it all, and nothing is relaxed.
        potential: what relaxes, unless `hull` is None.

    Raises:
        ThermoError: if energies and reference may not meet, or the reference cannot be read.
        ConfigError: for a hull reference of no known layout.
        DataError: without training crystals.
        StoreError: if `hull` is None and the run folder has no stability.h5.
    """
    real = real_of(request)
    if hull is None:
        return _sun_of_run(request, real)
    if not real.training:
        raise DataError("novelty needs the training crystals", remedy="give --training FILE, or --own-split")
    reference, lost, _, _ = read_reference(hull)
    calculator = get_calculator(potential)
    definitions = {
        "matcher": DEFAULT_MATCHER,
        "potential": calculator.title,
        "hull": reference.source,
        "hull_digest": reference.digest,
        "hull_rows_lost": str(len(lost)),
        "label": compare(calculator.scale, reference.scale).label,
    }
    sets, results = sets_of(request), []
    for s in sets:
        relaxations = relaxed(s.items, potential, processes=request.processes)
        results.append(sun(judge(relaxations, calculator.scale, reference, real.training)))
    return result_of("sun", request, sets, real, results, definitions=definitions)


def _sun_of_run(request: Request, real: Real) -> Numbers:
    """From stability.h5 of run folders: what their screening dropped is neither stable nor unique nor novel here."""
    sets, results, definitions = [], [], {}
    for folder in request.runs:
        everything = read_set(folder)
        with store.open(folder / "relaxed-mlip.h5", Relaxation) as f:
            converged = dict(zip(f.ids, f.column("converged").tolist(), strict=True))
            calculator = str(f.attrs["calculator"])
        with store.open(folder / "stability.h5", Stability) as f:
            verdicts: list[Verdict | Failure] = [
                Verdict(float(e), bool(unique), bool(novel), converged[i])
                for i, e, unique, novel in zip(
                    f.column("relaxation_id"), f.column("e_hull"), f.column("unique"), f.column("novel"), strict=True
                )
            ]
            verdicts += f.failures
            definitions = {
                "matcher": DEFAULT_MATCHER,
                "potential": calculator,
                "hull": str(f.attrs["source"]),
                "hull_digest": str(f.attrs["reference_digest"]),
                "label": str(f.attrs["label"]),
                "training": "the training split of the run",
            }
        sets.append(everything)
        results.append(sun(verdicts, asked=len(everything.items)))
    return result_of("sun", request, sets, real, results, definitions=definitions)


def _paired(s: CrystalSet, real: Real, cache: Cache, request: Request) -> tuple[matching.Matches, Numbers]:
    made = measured(s, cache, request)
    found = matching.match_pairs(s.items, real.reference.items, made.valid, processes=request.processes)
    numbers: Numbers = {"n": len(s.items), "valid": float(made.valid.mean()), **found.rates()}
    if real.training:
        formulas = {c.formula for c in real.training}
        known = [isinstance(c, Crystal) and c.formula in formulas for c in real.reference.items]
        numbers["formula_in_training"] = found.rates(known)
        numbers["formula_new"] = found.rates([not k for k in known])
    return found, numbers


def _matcher_definition() -> dict[str, str]:
    limits = f"stol={matching.STOL:g}, ltol={matching.LTOL:g}, angle_tol={matching.ANGLE_TOL:g}"
    return {"matcher": f"pymatgen StructureMatcher({limits})", **definition()}


def _add_energies(
    results: list[Numbers],
    sets: Sequence[CrystalSet],
    made: Sequence[Measured],
    real: Real,
    request: Request,
    potential: RelaxConfig,
) -> Numbers:
    """Adds the EMD of energies per atom of the valid crystals by the ML potential; returns that of training rows."""
    processes = request.processes
    reference, _ = single_points(real.reference.items, potential, processes=processes)

    def numbers(items: Sequence[Crystal | Failure], valid: NDArray[np.bool_]) -> Numbers:
        chosen = [item for item, good in zip(items, valid, strict=True) if good]
        energies, forces = single_points(chosen, potential, processes=processes)
        finite = np.isfinite(energies)
        distance = earth_movers(
            energies[finite], reference[np.isfinite(reference)], draws=request.draws, seed=request.seed
        )
        return {
            "emd_energy_eV": distance.value,
            "emd_energy_eV_spread": distance.spread,
            "energy_failed": int((~finite).sum()),
            "median_max_force_eV_A": float(np.median(forces[finite])) if finite.any() else float("nan"),
        }

    for result, s, m in zip(results, sets, made, strict=True):
        result |= numbers(s.items, m.valid)
    if not real.training:
        return {}
    n = min(len(real.training), max(len(s.items) for s in sets))
    rows = np.sort(np.random.default_rng(request.seed).choice(len(real.training), n, replace=False))
    return numbers([real.training[i] for i in rows], np.ones(n, dtype=bool))
