"""What a residual means: share of matches and position error against the residual, under synthetic noise.

    python benchmarks/calibrate_residual.py --csv perov_5_val.csv.gz carbon_24_val.csv.gz mp_20_biternary_val.csv.gz

Crystals (Niggli cells; every fifth row of a file is a test row and left out) are encoded, each component is multiplied
by 1 + S normal, lengths by 1 + S_L normal and angles shifted by 60 S_L degrees normal, and rebuilt as `hpcgen
reconstruct` does it: search, refinement of the cell, symmetry. "Match" is equality as `hpcgen screen` judges it
(StructureMatcher with its default tolerances); "found" is that of the papers on reconstruction (stol 0.5, ltol 0.3,
angle_tol 10), which the position errors are taken from. Crystals of one element are judged apart: their spectrum has
one pair of channels, fewer numbers than a dozen atoms have coordinates. Every file counts the same in the fit of

    P(match) = 1 / (1 + exp(slope (ln residual - ln middle)))

whose numbers belong into `hpcgen/reconstruct/calibration.py`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from hpcgen.config import ReconstructConfig, RepresentationConfig
from hpcgen.crystal import Crystal, from_structure
from hpcgen.flow import seed_of
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.represent.descriptor import make_descriptor
from hpcgen.screen.matching import Matcher
from hpcgen.stages.roundtrip import match, pose

LEVELS = (
    *product((0.01, 0.05), (0.0, 0.01)),
    *((0.1, 0.01), (0.2, 0.01), (0.2, 0.03), (0.4, 0.03), (0.8, 0.03)),
)
"""Noise of the components, and of the lengths."""
EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 2.0)
"""Residuals between the rows of the table."""


def main() -> None:
    """Measure, print the table and the fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, nargs="+", required=True, help="tables with a `cif` column")
    parser.add_argument("--n", type=int, default=60, help="rows of each table")
    parser.add_argument("--max-atoms", type=int, default=24)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tasks = [
        (f"{path.name}:{row}", crystal, *level)
        for path in args.csv
        for (row, crystal), level in product(read(path, args.n, args.max_atoms, args.seed), LEVELS)
    ]
    with ProcessPoolExecutor(args.processes) as pool:
        measured = list(pool.map(measure, tasks, chunksize=8))
    rows = [row for row in measured if row is not None]
    table(rows)
    result = {}
    for name in ("one", "more"):
        group = [row for row in rows if (row["elements"] == 1) == (name == "one")]
        if group:
            print(f"\n{name} element{'s' if name == 'more' else ''}")
            table(group)
            slope, middle = fit(group)
            result[name] = {"n": len(group), "slope": round(slope, 2), "middle": round(middle, 3)}
    print(json.dumps({"n": len(rows), "files": [path.name for path in args.csv], "elements": result}))


def read(path: Path, n: int, max_atoms: int, seed: int) -> list[tuple[int, Crystal]]:
    """`n` rows drawn from those that are no test rows: (row, Niggli-reduced crystal)."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        cifs = [row["cif"] for row in csv.DictReader(file)]
    out: list[tuple[int, Crystal]] = []
    for row in np.random.default_rng(seed).permutation(len(cifs)):
        if row % 5 == 4:
            continue
        crystal = from_structure(Structure.from_str(cifs[row], fmt="cif"))
        if len(crystal) <= max_atoms:
            out.append((int(row), crystal.niggli()))
        if len(out) == n:
            break
    return out


def measure(task: tuple[str, Crystal, float, float]) -> dict[str, Any] | None:
    """Residual, match, and position error (angstrom, None if not found) of one crystal at one level of noise.

    None where the noise left no cell.
    """
    name, crystal, noise, lattice_noise = task
    config = ReconstructConfig()
    elements = len(np.unique(crystal.numbers))
    descriptor = make_descriptor(RepresentationConfig().resolved(elements))
    seed = seed_of(0, f"{name}/{noise}/{lattice_noise}")
    try:
        target, lattice = pose(descriptor, crystal, noise, lattice_noise, seed)
    except ValueError:
        return None
    solution = make_solver(descriptor, config).solve(target, lattice, crystal.numbers, seed, config.noise_floor)
    refined = Refiner(descriptor, config).refine(target, lattice, crystal.numbers, solution, config.noise_floor)
    built, matcher = Crystal(refined.lattice, refined.frac, crystal.numbers), Matcher()
    rms = match(built, crystal)
    size = (crystal.volume / len(crystal)) ** (1 / 3)
    return {
        "file": name.partition(":")[0],
        "elements": elements,
        "level": (noise, lattice_noise),
        "residual": refined.residual,
        "match": matcher.equal(matcher.reduce(built), matcher.reduce(crystal)),
        "error": None if rms is None else rms * size,
    }


def table(rows: list[dict[str, Any]]) -> None:
    """Share of matches and position error (angstrom, median and 90 %) by residual, then by level of noise."""
    print(f"{'residual':>12} {'n':>5} {'match':>6} {'found':>6} {'median':>7} {'90 %':>7}")
    for low, high in pairwise(EDGES):
        line(f"{low:g}-{high:g}", [row for row in rows if low <= row["residual"] < high])
    print(f"{'noise':>12}")
    for level in LEVELS:
        line(f"{level[0]:g}/{level[1]:g}", [row for row in rows if row["level"] == level])


def line(label: str, rows: list[dict[str, Any]]) -> None:
    """One line of the table."""
    errors = [row["error"] for row in rows if row["error"] is not None]
    if rows:
        low, high = np.quantile(errors, [0.5, 0.9]) if errors else (np.nan, np.nan)
        match = np.mean([row["match"] for row in rows])
        print(f"{label:>12} {len(rows):5d} {match:6.3f} {len(errors) / len(rows):6.3f} {low:7.3f} {high:7.3f}")


def fit(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Slope and middle of the logistic function of ln(residual), of largest likelihood (Newton's method).

    Every file has the same weight. One match and one miss at the median residual are added, so that there is an
    answer without a miss too.
    """
    files = [row["file"] for row in rows]
    weights = np.array([1.0 / files.count(file) for file in files])
    x = np.log([max(row["residual"], 1e-6) for row in rows])
    y = np.array([float(row["match"]) for row in rows])
    w = weights / weights.mean()
    x, y, w = np.append(x, [np.median(x)] * 2), np.append(y, [1.0, 0.0]), np.append(w, [1.0, 1.0])
    features = np.stack([np.ones_like(x), x], axis=1)
    beta = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-features @ beta))
        hessian = (features * (w * p * (1 - p))[:, None]).T @ features
        beta = beta + np.linalg.solve(hessian, features.T @ (w * (y - p)))
    return -float(beta[1]), math.exp(-float(beta[0]) / float(beta[1]))


if __name__ == "__main__":
    main()
