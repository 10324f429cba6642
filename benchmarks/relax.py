"""Relaxation of many crystals side by side against CHGNet's own StructOptimizer, one crystal after the other.

    OMP_NUM_THREADS=1 python benchmarks/relax.py --csv mp_20_biternary_val.csv.gz --n 200

Rows are drawn at random (every fifth row of a file, number % 5 == 4 from 0, is test and left out) and perturbed: cell
by a random strain, positions by random displacements, so that there is something to relax. Both sides use the same
weights and the same crystals:

- one by one: `StructOptimizer` as it is (FIRE, FrechetCellFilter), in one process with `--threads` threads, all cores
  of the machine by default. Its optimiser knows one number only, the largest row of forces and cell gradient together;
  it is given the force criterion, `relax.max_force`, and leaves more stress than the other side does. Then it goes on,
  not timed, until `relax.max_force` and `relax.max_stress` both hold, as on the other side (`one_by_one.py`).
- side by side: the stage's own path, `relax.batch` crystals a task, on `--processes` processes of one thread each, as
  the ranks of the farm do it. On a GPU both sides use it, and one process is enough.

Times leave imports, loading of the weights and a warm-up on other rows out. `cpu_s` and `one_by_one_cpu_s` are
CPU-seconds a structure, which a busy machine changes little. `--limit` ends the slow side early; then both rates are
still printed, of all rows and of the first ones, and `cpu_speedup` compares CPU-seconds on the rows of both. `--cache`
keeps results and times of the slow side in a file, so that it is run once for many runs of the other side.

Energies per atom are held against those of the one-by-one result with the same criteria: `within_2meV` and
`worse_than_10meV` (higher in energy) are fractions of the crystals that both sides relaxed; those that end in
`_as_it_is` are against what StructOptimizer alone left. Crystals that differ by more than 2 meV are listed, and both
ends are relaxed much further (`TIGHT`), which tells apart those where one side had stopped on the way to a common
minimum (`stopped_early`) from those where the two went into different minima, of which the lower one is here
(`lower_minimum`) or there (`higher_minimum`). `digest` is one of all energies and positions, bit by bit: it must not
change with `--processes`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_residual import read
from one_by_one import Other, one_by_one

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.flow import seed_of
from hpcgen.relax import Calculator, Relaxed, get_calculator
from hpcgen.relax.calculator import largest_force
from hpcgen.screen.matching import Matcher
from hpcgen.stages.relax import groups_of

TIGHT = {"max_force": 1e-3, "max_stress": 5e-3, "max_steps": 2000}
"""What ends are relaxed to that differ, to see whether they lead to one minimum."""
WARM_UP = 2
_state: dict[str, Any] = {}


def main() -> None:
    """Relax both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--n", type=int, default=200, help="rows drawn at random")
    parser.add_argument("--max-atoms", type=int, default=24)
    parser.add_argument("--strain", type=float, default=0.02, help="standard deviation of each component of the strain")
    parser.add_argument("--rattle", type=float, default=0.1, help="standard deviation of the displacements, angstrom")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of the side-by-side run")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the one-by-one run")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--batch", type=int, default=RelaxConfig().batch, help="crystals side by side")
    parser.add_argument("--max-force", type=float, default=RelaxConfig().max_force, help="eV/angstrom, on both sides")
    parser.add_argument("--max-stress", type=float, default=RelaxConfig().max_stress, help="GPa, on both sides")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds for one by one; the rest is left out"
    )
    parser.add_argument("--further", type=int, default=1000, help="steps of one by one until both criteria hold")
    parser.add_argument("--cache", type=Path, help="file of one-by-one results, read and appended to")
    parser.add_argument("--alone", action="store_true", help="side by side only")
    args = parser.parse_args()

    crystals = [
        perturbed(crystal, args.strain, args.rattle, seed_of(args.seed, f"{args.csv.name}:{row}"))
        for row, crystal in read(args.csv, args.n + WARM_UP, args.max_atoms, args.seed)
    ]
    warm_up, crystals = crystals[:WARM_UP], crystals[WARM_UP:]
    criteria = {"max_force": args.max_force, "max_stress": args.max_stress, "max_steps": args.max_steps}
    config = RelaxConfig.model_validate({"device": args.device, "batch": args.batch, **criteria})
    ours, cpu, seconds = side_by_side(crystals, config, args.processes, warm_up)
    done = [r for r in ours if isinstance(r, Relaxed)]
    for failure in (r for r in ours if isinstance(r, Failure)):
        print(f"side by side, crystal {failure.id}: {failure.kind}: {failure.message}")
    result: dict[str, Any] = {
        "n": len(crystals),
        "atoms_mean": float(np.mean([len(c) for c in crystals])),
        "structures_per_s": len(crystals) / seconds,
        "processes": args.processes,
        "cpu_s": cpu / len(crystals),
        "converged": sum(r.converged for r in done),
        "steps_mean": float(np.mean([r.steps for r in done])),
        "max_force_eV_A": max(largest_force(r.forces) for r in done if r.converged),
        "max_stress_GPa": max(float(np.abs(r.stress).max()) for r in done if r.converged),
        "digest": digest(ours),
    }
    print(json.dumps(result), flush=True)
    if not args.alone:
        theirs = one_by_one(crystals, config, args.further, args.threads, warm_up, args.limit, args.cache)
        result |= compare(crystals[: len(theirs)], ours[: len(theirs)], theirs, config) | {"threads": args.threads}
        result["speedup"] = result["structures_per_s"] / result["one_by_one_per_s"]
        result["cpu_speedup"] = cpu_speedup(ours, theirs, cpu)
    print(json.dumps({"csv": args.csv.name, "device": args.device, **result}))


