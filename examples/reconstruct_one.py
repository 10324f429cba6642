"""One crystal there and back: encode it, rebuild it from the vector alone, and draw what happened.

    python examples/reconstruct_one.py                       # perovskite, CaTiO3
    python examples/reconstruct_one.py POSCAR -o picture.png
    python examples/reconstruct_one.py NaCl.cif --noise 0.05 --lattice-noise 0.01
    python examples/reconstruct_one.py NaCl.cif --set representation.descriptor=ead

The solver is given the descriptor, the cell and the elements, and no position. The picture shows, block by block, the
descriptor that was asked for and the one that the rebuilt crystal has; how the residual fell with the work; and both
crystals, the rebuilt one moved onto the real one (no descriptor knows where the origin of a cell is).
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from hpcgen import config, data
from hpcgen.crystal import (
    Crystal,
    FloatArray,
    from_structure,
    lattice_from_parameters,
    lattice_parameters,
    to_structure,
)
from hpcgen.errors import DataError, HpcgenError
from hpcgen.reconstruct.solution import Solution
from hpcgen.report.render import picture
from hpcgen.report.scene import element_style
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import Descriptor
from hpcgen.stages.roundtrip import Rebuilder, match

TARGET, REACHED, INK, SOFT = "#e69f00", "#0072b2", "#1c1e21", "#5d636c"  # orange and blue of Okabe and Ito
TITLES = {
    "rdf": "radial distribution",
    "s": "structure factor",
    "three_body": "three-body block",
    "max": "embedded density, largest over the atoms",
    "min": "embedded density, smallest over the atoms",
    "distance": "smallest distance",
}


@dataclass(frozen=True)
class Result:
    """A crystal, what was asked of the solver, and what it answered."""

    real: Crystal
    built: Crystal
    descriptor: Descriptor
    target: FloatArray
    reached: FloatArray
    solution: Solution
    rms: float | None


def main() -> int:
    """Read, rebuild, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", nargs="?", help="CIF, POSCAR or extxyz; the first usable structure (default: perovskite)"
    )
    parser.add_argument("--noise", type=float, default=0.0, help="relative noise on the descriptor")
    parser.add_argument("--lattice-noise", type=float, default=0.0, help="relative noise on the cell")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and the solver")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key")
    parser.add_argument("-o", "--output", type=Path, default=Path("reconstruction.png"), help="the picture")
    args = parser.parse_args()
    try:
        trip = f"roundtrip: {{noise: {args.noise}, lattice_noise: {args.lattice_noise}}}"
        text = f"{{seed: {args.seed}, data: {{max_atoms: 500, max_elements: 20}}, {trip}}}"
        settings = config.loads(text, "--set", args.set)
        result = rebuild(read(args.file, settings), settings)
    except HpcgenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    draw(result).savefig(args.output, dpi=88, facecolor="white")
    print(f"{headline(result)}\n{args.output}")
    return 0


def read(file: str | None, settings: config.Config) -> Crystal:
    """The first usable structure of a file in its Niggli cell, or perovskite.

    Raises:
        DataError: if there is none.
    """
    if file is None:
        return perovskite().niggli()
    for _, crystal in data.read(settings.data.model_copy(update={"source": file})):
        if isinstance(crystal, Crystal):
            return crystal
        reason = f"{crystal.kind}, {crystal.message}"
    raise DataError(f"{file} holds no usable structure: {reason}")


def perovskite() -> Crystal:
    """CaTiO3, 20 atoms, octahedra tilted (Sasaki, Prewitt, Bass and Schulze, Acta Cryst. C 43, 1668 (1987))."""
    from pymatgen.core import Lattice, Structure

    sites = [[0.0360, 0.25, -0.0068], [0.5, 0.0, 0.0], [0.4838, 0.25, 0.0714], [0.2888, 0.0371, 0.7108]]
    cell = Lattice.orthorhombic(5.446, 7.645, 5.383)
    return from_structure(Structure.from_spacegroup("Pnma", cell, ["Ca", "Ti", "O", "O"], sites))


def rebuild(real: Crystal, settings: config.Config) -> Result:
    """The crystal rebuilt from its own descriptor, cell and elements, with the noise of the section `roundtrip`."""
    rebuilder = Rebuilder(settings)
    target, lattice = rebuilder.pose(real, real.formula)
    built, solution, _ = rebuilder.solve(target, lattice, real.numbers, real.formula)
    species, elements = species_channels(real.numbers)
    descriptor = rebuilder.link(real.numbers).descriptor
    reached = descriptor.encode(built, species, len(elements))
    return Result(real, built, descriptor, target, reached, solution, match(built, real))


def headline(result: Result) -> str:
    """What came out, in one line."""
    s = result.solution
    fit = "no match" if result.rms is None else f"match, rms {result.rms:.2g}"
    reason = {"converged": "converged", "noise-floor": "at the noise floor", "budget": "budget spent"}[s.stop_reason]
    return (
        f"{result.real.formula}, {len(result.real)} atoms: {fit}; residual {s.residual:.2g}, {reason} "
        f"after {s.iterations} units of work, confidence {s.confidence:.2f}"
    )


def draw(result: Result) -> Figure:
    """Blocks of the descriptor above; residual and both crystals below."""
    figure = Figure(figsize=(12.5, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)
    formula = re.sub(r"(\d+)", r"$_{\1}$", result.real.formula)
    figure.suptitle(headline(result).replace(result.real.formula, formula, 1), fontsize=12.5, color=INK)
    above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.1])
    n_channels = len(result.real.elements)
    blocks = result.descriptor.blocks(n_channels)
    shown = [name for name, part in blocks.items() if part.stop - part.start > 1]
    for axes, name in zip(np.atleast_1d(above.subplots(1, len(shown))), shown, strict=True):
        _block(axes, result, name, blocks[name])
    left, right = below.subfigures(1, 2, width_ratios=[1.0, 1.9])
    _residual(left.subplots(), result.solution)
    real, rebuilt = right.subplots(1, 2)
    _crystal(real, result.real, "real")
    _crystal(rebuilt, _moved_onto(result.real, result.built), "rebuilt")
    _elements(right, result.real)
    return figure


