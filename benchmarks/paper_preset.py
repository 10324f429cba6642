"""The paper's reconstruction (StructRepDiff, arXiv 2408.07213, A.3.5) on real crystals: match, RMSE and time.

    python benchmarks/reconstruct.py --preset paper --csv data/perov_5_val.csv.gz --split tune --n 5

EAD with a cutoff of 20 angstrom, L = 0, eta 1, 20, 90 and 200 centres; 6 trials of 7 hops of 300 Adam steps, hops
uniform within 1 angstrom: 12,600 gradients, all of them spent. Each crystal (Niggli cell) is encoded and found again
from the vector, its cell and its atomic numbers, and matched as every preset is. A second search ends once a trial has
converged, as that of `hpcgen reconstruct` does; its figures are those that begin with `stopped_`.

Times are CPU-seconds of the search's thread, without compilation, encoding and matching. Batched: all trials of a
structure in one call, structures on threads. Single: one trial of one structure at a time; `seconds_full_single` is
what 12,600 of its steps would take, extrapolated from `SINGLE_STEPS`. docs/paper_preset.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.flow import seed_of
from hpcgen.reconstruct.basin_hopping import CONVERGED, PAPER_EAD, PAPER_SEARCH, BasinHopping, minimise
from hpcgen.reconstruct.solution import Solution
from hpcgen.represent.ead import EmbeddedAtomDensity
from hpcgen.stages.roundtrip import match, pose

BUDGET = PAPER_SEARCH.trials * PAPER_SEARCH.hops * PAPER_SEARCH.iterations
SINGLE_STEPS = 50  # of one trial of each structure, to time a step alone


@dataclass(frozen=True)
class Search:
    """One search: its solution, its CPU time, and the displacement of what it built (NaN without a match)."""

    solution: Solution
    seconds: float
    rms: float


def run(args: argparse.Namespace, crystals: Sequence[Crystal]) -> None:
    """Print a line for each crystal, and the figures as one JSON object.

    Args:
        args: `noise`, `lattice_noise`, `seed` and `threads`, as `reconstruct.py` takes them.
        crystals: what is to be found again; SystemExit if there is none.
    """
    if not crystals:
        raise SystemExit(f"no row of {args.csv} passes the filters")
    descriptor = EmbeddedAtomDensity(PAPER_EAD)
    full, stopping = BasinHopping(descriptor, PAPER_SEARCH, tolerance=0.0), BasinHopping(descriptor, PAPER_SEARCH)
    full.warm_up()
    posed = [
        pose(descriptor, c, args.noise, args.lattice_noise, seed_of(args.seed, str(k), "noise"))
        for k, c in enumerate(crystals)
    ]

    def search(solver: BasinHopping, k: int, noise_floor: float) -> Search:
        (target, lattice), crystal = posed[k], crystals[k]
        begin = time.thread_time()
        solution = solver.solve(target, lattice, crystal.numbers, seed_of(args.seed, str(k)), noise_floor)
        seconds = time.thread_time() - begin
        rms = match(Crystal(lattice, solution.frac, crystal.numbers), crystal)
        return Search(solution, seconds, np.nan if rms is None else rms)

    single = [seconds_alone(full, *p, c.numbers, args.seed) for p, c in zip(posed, crystals, strict=True)]
    with ThreadPoolExecutor(args.threads) as pool:
        whole = list(pool.map(lambda k: search(full, k, 0.0), range(len(crystals))))
        stopped = list(pool.map(lambda k: search(stopping, k, args.noise), range(len(crystals))))
    for crystal, a, b in zip(crystals, whole, stopped, strict=True):
        print(
            f"{crystal.formula:16s} {len(crystal):3d} atoms: residual {a.solution.residual:.1e}, rms {a.rms:.4f}, "
            f"{a.seconds:.1f} s; stopped after {b.solution.iterations:5d} steps ({b.solution.stop_reason}): "
            f"residual {b.solution.residual:.1e}, rms {b.rms:.4f}, {b.seconds:.2f} s"
        )
    print(json.dumps(figures(whole, stopped, single, args)))


def figures(
    whole: list[Search], stopped: list[Search], single: list[float], args: argparse.Namespace
) -> dict[str, Any]:
    """What the last line holds."""
    steps = sum(s.solution.iterations for s in whole)
    return {
        "n": len(whole),
        **_found(whole),
        "threads": args.threads,
        "steps": BUDGET,
        "ms_per_step_batched": _rounded(1e3 * sum(s.seconds for s in whole) / steps) if steps else None,
        "ms_per_step_single": _rounded(1e3 * float(np.mean(single))),
        "seconds_full_single": _rounded(BUDGET * float(np.mean(single))),
        "seconds_full_single_is": "extrapolated",
        **{f"stopped_{key}": value for key, value in _found(stopped).items()},
        "stopped_steps_mean": round(float(np.mean([s.solution.iterations for s in stopped])), 1),
    }


def _found(searches: list[Search]) -> dict[str, Any]:
    rms, seconds = np.array([s.rms for s in searches]), np.array([s.seconds for s in searches])
    matched = rms[~np.isnan(rms)]
    return {
        "match_rate": round(len(matched) / len(rms), 4),
        "rmse": round(float(matched.mean()), 5) if len(matched) else None,
        "seconds_mean": _rounded(float(seconds.mean())),
        "seconds_median": _rounded(float(np.median(seconds))),
        "converged": round(float(np.mean([s.solution.residual <= CONVERGED for s in searches])), 4),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def seconds_alone(
    solver: BasinHopping, target: FloatArray, lattice: FloatArray, numbers: FloatArray, seed: int
) -> float:
    """CPU-seconds of a step of one trial, with nothing beside it."""
    problem = solver.problem(target, lattice, numbers)
    start = np.random.default_rng(seed).random((1, len(numbers), 3))
    begin = time.thread_time()
    minimise(start, problem, SINGLE_STEPS, solver.config.learning_rate, 0.0)
    return (time.thread_time() - begin) / SINGLE_STEPS