def perturbed(crystal: Crystal, strain: float, rattle: float, seed: int) -> Crystal:
    """With a random strain and random displacements (angstrom)."""
    rng = np.random.default_rng(seed)
    lattice = crystal.lattice @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
    cart = crystal.frac @ lattice + rattle * rng.normal(size=crystal.frac.shape)
    return Crystal(lattice, cart @ np.linalg.inv(lattice), crystal.numbers)


def side_by_side(
    crystals: list[Crystal], config: RelaxConfig, processes: int, warm_up: list[Crystal]
) -> tuple[list[Relaxed | Failure], float, float]:
    """Results in order, CPU-seconds of all processes, and seconds. Tasks go to whoever is free, large ones first."""
    groups = groups_of(len(crystals), config.batch)
    order = sorted(range(len(groups)), key=lambda g: -sum(len(crystals[i]) for i in groups[g]))
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (config, warm_up)) as pool:
        list(pool.map(_pid, range(8 * processes)))  # every process is up and warm
        start = time.perf_counter()
        futures = {g: pool.submit(_relax, list(groups[g]), [crystals[i] for i in groups[g]]) for g in order}
        done = [futures[g].result() for g in range(len(groups))]
        seconds = time.perf_counter() - start
    return [r for results, _ in done for r in results], sum(cpu for _, cpu in done), seconds


def _start(config: RelaxConfig, warm_up: list[Crystal]) -> None:
    _state["calculator"] = get_calculator(config)
    _state["calculator"].relax(["warm-up"] * len(warm_up), warm_up)


