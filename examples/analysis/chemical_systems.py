"""Which chemical systems work: for each, how many crystals were relaxed, how stable they are, how many are new.

python examples/analysis/chemical_systems.py runs/quickstart
python examples/analysis/chemical_systems.py runs/quickstart --stable 0.1
"""

from __future__ import annotations

import argparse

import pandas as pd

import hpcgen


def main() -> None:
    """Print the table, the best systems first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder")
    parser.add_argument("--stable", type=float, default=0.08, help="eV/atom that count as stable (default: 0.08)")
    options = parser.parse_args()
    with hpcgen.open(options.run) as run:
        crystals = run.table("stability", ["e_hull", "unique", "novel"])
        crystals["system"] = ["-".join(crystal.elements) for crystal in run.crystals("stability")]
    crystals["doubtful"] = crystals["e_hull"] < -0.1  # the reference lacks what competes there, or the potential fails
    crystals["stable"] = (crystals["e_hull"] <= options.stable) & ~crystals["doubtful"]
    crystals["sun"] = crystals["stable"] & crystals["unique"] & crystals["novel"]
    by_system = crystals.groupby("system").agg(
        relaxed=("e_hull", "size"),
        lowest=("e_hull", "min"),
        median=("e_hull", "median"),
        stable=("stable", "sum"),
        unique_and_novel=("sun", "sum"),
        doubtful=("doubtful", "sum"),
    )
    ordered = by_system.sort_values(["unique_and_novel", "stable", "lowest"], ascending=[False, False, True])
    with pd.option_context("display.max_rows", None, "display.width", 120):
        print(ordered.round(3))


if __name__ == "__main__":
    main()
