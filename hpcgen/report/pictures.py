"""Pictures for slides and the README: the funnel, the most stable crystals, and both beside each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.report import funnel
from hpcgen.report.data import Row, RunData
from hpcgen.report.headline import group_text
from hpcgen.report.render import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

SHOWN = 8
INK, SOFT, BAR, VERDICT = "#1c1e21", "#5d636c", "#2463c9", "#1d6f42"


def write_pictures(folder: Path, data: RunData) -> None:
    """funnel.png, crystals.png and overview.png in `folder`."""
    pictures = [(row, picture(row.stability.crystal, 320)) for row in _best(data)]
    for name, size, draw in (
        ("funnel.png", (8.0, 4.8), lambda f: _funnel(f, data)),
        ("crystals.png", (11.0, 6.2), lambda f: _crystals(f, pictures, 4)),
        ("overview.png", (14.0, 5.6), lambda f: _overview(f, data, pictures)),
    ):
        figure = _new_figure(size)
        draw(figure)
        figure.savefig(folder / name, dpi=110, facecolor="white")


def _best(data: RunData) -> list[Row]:
    """The most stable crystals, unique and novel ones first."""
    good = [r for r in data.rows if r.stability.unique and r.stability.novel]
    others = [r for r in data.rows if r.stability.unique and not r.stability.novel]
    return (good + others)[:SHOWN]


def _new_figure(size: tuple[float, float]) -> Figure:
    """A figure of its own backend: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure


def _overview(figure: Figure, data: RunData, pictures: list[tuple[Row, Any]]) -> None:
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=[1.0, 1.15]))
    _funnel(left, data)
    _crystals(right, pictures[:6], 3)


def _funnel(figure: Figure | SubFigure, data: RunData) -> None:
    steps = funnel.chain(data)
    widest = max([data.generated_count, *(s.left for s in steps), 1])
    axes = figure.add_axes((0.03, 0.03, 0.94, 0.94))
    for i, step in enumerate(steps):
        y = -float(i)
        axes.barh(y, widest, height=0.34, color="#ecedef", align="edge")
        axes.barh(y, step.left, height=0.34, color=BAR if step.stage else VERDICT, align="edge")
        axes.text(0, y + 0.42, step.label, fontsize=11.5, color=INK, va="bottom")
        axes.text(widest, y + 0.42, str(step.left), fontsize=12, color=INK, va="bottom", ha="right", weight="bold")
        axes.text(0.93 * widest, y + 0.43, _losses(step), fontsize=8.5, color=SOFT, va="bottom", ha="right")
    axes.set_xlim(0, widest)
    axes.set_ylim(-len(steps) + 0.85, 0.95)
    axes.axis("off")


def _losses(step: funnel.Step) -> str:
    """The most frequent losses of a step, and the number of the others."""
    lost = list(step.losses.items())
    named = [f"−{n} {kind}" for kind, n in lost[:3]]
    rest = sum(n for _, n in lost[3:])
    return "   ".join(named + ([f"−{rest} others"] if rest else []))


def _crystals(figure: Figure | SubFigure, pictures: list[tuple[Row, Any]], columns: int) -> None:
    if not pictures:
        figure.text(0.5, 0.5, "no crystal was relaxed", ha="center", color=SOFT)
        return
    rows = -(-len(pictures) // columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.12, wspace=0.05, hspace=0.28)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (row, image) in zip(grid.flat, pictures, strict=False):
        s = row.stability
        axes.imshow(image, interpolation="antialiased")
        formula = re.sub(r"(\d+)", r"$_{\1}$", re.sub(r"[^A-Za-z0-9.()]", "", s.formula))
        axes.text(0.5, -0.02, formula, transform=axes.transAxes, ha="center", va="top", fontsize=13, color=INK)
        note = f"{group_text(s.spacegroup)}   {s.e_hull:+.3f} eV/atom"
        note += "" if s.novel else "   (known)"
        axes.text(0.5, -0.13, note, transform=axes.transAxes, ha="center", va="top", fontsize=9.5, color=SOFT)