def _pid(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def _relax(indices: list[int], crystals: list[Crystal]) -> tuple[list[Relaxed | Failure], float]:
    start = time.process_time()
    results = _state["calculator"].relax([str(i) for i in indices], crystals)
    return results, time.process_time() - start


def compare(
    crystals: list[Crystal], ours: list[Relaxed | Failure], theirs: list[Other | str], config: RelaxConfig
) -> dict[str, Any]:
    """What was relaxed by both, held against each other."""
    for i, other in enumerate(theirs):
        if isinstance(other, str):
            print(f"one by one, crystal {i}: {other}")
    both = [
        (i, r, o)
        for i, (r, o) in enumerate(zip(ours, theirs, strict=True))
        if isinstance(r, Relaxed) and not isinstance(o, str)
    ]
    others = [o for _, _, o in both]
    mine = np.array([r.energy / len(crystals[i]) for i, r, _ in both])
    difference = mine - [o.same.energy for o in others]
    further = get_calculator(config.model_copy(update=TIGHT))
    why = Counter(explain(i, r, o, further) for (i, r, o), d in zip(both, difference, strict=True) if abs(d) > 0.002)
    return {
        "compared": len(both),
        "one_by_one_n": len(theirs),
        "one_by_one_cpu_s": float(np.mean([o.cpu_s for o in others])),
        "one_by_one_per_s": len(others) / sum(o.seconds for o in others),
        **agreement(difference, ""),
        **agreement(mine - [o.as_it_is.energy for o in others], "_as_it_is"),
        **{kind: why[kind] / len(both) for kind in ("stopped_early", "lower_minimum", "higher_minimum")},
        "one_by_one_met_both_criteria": float(np.mean([o.met for o in others])),
        "one_by_one_steps_mean": float(np.mean([o.as_it_is.steps for o in others])),
        "one_by_one_further_steps_mean": float(np.mean([o.same.steps for o in others])),
        "one_by_one_max_force_eV_A": max(o.as_it_is.force for o in others),
        "one_by_one_max_stress_GPa": max(o.as_it_is.stress for o in others),
    }


def agreement(difference: np.ndarray, suffix: str) -> dict[str, float]:
    """Fractions of energies per atom (ours minus theirs, eV) that agree, and of those that do not."""
    return {
        f"within_2meV{suffix}": float((np.abs(difference) <= 0.002).mean()),
        f"worse_than_10meV{suffix}": float((difference > 0.010).mean()),
        f"better_than_10meV{suffix}": float((difference < -0.010).mean()),
    }


def explain(number: int, ours: Relaxed, other: Other, further: Calculator) -> str:
    """Why two ends of one crystal differ in energy; prints what is known of both."""
    there = other.same.crystal(ours.crystal.numbers)
    deeper = further.relax(["ours", "theirs"], [ours.crystal, there])
    n, matcher = len(there), Matcher()
    energies = [r.energy / n if isinstance(r, Relaxed) else float("nan") for r in deeper]
    gap = energies[0] - energies[1]
    kind = "stopped_early" if abs(gap) <= 0.002 else "lower_minimum" if gap < 0 else "higher_minimum"
    equal = matcher.equal(matcher.reduce(ours.crystal), matcher.reduce(there))
    print(
        f"crystal {number} {there.formula}, {n} atoms: {kind}; "
        f"here {ours.energy / n:.4f} eV/atom after {ours.steps} steps (converged: {ours.converged}), further "
        f"{energies[0]:.4f}; there {other.same.energy:.4f} after {other.as_it_is.steps} and {other.same.steps} steps "
        f"(converged: {other.met}), further {energies[1]:.4f}; volumes {ours.crystal.volume / n:.2f} and "
        f"{there.volume / n:.2f} angstrom^3 an atom; {'equal' if equal else 'different'} for StructureMatcher"
    )
    return kind


def cpu_speedup(ours: list[Relaxed | Failure], theirs: list[Other | str], cpu: float) -> float:
    """CPU-seconds of the rows of both; ours are dealt out as the wall time of each crystal's share says."""
    total = sum(r.seconds for r in ours if isinstance(r, Relaxed))
    both = [(r, o) for r, o in zip(ours, theirs, strict=False) if isinstance(r, Relaxed) and not isinstance(o, str)]
    return sum(o.cpu_s for _, o in both) / (cpu * sum(r.seconds for r, _ in both) / total)


def digest(results: list[Relaxed | Failure]) -> str:
    """Of all energies, cells and positions."""
    total = hashlib.blake2b(digest_size=8)
    for r in results:
        if isinstance(r, Relaxed):
            total.update(np.float64(r.energy).tobytes() + r.crystal.lattice.tobytes() + r.crystal.frac.tobytes())
        else:
            total.update(r.kind.encode())
    return total.hexdigest()


if __name__ == "__main__":
    main()
