"""Relaxation of many crystals side by side against CHGNet's own StructOptimizer, one crystal after the other.

    OMP_NUM_THREADS=1 python benchmarks/relax.py --csv mp_20_biternary_val.csv.gz --n 200

Rows are drawn at random (every fifth row of a file, number % 5 == 4 from 0, is test and left out) and perturbed: cell
by a random strain, positions by random displacements, so that there is something to relax. Both sides use the same
weights, the same crystals and the same criteria, `relax.max_force` and `relax.max_stress`:

- one by one: `StructOptimizer` as it is (FIRE, FrechetCellFilter), in one process with `--threads` threads, all cores
  of the machine by default. Its optimiser knows one number only, the largest row of forces and cell gradient together;
  it is given the force criterion, and what it leaves of the stress is printed.
- side by side: the stage's own path, `relax.batch` crystals a task, on `--processes` processes of one thread each, as
  the ranks of the farm do it. On a GPU both sides use it, and one process is enough.

Times leave imports, loading of the weights and a warm-up on other rows out. `cpu_s` and `one_by_one_cpu_s` are
CPU-seconds a structure, which a busy machine changes little. `--limit` ends the slow side early; then both rates are
still printed, of all rows and of the first ones, and `cpu_speedup` compares
CPU-seconds on the rows of both. Energies per atom are held against those
of the one-by-one result; the crystals that differ by more than 10 meV are listed, each with both energies. `digest`
is one of all energies and positions, bit by bit: it must not change with `--processes`. The last line is one JSON
object, `within_2meV` and `worse_than_10meV` (higher in energy) being fractions of those that both sides relaxed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_residual import read

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.errors import Failure
from hpcgen.flow import seed_of
from hpcgen.relax import Relaxed, get_calculator
from hpcgen.relax.calculator import largest_force
from hpcgen.stages.relax import groups_of

Other = tuple[float, float, float, int, float, float]
"""Energy per atom, largest force, largest stress in GPa, evaluations, seconds, CPU-seconds."""

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
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds for one by one; the rest is left out"
    )
    parser.add_argument("--alone", action="store_true", help="side by side only")
    args = parser.parse_args()

    crystals = [
        perturbed(crystal, args.strain, args.rattle, seed_of(args.seed, f"{args.csv.name}:{row}"))
        for row, crystal in read(args.csv, args.n + WARM_UP, args.max_atoms, args.seed)
    ]
    warm_up, crystals = crystals[:WARM_UP], crystals[WARM_UP:]
    config = RelaxConfig(device=args.device, max_steps=args.max_steps, batch=args.batch)
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
        theirs = one_by_one(crystals, config, args.threads, warm_up, args.limit)
        result |= compare(crystals[: len(theirs)], ours[: len(theirs)], theirs, args.threads)
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


def one_by_one(
    crystals: list[Crystal], config: RelaxConfig, threads: int, warm_up: list[Crystal], limit: float
) -> list[Other | str]:
    """What StructOptimizer makes of each crystal, until `limit` seconds are over, or what it raised."""
    import torch
    from chgnet.model.dynamics import StructOptimizer

    torch.set_num_threads(threads)
    out: list[Other | str] = []
    begin = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        optimiser = StructOptimizer(use_device=None if config.device == "auto" else config.device)
        for crystal in [*warm_up, *crystals]:
            if len(out) > len(warm_up) and time.perf_counter() - begin > limit:
                break
            start, cpu = time.perf_counter(), time.process_time()
            try:
                found = optimiser.relax(
                    to_structure(crystal),
                    fmax=config.max_force,
                    steps=config.max_steps,
                    verbose=False,
                    assign_magmoms=False,
                )
            except (RuntimeError, ValueError, ArithmeticError) as error:
                out.append(f"{type(error).__name__}: {error}")
                continue
            seconds, cpu, path = time.perf_counter() - start, time.process_time() - cpu, found["trajectory"]
            stress = float(np.abs(path.stresses[-1]).max()) * 160.21766208
            force = largest_force(np.asarray(path.forces[-1], np.float64))
            out.append((path.energies[-1].item() / len(crystal), force, stress, len(path.energies) - 1, seconds, cpu))
    return out[len(warm_up) :]


def compare(
    crystals: list[Crystal],
    ours: list[Relaxed | Failure],
    theirs: list[Other | str],
    threads: int,
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
    difference = np.array([r.energy / len(crystals[i]) - o[0] for i, r, o in both])
    for (i, r, o), d in zip(both, difference, strict=True):
        if abs(d) > 0.010:
            print(
                f"crystal {i} {crystals[i].formula} ({len(crystals[i])} atoms): {r.energy / len(crystals[i]):.4f} "
                f"(converged: {r.converged}) against {o[0]:.4f} eV/atom, {o[3]} steps there, {r.steps} here"
            )
    other: FloatArray = np.array([o for _, _, o in both])
    return {
        "compared": len(both),
        "one_by_one_n": len(theirs),
        "one_by_one_cpu_s": float(other[:, 5].mean()),
        "one_by_one_per_s": len(theirs) / sum(o[4] for o in theirs if not isinstance(o, str)),
        "threads": threads,
        "within_2meV": float((np.abs(difference) <= 0.002).mean()),
        "worse_than_10meV": float((difference > 0.010).mean()),
        "better_than_10meV": float((difference < -0.010).mean()),
        "one_by_one_steps_mean": float(other[:, 3].mean()),
        "one_by_one_max_force_eV_A": float(other[:, 1].max()),
        "one_by_one_max_stress_GPa": float(other[:, 2].max()),
    }


def cpu_speedup(ours: list[Relaxed | Failure], theirs: list[Other | str], cpu: float) -> float:
    """CPU-seconds of the rows of both; ours are dealt out as the wall time of each crystal's share says."""
    total = sum(r.seconds for r in ours if isinstance(r, Relaxed))
    both = [(r, o) for r, o in zip(ours, theirs, strict=False) if isinstance(r, Relaxed) and not isinstance(o, str)]
    return sum(o[5] for _, o in both) / (cpu * sum(r.seconds for r, _ in both) / total)


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
