"""What refining the cell and imposing symmetry bring on noisy targets: errors of cell and positions, before and after.

    python benchmarks/refine.py --csv carbon_24_val.csv.gz --n 60 --noise 0.05 --lattice-noise 0.01
    python benchmarks/refine.py --csv ... --set pair_spectrum.s_width=0.08 --set pair_spectrum.s_amplitude=20

Every crystal (Niggli cell; every fifth row of a file is a test row and left out) is searched once and refined three
ways: positions alone, positions and cell, both with symmetry. One line each: match rate (StructureMatcher(stol=0.5,
ltol=0.3, angle_tol=10)), mean RMSE, root mean square errors of the lengths (relative; a third of their variance is the
volume, of which a pair spectrum knows nothing) and of the angles (degrees), median residual, CPU seconds of the step
alone, and the shares of crystals with another cell and with symmetry imposed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from calibrate_residual import read

from hpcgen.config import ReconstructConfig, RepresentationConfig
from hpcgen.crystal import Crystal, FloatArray, lattice_parameters
from hpcgen.flow import seed_of
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.represent.descriptor import make_descriptor
from hpcgen.stages.roundtrip import match, pose

WAYS = {
    "positions": ReconstructConfig(cell_length=0.0, symmetry_tolerance=None),
    "cell": ReconstructConfig(symmetry_tolerance=None),
    "symmetry": ReconstructConfig(),
}


def main() -> None:
    """Search, refine, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--n", type=int, default=60, help="rows drawn at random")
    parser.add_argument("--max-atoms", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.05, help="relative noise on every component")
    parser.add_argument("--lattice-noise", type=float, default=0.01, help="relative noise on the lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of `representation`")
    args = parser.parse_args()

    descriptor = make_descriptor(representation(args.set))
    solver = make_solver(descriptor, ReconstructConfig())
    refiners = {way: Refiner(descriptor, config) for way, config in WAYS.items()}
    solver.warm_up()
    refiners["symmetry"].warm_up()
    rows: dict[str, list[list[float]]] = {"search": [], **{way: [] for way in WAYS}}
    for row, crystal in read(args.csv, args.n, args.max_atoms, args.seed):
        seed = seed_of(args.seed, f"{args.csv.name}:{row}")
        target, lattice = pose(descriptor, crystal, args.noise, args.lattice_noise, seed)
        begin = time.thread_time()
        found = solver.solve(target, lattice, crystal.numbers, seed, noise_floor=args.noise)
        seconds = time.thread_time() - begin
        rows["search"].append([*errors(lattice, found.frac, crystal), found.residual, seconds, 0.0, 0.0])
        for way, refiner in refiners.items():
            begin = time.thread_time()
            refined = refiner.refine(target, lattice, crystal.numbers, found, noise_floor=args.noise)
            seconds = time.thread_time() - begin
            changed = [float(refined.strain > 0), float(refined.symmetry != "")]
            rows[way].append([*errors(refined.lattice, refined.frac, crystal), refined.residual, seconds, *changed])
    results = {way: summary(np.array(values)) for way, values in rows.items()}
    for way, result in results.items():
        print(f"{way:10s} " + "  ".join(f"{key} {value:.4g}" for key, value in result.items()))
    print(json.dumps({"csv": args.csv.name, "n": len(rows["search"]), **results}))


def representation(overrides: list[str]) -> RepresentationConfig:
    """The section `representation` with its overrides."""
    tree: dict[str, Any] = {}
    for text in overrides:
        path, _, value = text.partition("=")
        section, _, key = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = yaml.safe_load(value)
    return RepresentationConfig.model_validate(tree)


def errors(lattice: FloatArray, frac: FloatArray, real: Crystal) -> list[float]:
    """RMSE of the positions (NaN without a match), root mean square errors of lengths (relative) and angles."""
    rms = match(Crystal(lattice, frac, real.numbers), real)
    away, true = lattice_parameters(lattice), real.parameters
    lengths, angles = away[:3] / true[:3] - 1.0, away[3:] - true[3:]
    return [np.nan if rms is None else rms, float(np.sqrt((lengths**2).mean())), float(np.sqrt((angles**2).mean()))]


def summary(values: FloatArray) -> dict[str, float]:
    """Means over all crystals of the rows (M, 7) that `main` collects."""
    rms, lengths, angles, residual, seconds, cell, symmetry = values.T
    found = ~np.isnan(rms)
    return {
        "match": round(float(found.mean()), 4),
        "rmse": round(float(rms[found].mean()), 5),
        "lengths": round(float(np.sqrt((lengths**2).mean())), 5),
        "angles": round(float(np.sqrt((angles**2).mean())), 4),
        "residual": round(float(np.median(residual)), 4),
        "seconds": round(float(seconds.mean()), 4),
        "cell": round(float(cell.mean()), 3),
        "symmetry": round(float(symmetry.mean()), 3),
    }


if __name__ == "__main__":
    main()
