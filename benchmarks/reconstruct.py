"""Match rate and time of reconstruction from exact or noisy pair spectra of real crystals.

    python benchmarks/reconstruct.py --csv data/perov_5_val.csv.gz --n 100
    python benchmarks/reconstruct.py --csv ... --noise 0.05 --lattice-noise 0.01 --set s_width=0.08 --set s_amplitude=20

Every row's crystal (Niggli cell) is encoded and rebuilt from the vector, its species and its lattice. `--noise S`
multiplies every component by 1 + S normal; `--lattice-noise L` multiplies lengths by 1 + L normal and adds 60 L
degrees normal to the angles. Matched by StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10), without a validity
gate. Times are CPU-seconds a structure, compilation and imports left out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from hpcgen.config import AnnealConfig, PairSpectrumConfig
from hpcgen.crystal import Crystal, from_structure, lattice_from_parameters, to_structure
from hpcgen.flow import seed_of
from hpcgen.reconstruct.anneal import AnnealSolver, warm_up
from hpcgen.reconstruct.solution import Solution
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_spectrum import PairSpectrum


def main() -> None:
    """Read, encode, perturb, reconstruct, match, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--n", type=int, help="rows drawn at random (default: all)")
    parser.add_argument("--noise", type=float, default=0.0, help="relative noise on every component")
    parser.add_argument("--lattice-noise", type=float, default=0.0, help="relative noise on the lengths")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the two sections")
    args = parser.parse_args()

    spectrum, annealing = sections(args.set)
    descriptor = PairSpectrum(spectrum)
    solver = AnnealSolver(descriptor, annealing)
    crystals = read(args.csv, args.n, args.seed)
    warm_up(spectrum)

    def solve(index: int) -> tuple[Crystal, Solution, float]:
        return reconstruct(crystals[index], solver, args, seed_of(args.seed, str(index)))

    begin = time.perf_counter()
    with ThreadPoolExecutor(args.threads) as pool:
        results = list(pool.map(solve, range(len(crystals))))
    wall = time.perf_counter() - begin

    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    found = [rms(matcher, built, real) for (built, _, _), real in zip(results, crystals, strict=True)]
    matched = [value for value in found if value is not None]
    seconds = np.array([s for _, _, s in results])
    missed = [i for i, value in enumerate(found) if value is None]
    residuals = [solution.residual for _, solution, _ in results]
    print(f"missed (index, atoms, residual): {[(i, len(crystals[i]), round(residuals[i], 4)) for i in missed]}")
    print(
        json.dumps(
            {
                "n": len(crystals),
                "match_rate": round(len(matched) / len(crystals), 4),
                "rmse": round(float(np.mean(matched)), 5) if matched else None,
                "seconds_mean": round(
                    float(seconds.mean()) if args.threads == 1 else wall * args.threads / len(crystals), 4
                ),
                "seconds_median": round(float(np.median(seconds)), 4),
                "converged": round(float(np.mean([s.stop_reason == "converged" for _, s, _ in results])), 4),
                "threads": args.threads,
                "residual_median": round(float(np.median(residuals)), 6),
                "confidence_mean": round(float(np.mean([s.confidence for _, s, _ in results])), 3),
            }
        )
    )


def sections(overrides: list[str]) -> tuple[PairSpectrumConfig, AnnealConfig]:
    """Both configuration sections, each with those overrides that it knows."""
    values = {key: json.loads(value) for key, _, value in (text.partition("=") for text in overrides)}
    spectrum = {k: v for k, v in values.items() if k in PairSpectrumConfig.model_fields}
    return PairSpectrumConfig(**spectrum), AnnealConfig(**{k: v for k, v in values.items() if k not in spectrum})


def read(path: Path, n: int | None, seed: int) -> list[Crystal]:
    """Niggli-reduced crystals of all rows, or of `n` rows drawn at random."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        cifs = [row["cif"] for row in csv.DictReader(file)]
    chosen = np.random.default_rng(seed).permutation(len(cifs))[:n]
    return [from_structure(Structure.from_str(cifs[i], fmt="cif")).niggli() for i in chosen]


def reconstruct(
    crystal: Crystal, solver: AnnealSolver, args: argparse.Namespace, seed: int
) -> tuple[Crystal, Solution, float]:
    """The crystal rebuilt from its own vector, the solution, and the seconds it took."""
    species, elements = species_channels(crystal.numbers)
    n_channels = len(elements)
    rng = np.random.default_rng(seed)
    target = solver.descriptor.encode(crystal, species, n_channels)
    target *= 1 + args.noise * rng.standard_normal(len(target))
    lattice = crystal.lattice
    if args.lattice_noise:
        parameters = crystal.parameters
        parameters[:3] *= 1 + args.lattice_noise * rng.standard_normal(3)
        parameters[3:] += 60 * args.lattice_noise * rng.standard_normal(3)
        lattice = lattice_from_parameters(parameters)
    begin = time.perf_counter()
    solution = solver.solve(target, lattice, species, n_channels, seed, noise_floor=args.noise)
    return Crystal(lattice, solution.frac, crystal.numbers), solution, time.perf_counter() - begin


def rms(matcher: StructureMatcher, built: Crystal, real: Crystal) -> float | None:
    """StructureMatcher's normalised rms distance, None without a match."""
    distance = matcher.get_rms_dist(to_structure(built), to_structure(real))
    return None if distance is None else float(distance[0])


if __name__ == "__main__":
    main()
