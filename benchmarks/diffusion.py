"""Is the error bar of a diffusivity one? Random walks of known diffusivity through a vibrating framework.

    python benchmarks/diffusion.py --walks 100

For each chance of hopping, how far the diffusivity found lies from the known one, in error bars: a standard deviation
of 1 is right, more is too small an error bar. The last line is JSON: per chance `hops`, `ratio` (found over known),
`within_1`, `within_2` (68 % and 95 % of an exact error bar), `deviation` (its standard deviation), and
`regression_deviation`, the same for the error that DiffusionAnalyzer gives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from hpcgen.dynamics import diffusion

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/dynamics"))
from walks import known_diffusivity, walk  # type: ignore[import-not-found]

CASES = ((0.02, 2000), (0.002, 2000), (0.02, 500))  # chance of a hop in a frame of 20 fs, frames


def main() -> None:
    """Print one line per case, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=100, help="walks per case (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the first walk (default: 0)")
    options = parser.parse_args()
    out = []
    for chance, frames in CASES:
        known = known_diffusivity(chance)
        found = [diffusion(walk(options.seed + i, chance, frames), 3) for i in range(options.walks)]
        off = np.array([d.diffusivity - known for d in found])
        ours, theirs = off / [d.error for d in found], off / [d.regression_error for d in found]
        out.append(
            {
                "chance": chance,
                "frames": frames,
                "hops": round(float(np.mean([d.hops for d in found])), 1),
                "ratio": round(float(np.mean([d.diffusivity for d in found])) / known, 4),
                "within_1": float((abs(ours) < 1).mean()),
                "within_2": float((abs(ours) < 2).mean()),
                "deviation": round(float(ours.std()), 3),
                "regression_deviation": round(float(theirs.std()), 1),
            }
        )
        print(out[-1])
    print(json.dumps({"walks": options.walks, "seed": options.seed, "cases": out}))


if __name__ == "__main__":
    main()
