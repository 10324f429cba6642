"""Does a crystal that was reconstructed well come out more stable? Residual against energy above the hull.

    python examples/analysis/residual_against_e_hull.py runs/quickstart -o residual.png

Prints Spearman's rank correlation and draws the crystals that relaxed to convergence.
"""

from __future__ import annotations

import argparse

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import hpcgen


def main() -> None:
    """Join, correlate, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder")
    parser.add_argument("-o", "--output", default="residual.png", help="the picture (default: residual.png)")
    options = parser.parse_args()
    with hpcgen.open(options.run) as run:
        crystals = run.joined()[["formula", "residual", "e_hull", "converged", "novel"]]
    crystals = crystals[crystals["converged"] == True]  # noqa: E712 - pandas; unknown counts as no
    rank = spearmanr(crystals["residual"], crystals["e_hull"])
    print(f"{len(crystals)} converged crystals: Spearman's rho {rank.statistic:.2f} (p = {rank.pvalue:.2g})")

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for novel, group in crystals.groupby("novel"):
        axes.plot(group["residual"], group["e_hull"], "o", ms=4, label="novel" if novel else "in the training data")
    axes.set(xlabel="residual of the reconstruction", ylabel="energy above the hull, eV/atom", xscale="log")
    axes.legend()
    figure.savefig(options.output, dpi=150)


if __name__ == "__main__":
    main()
