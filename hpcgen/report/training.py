"""How a training goes: the curves of train.csv as a page, while it runs or after (`hpcgen inspect RUN`)."""

from __future__ import annotations

import csv
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from hpcgen.crystal import FloatArray
from hpcgen.errors import UsageError
from hpcgen.report import svg

PAGE = "training.html"
LAST = 8  # lines that are printed
_SHOWN = ("step", "train_loss", "validation_loss", "learning_rate", "gradient_norm", "samples_per_s")
_KNOWN = ("part", "seconds", *_SHOWN)
_NOISE = ("least noise", "less noise", "more noise", "most noise")


def inspect(folder: Path) -> list[str]:
    """Write `training.html` into a run folder; the last lines of train.csv of each part, and where the page is.

    Raises:
        UsageError: if no line of train.csv is there yet.
    """
    parts = read(folder / "train.csv")
    if not parts:
        raise UsageError(
            f"{folder} has no line of a train.csv yet",
            remedy="give a run folder whose training has begun, or a file of it",
        )
    page = folder / PAGE
    page.write_text(render(folder.name, parts), encoding="utf-8")
    out = []
    for part, curve in parts.items():
        names = [n for n in curve if n in _SHOWN or n in scores(curve)]
        out += [f"{part}: {len(curve['step'])} lines, {curve['seconds'][-1]:.0f} s of training"]
        out += ["  " + "".join(f"{n[:15]:>16}" for n in names)]
        out += ["  " + "".join(f"{curve[n][i]:>16.5g}" for n in names) for i in range(len(curve["step"]))[-LAST:]]
    return [*out, f"curves: {page}"]


def read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The columns of train.csv by part, NaN where a cell is empty; empty without the file."""
    columns = read_curve(path)
    if not columns or not len(columns["step"]):
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        names = np.array([line.get("part") or "joint" for line in csv.DictReader(stream)])
    return {str(part): {k: v[names == part] for k, v in columns.items()} for part in dict.fromkeys(names.tolist())}


def scores(curve: dict[str, np.ndarray]) -> list[str]:
    """The columns that say how good samples are."""
    return [n for n, v in curve.items() if n not in _KNOWN and "_loss_" not in n and np.isfinite(v).any()]


def render(title: str, parts: dict[str, dict[str, np.ndarray]]) -> str:
    """The page, which needs nothing else."""
    style = files("hpcgen.report").joinpath("page.css").read_text(encoding="utf-8")
    section = Markup('<section><h2>{}</h2><div class="grid">{}</div></section>')
    figure = Markup("<figure>{}</figure>")
    body = Markup("").join(
        section.format(part, Markup("").join(figure.format(chart) for chart in charts(curve)))
        for part, curve in parts.items()
    )
    head = f'<meta charset="utf-8"><title>{escape(title)}: training</title><style>{style}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body><main><h1>{escape(title)}</h1>{body}</main></body>"


def charts(curve: dict[str, np.ndarray]) -> list[Markup]:
    """Losses, losses by noise level, learning rate, gradient, speed, and one chart for each score."""
    step = curve["step"]

    def by_noise(prefix: str) -> dict[str, np.ndarray]:
        return {word: curve[f"{prefix}_{i}"] for i, word in enumerate(_NOISE, 1) if f"{prefix}_{i}" in curve}

    names: tuple[str, ...] = ("train_loss", "validation_loss")
    losses = {name: curve[name] for name in names if name in curve}
    out = [
        svg.curves(step, losses, "optimiser step", "loss"),
        svg.curves(step, by_noise("train_loss"), "optimiser step", "training loss"),
        svg.curves(step, by_noise("validation_loss"), "optimiser step", "validation loss"),
    ]
    for name, label in (("learning_rate", "learning rate"), ("gradient_norm", "norm of the gradient")):
        out.append(svg.curves(step, {name: curve[name]}, "optimiser step", label))
    for name in ("samples_per_s", *scores(curve)):
        out.append(svg.curves(step, {name: curve[name]}, "optimiser step", name.replace("_", " "), log=False))
    return [chart for chart in out if chart]


def read_curve(path: Path) -> dict[str, FloatArray]:
    """Columns of train.csv as float arrays, NaN where a cell is empty or no number; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    names = [n for n in (lines[0] if lines else {}) if n]
    return {name: np.array([_number(line.get(name)) for line in lines]) for name in names}


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
