"""How many supercells phonons need, by the tolerance within which symmetry is imposed (`phonons.symmetry`).

    OMP_NUM_THREADS=1 python benchmarks/supercells.py --csv mp_20_biternary_val.csv.gz --n 60

Rows (no test rows, as in relax.py) are perturbed and relaxed by CHGNet as a campaign does, to `relax.max_force`, and
then to `phonons.max_force`, from that result and from it with a symmetry imposed within `--before`. Counted are the
supercells of all crystals together; `row` are those of the rows themselves at 0.01 angstrom. `forces` are the largest
ones (of each crystal, sorted, eV/angstrom) where the symmetry was imposed after the last relaxation too: they should be
no larger than what it left. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from calibrate_residual import read
from relax import perturbed

from hpcgen.config import PhononsConfig, RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.dynamics.phonons import displaced, symmetrised
from hpcgen.flow import seed_of
from hpcgen.relax import Relaxed, get_calculator
from hpcgen.relax.calculator import largest_force

TOLERANCES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)


def main() -> None:
    """Perturb, relax, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--n", type=int, default=60, help="rows drawn at random")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--strain", type=float, default=0.02, help="standard deviation of each component of the strain")
    parser.add_argument("--rattle", type=float, default=0.05, help="standard deviation of the displacements, angstrom")
    parser.add_argument("--before", type=float, default=PhononsConfig().symmetry, help="angstrom")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rows = read(args.csv, args.n, args.max_atoms, args.seed)
    start = [perturbed(c, args.strain, args.rattle, seed_of(args.seed, f"{args.csv.name}:{row}")) for row, c in rows]
    loose = relaxed(start, RelaxConfig(device="cpu", max_steps=1000))
    tight = RelaxConfig(
        device="cpu", max_force=PhononsConfig().max_force, max_stress=PhononsConfig().max_stress, max_steps=1000
    )
    results = {
        "loose": loose,
        "tight": relaxed([r and r.crystal for r in loose], tight),
        "tight_from_symmetric": relaxed([r and symmetrised(r.crystal, args.before) for r in loose], tight),
    }
    whole = [i for i in range(len(rows)) if all(found[i] is not None for found in results.values())]
    figures: dict[str, Any] = {"csv": args.csv.name, "n": len(rows), "converged": len(whole)}
    figures["row"] = sum(count(symmetrised(rows[i][1], 0.01)) for i in whole)
    for name, found in results.items():
        crystals = [r.crystal for i in whole if (r := found[i]) is not None]
        figures[name] = {str(t): sum(count(symmetrised(c, t)) for c in crystals) for t in TOLERANCES}
    last = [symmetrised(r.crystal, args.before) for i in whole if (r := results["tight_from_symmetric"][i]) is not None]
    calculator: Any = get_calculator(tight)
    figures["forces"] = sorted(round(largest_force(e.forces), 4) for e in calculator.evaluate_all(last))
    print(json.dumps(figures))


def relaxed(crystals: list[Crystal | None], config: RelaxConfig) -> list[Relaxed | None]:
    """None for what is None, fails or does not converge."""
    given = [i for i, c in enumerate(crystals) if c is not None]
    results = get_calculator(config).relax([str(i) for i in given], [c for c in crystals if c is not None])
    good = {i: r for i, r in zip(given, results, strict=True) if isinstance(r, Relaxed) and r.converged}
    return [good.get(i) for i in range(len(crystals))]


def count(crystal: Crystal) -> int:
    """Displaced supercells of a crystal; how large they are does not matter to that."""
    return len(displaced(crystal, PhononsConfig(supercell_length=10.0, max_atoms=10_000)).cells)


if __name__ == "__main__":
    main()