def _block(axes: Any, result: Result, name: str, part: slice) -> None:
    """Target as an area, what was reached as a line over it; the groups of components are named below."""
    _, elements = species_channels(result.real.numbers)
    labels = result.descriptor.names(len(elements))[part]
    x = np.arange(len(labels))
    axes.fill_between(x, result.target[part], step="mid", color=TARGET, alpha=0.55, lw=0, label="target")
    axes.step(x, result.reached[part], where="mid", color=REACHED, lw=1.3, label="rebuilt")
    start, ticks = 0, []
    for group, members in groupby(labels, key=lambda text: _group(text, elements)):
        end = start + len(list(members))
        if start:
            axes.axvline(start - 0.5, color=SOFT, lw=0.6, ls=":")
        ticks.append(((start + end - 1) / 2, group))
        start = end
    axes.set_xticks([t for t, _ in ticks], [g for _, g in ticks], fontsize=9, color=INK)
    axes.tick_params(axis="x", length=0)
    share = result.solution.blocks.get(name)
    left = "" if share is None else f", {share:.1g} of the residual"
    axes.set_title(f"{TITLES.get(name, name)}{left}", fontsize=10.5, color=INK)
    axes.set_ylabel("descriptor, dimensionless", fontsize=9, color=SOFT)
    if scale := _scale(name, labels):
        axes.set_xlabel(f"in each part: {scale}", fontsize=9, color=SOFT)
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))  # room for the legend
    axes.legend(fontsize=9, frameon=False, loc="upper right", ncols=2)
    _tidy(axes)


def _group(name: str, elements: tuple[int, ...]) -> str:
    """`Mg-O` of `rdf 0-2 2.55`, `Mg` of `three_body 0 L2 1.20 1.92`, `eta 20` of `max:L0:eta20:R3.10`."""
    if pair := re.match(r"\S+ (\d+)-(\d+) ", name):
        return "–".join(chemical_symbols[elements[int(c)]] for c in pair.groups())
    if centre := re.match(r"\S+ (\d+) ", name):
        return chemical_symbols[elements[int(centre[1])]]
    if density := re.match(r"\w+:L(\d+):eta([\d.]+):", name):
        return f"L {density[1]}, η {density[2]} Å⁻²"
    return name


def _scale(name: str, labels: list[str]) -> str:
    """What the components of one group run over."""
    ends = [re.search(r"R?([\d.]+)$", labels[i]) for i in (0, -1)]
    quantity, unit = {
        "rdf": ("distance", "Å, in a cell of 15.6 Å³ per atom"),
        "s": ("wave number", "Å⁻¹, in a cell of 15.6 Å³ per atom"),
        "max": ("distance", "Å"),
        "min": ("distance", "Å"),
    }.get(name, ("", ""))
    return f"{quantity} {ends[0][1]} to {ends[1][1]} {unit}" if quantity and all(ends) else ""


def _residual(axes: Any, solution: Solution) -> None:
    """Best residual so far against work, on a logarithmic axis."""
    trace = solution.trace
    if not len(trace):
        axes.text(0.5, 0.5, "nothing to search", ha="center", va="center", color=SOFT, transform=axes.transAxes)
    axes.step(trace[:, 0], np.maximum(trace[:, 1], 1e-12), where="post", color=REACHED, lw=1.5)
    axes.plot(trace[:, 0], np.maximum(trace[:, 1], 1e-12), "o", ms=4.5, color=REACHED, label="after a start")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_title("how it was found", fontsize=10.5, color=INK)
    axes.set_xlabel("work: sweeps and local iterations", fontsize=9, color=SOFT)
    axes.set_ylabel("best residual so far, |q − target| / |target|", fontsize=9, color=SOFT)
    axes.grid(axis="y", color="#e6e8eb", lw=0.7)
    _tidy(axes)


def _crystal(axes: Any, crystal: Crystal, title: str) -> None:
    pixels = picture(crystal, 560)
    drawn = pixels[..., 3] > 0
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    axes.imshow(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], interpolation="antialiased")
    a, b, c, alpha, beta, gamma = crystal.parameters
    cell = f"{a:.2f}, {b:.2f}, {c:.2f} Å;  {alpha:.1f}, {beta:.1f}, {gamma:.1f}°"
    axes.set_title(f"{title}\n{cell}", fontsize=10.5, color=INK)
    axes.axis("off")


def _elements(figure: SubFigure, crystal: Crystal) -> None:
    """The colours of the elements, below the pictures."""
    handles = [
        Line2D([], [], ls="", marker="o", ms=9, mfc=colour, mec=SOFT, mew=0.6, label=symbol)
        for symbol, colour, _ in sorted({element_style(int(z)) for z in crystal.numbers})
    ]
    figure.legend(handles=handles, fontsize=10, frameon=False, loc="outside lower center", ncols=8)


def _moved_onto(real: Crystal, built: Crystal) -> Crystal:
    """The rebuilt crystal with origin, orientation and hand of the real one where they match, else as it is."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10, primitive_cell=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = matcher.get_s2_like_s1(to_structure(real), to_structure(built))
    if moved is None:
        return built
    return Crystal(lattice_from_parameters(lattice_parameters(moved.lattice.matrix)), moved.frac_coords, real.numbers)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(which="both", colors=SOFT, labelsize=8.5)


if __name__ == "__main__":
    raise SystemExit(main())
