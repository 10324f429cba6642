"""How long an evaluation takes, and what it says of real rows, which are the ceiling of every generator.

    python benchmarks/evaluate.py --csv data/perov_5_val.csv.gz --n 1000 --processes 2
    python benchmarks/evaluate.py --csv data/perov_5_val.csv.gz --made runs/perov5

Rows of the file with number % 5 == 4 (from 0) are the reference, the others training rows. What is evaluated is
`--made` (anything `hpcgen evaluate generation` takes), or `--n` tuning rows with every atom displaced and the cell
strained, so that no fingerprint is known beforehand. `seconds` is wall time from crystals in memory to the numbers:
fingerprints, validity, coverage and distances of distributions of what is evaluated, and the start of the processes.
The fingerprints of the reference come before it, because every later evaluation finds them in the cache;
`seconds_reference` is what they cost (with a `--cache` that has them: nothing).

The last line is one JSON object: `n, seconds, cpu_s_per_structure` (the start of the processes, some 5 s each,
included), `seconds_reference, processes, validity_structure, validity_composition,
cov_r, cov_p` (CDVAE's thresholds), `cov_r_structrepdiff, cov_p_structrepdiff, emd_density, emd_elements`, and `ceiling`
with the same numbers for as many training rows (`--no-ceiling` leaves them out: they cost fingerprints too).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen.config import resolve_path
from hpcgen.crystal import Crystal
from hpcgen.data import available_cores
from hpcgen.evaluate import coverage, generation, table
from hpcgen.evaluate.cache import Cache
from hpcgen.evaluate.fingerprint import STRUCTURE_SIZE, definition
from hpcgen.evaluate.measured import measure
from hpcgen.evaluate.sources import read_set

STRAIN, DISPLACEMENT = 0.02, 0.1  # standard deviations, of the cell and in angstrom


def main() -> None:
    """Read, measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="real rows, such as data:perov_5_val.csv.gz")
    parser.add_argument("--data", choices=("perov", "carbon", "mp"), help="coverage thresholds (default: by name)")
    parser.add_argument("--made", type=Path, help="what a generator made")
    parser.add_argument("--n", type=int, default=1000, help="perturbed rows, without --made")
    parser.add_argument("--processes", type=int, default=available_cores(), help="processes")
    parser.add_argument("--cache", type=Path, help="folder of fingerprints (default: nothing is kept)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--draws", type=int, default=5, help="of 1,000 valid samples, and of real rows")
    parser.add_argument("--no-ceiling", action="store_true", help="without the numbers of real rows")
    args = parser.parse_args()
    path = resolve_path(args.csv)
    kind = args.data or next((k for k in coverage.CDVAE if path.name.startswith(k)), "mp")
    thresholds = {"cdvae": coverage.CDVAE[kind], "structrepdiff": coverage.STRUCTREPDIFF[kind]}
    settings = generation.Settings(thresholds, args.draws, args.seed)
    whole = read_set(path, processes=args.processes)
    test = whole.rows([i for i in range(len(whole.items)) if i % 5 == 4])
    tuning = whole.rows([i for i in range(len(whole.items)) if i % 5 != 4])
    made = read_set(args.made, processes=args.processes).items if args.made else perturbed(tuning.crystals, args)
    cache = Cache(args.cache, definition(), STRUCTURE_SIZE)
    start = time.perf_counter()
    reference = measure(test.items, processes=args.processes, cache=cache, label="reference")
    middle, cpu = time.perf_counter(), cpu_seconds()
    measured = measure(made, processes=args.processes, cache=cache, label="what was made")
    numbers = generation.compare_sets(measured, reference, settings)
    end, cpu = time.perf_counter(), cpu_seconds() - cpu
    result: dict[str, Any] = {
        "n": len(made),
        "seconds": round(end - middle, 1),
        "seconds_reference": round(middle - start, 1),
        "cpu_s_per_structure": round(cpu / len(made), 4),
        "processes": args.processes,
        **shown(numbers),
    }
    if not args.no_ceiling:
        rng = np.random.default_rng(args.seed)
        rows = rng.choice(len(tuning.items), min(len(made), len(tuning.items)), replace=False)
        real = measure(
            tuning.rows(np.sort(rows).tolist()).items, processes=args.processes, cache=cache, label="ceiling"
        )
        result["ceiling"] = {"n": len(real), **shown(generation.compare_sets(real, reference, settings))}
    print(json.dumps(table.plain(result)))


def perturbed(crystals: list[Crystal], args: argparse.Namespace) -> list[Crystal]:
    """`args.n` of the crystals, drawn, strained and displaced."""
    rng = np.random.default_rng(args.seed)
    out = []
    for i in rng.choice(len(crystals), min(args.n, len(crystals)), replace=False):
        lattice = crystals[i].lattice @ (np.eye(3) + STRAIN * rng.standard_normal((3, 3)))
        moves = DISPLACEMENT * rng.standard_normal(crystals[i].frac.shape) @ np.linalg.inv(lattice)
        out.append(Crystal(lattice, crystals[i].frac + moves, crystals[i].numbers))
    return out


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def shown(numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the contract, flat."""
    cdvae, own = numbers["coverage"]["cdvae"], numbers["coverage"]["structrepdiff"]
    names = ("validity_structure", "validity_composition", "emd_density", "emd_elements")
    return {
        **{name: numbers[name] for name in names},
        "cov_r": cdvae["cov_r"],
        "cov_p": cdvae["cov_p"],
        "cov_r_structrepdiff": own["cov_r"],
        "cov_p_structrepdiff": own["cov_p"],
    }


if __name__ == "__main__":
    main()
