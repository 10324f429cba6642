"""Small inline SVG charts. Colours come from the page's style sheet, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike

from hpcgen.crystal import FloatArray

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 26, 40
BASE = HEIGHT - BOTTOM


LOWEST = -0.3  # eV/atom, where the histogram of energies above the hull begins at the latest


def energy_histogram(energies: ArrayLike, thresholds: Sequence[float]) -> Markup:
    """Histogram of energies above the hull (eV/atom) with a dashed line per threshold.

    What lies beyond twice the 90th percentile (and beyond all thresholds) is counted in the last bar, what lies below
    `LOWEST` in the first one, and the axis says so: a few outliers must not squeeze the range that matters.
    """
    values = _finite(energies)
    if not len(values):
        return Markup("")
    top = max([*thresholds, 0.05]) * 1.3
    end = min(max(float(values.max()), top), max(2 * float(np.quantile(values, 0.9)), top))
    edges = _edges(max(min(float(values.min()), 0.0), LOWEST), end, 30)
    outside = [
        (int((values < edges[0]).sum()), "below, in the first"),
        (int((values > edges[-1]).sum()), "beyond, in the last"),
    ]
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    frame = Frame(edges[0], edges[-1], 0, max(int(counts.max()), 1))
    bars = [
        _bar(frame, a, b, n, f"{a:.3f} to {b:.3f} eV/atom: {n}", "bar")
        for a, b, n in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
    ]
    lines = []
    for row, limit in enumerate(sorted(thresholds)):
        x, y = frame.x(limit), TOP - 14 + 11 * (row % 2)
        lines.append(
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 3:.1f}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="limit-label" x="{x + 3:.1f}" y="{y + 2:.1f}">{limit:g}</text>'
        )
    notes = [f"{count} {where} bar" for count, where in outside if count]
    body = frame.axes("energy above the hull, eV/atom", "crystals", whole=True) + "".join(bars + lines)
    chart = figure(body, f"Histogram of the energy above the hull of {len(values)} crystals")
    return chart + Markup('<figcaption class="note">{}</figcaption>').format("; ".join(notes)) if notes else chart


def comparison(generated: ArrayLike, training: ArrayLike, label: str, *, whole: bool = False) -> Markup:
    """Two histograms over each other as shares: generated crystals filled, training data as an outline.

    Args:
        generated, training: the values.
        label: of the axis.
        whole: the values are whole numbers, one bar each.
    """
    a, b = _finite(generated), _finite(training)
    both = np.concatenate([a, b])
    if not len(both):
        return Markup("")
    low, high = float(both.min()), float(np.quantile(both, 0.995))
    edges = np.arange(low - 0.5, max(high, low) + 1.0) if whole and high - low <= 60 else _edges(low, high, 24)
    shares = [np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] / max(len(v), 1) for v in (a, b)]
    frame = Frame(edges[0], edges[-1], 0, 100 * max(float(s.max()) for s in shares))
    bars = [
        _bar(frame, lo, hi, 100 * s, f"generated, {_range(lo, hi, whole)}: {100 * s:.1f} %", "bar")
        for lo, hi, s in zip(edges[:-1], edges[1:], shares[0].tolist(), strict=True)
    ]
    points = [f"{frame.x(edges[0]):.1f},{frame.y(0):.1f}"]
    for lo, hi, s in zip(edges[:-1], edges[1:], shares[1].tolist(), strict=True):
        points += [f"{frame.x(lo):.1f},{frame.y(100 * s):.1f}", f"{frame.x(hi):.1f},{frame.y(100 * s):.1f}"]
    points.append(f"{frame.x(edges[-1]):.1f},{frame.y(0):.1f}")
    outline = f'<polyline class="outline" points="{" ".join(points)}"/>' if len(b) else ""
    body = frame.axes(label, "%", whole_x=whole) + "".join(bars) + outline
    return figure(body, f"{label}: {len(a)} generated crystals against {len(b)} training structures")


def shares(names: Sequence[str], groups: Sequence[FloatArray], label: str) -> Markup:
    """A bar for each name with the share of the generated crystals, a line across it for that of the training data.

    Args:
        names: what is counted.
        groups: (n,) shares in 0-1 of the generated crystals, and, if known, of the training data.
        label: what is counted, for the axis.
    """
    if not names:
        return Markup("")
    frame = Frame(0, len(names), 0, 100 * max(float(g.max()) for g in groups))
    parts = []
    for i, name in enumerate(names):
        values = [100 * float(g[i]) for g in groups]
        title = f"{name}: generated {values[0]:.1f} %" + (f", training {values[1]:.1f} %" if len(values) > 1 else "")
        parts.append(_bar(frame, i + 0.1, i + 0.9, values[0], title, "bar"))
        if len(values) > 1:
            x0, x1, y = frame.x(i + 0.02), frame.x(i + 0.98), frame.y(values[1])
            parts.append(f'<line class="outline" x1="{x0:.1f}" x2="{x1:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        x = frame.x(i + 0.5)
        parts.append(
            f'<text class="element" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}">{escape(name)}</text>'
        )
    return figure(frame.axes(label, "%", ticks_x=False) + "".join(parts), f"{label}: {len(names)} elements")


def curves(x: FloatArray, series: dict[str, FloatArray], x_label: str, y_label: str, *, log: bool = True) -> Markup:
    """Lines over x, at most four, over a logarithmic or linear axis; values it cannot show are left out."""
    low = 0.0 if log else -math.inf
    shown = {name: (y > low) & np.isfinite(y) & np.isfinite(x) for name, y in list(series.items())[:4]}
    shown = {name: mask for name, mask in shown.items() if mask.any()}
    if not shown:
        return Markup("")
    axis = np.log10 if log else np.asarray
    values = axis(np.concatenate([series[n][m] for n, m in shown.items()]))
    low, high = float(values.min()), float(values.max())
    pad = max(0.05 * (high - low), 0.02 if log else 0.02 * abs(high))
    steps = np.concatenate([x[m] for m in shown.values()])
    frame = Frame(float(min(steps.min(), 0)), float(max(steps.max(), 1)), low - pad, high + pad)
    parts, legend = [], []
    for number, (name, mask) in enumerate(shown.items()):
        xs, ys = x[mask], axis(series[name][mask])
        points = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        mark = f'<circle class="dot line-{number}" cx="{frame.x(xs[-1]):.1f}" cy="{frame.y(ys[-1]):.1f}" r="3"/>'
        parts.append(f'<polyline class="line line-{number}" points="{points}"/>{mark}')
        left = LEFT + min(125, (WIDTH - LEFT) // len(shown)) * number
        legend.append(legend_entry(number, left, name.replace("_", " ")[:16]))
    body = frame.axes(x_label, y_label, log=log) + "".join(parts + legend)
    return figure(body, f"{y_label} over {x_label}")


def legend_entry(number: int, left: float, name: str) -> str:
    """The stroke of line `number` and its name, above the picture."""
    return (
        f'<line class="line line-{number}" x1="{left}" x2="{left + 16}" y1="10" y2="10"/>'
        f'<text x="{left + 21}" y="14">{escape(name)}</text>'
    )


def standalone(chart: Markup, css: str) -> str:
    """A chart as a file of its own, with the style sheet of the pages."""
    style = f"<style>{css} svg {{ background: var(--bg); }}</style>"
    return str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{style}", 1)


class Frame:
    """Data to picture coordinates, and the axes.

    Args:
        x0, x1, y0, y1: range of the data.
        top, base: where in the picture the panel begins and ends, for pictures of several panels.
    """

    def __init__(self, x0: float, x1: float, y0: float, y1: float, top: float = TOP, base: float = BASE) -> None:
        self.x0, self.x1 = float(x0), float(x1 if x1 > x0 else x0 + 1)
        self.y0, self.y1 = float(y0), float(y1 if y1 > y0 else y0 + 1)
        self.top, self.base = top, base

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.base - (value - self.y0) / (self.y1 - self.y0) * (self.base - self.top)

    def axes(
        self,
        x_label: str,
        y_label: str,
        *,
        log: bool = False,
        whole: bool = False,
        whole_x: bool = False,
        ticks_x: bool = True,
    ) -> str:
        """Ticks, light lines and labels. `log`: y holds decimal logarithms; `whole`: ticks at whole numbers only."""
        parts: list[str] = []
        for value in _decades(self.y0, self.y1) if log else ticks(self.y0, self.y1, 4, whole=whole):
            y = self.y(value)
            text = f"{10**value:.4g}" if log else f"{value:g}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 5}" y="{y + 4:.1f}">{text}</text>')
        for value in ticks(self.x0, self.x1, 6, whole=whole_x) if ticks_x else []:
            x = self.x(value)
            parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{self.base + 15}">{value:g}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.base}" y2="{self.base}"/>')
        label = '<text class="label" text-anchor="middle" transform='
        across = f"translate({(LEFT + WIDTH - RIGHT) / 2} {self.base + BOTTOM - 6})"
        parts.append(f'{label}"{across}">{escape(x_label)}</text>')
        parts.append(f'{label}"translate(11 {(self.top + self.base) / 2}) rotate(-90)">{escape(y_label)}</text>')
        return "".join(parts)


def _bar(frame: Frame, low: float, high: float, value: float, title: str, kind: str) -> str:
    if value <= 0:
        return ""
    x0, x1, y = frame.x(low) + 0.6, frame.x(high) - 0.6, frame.y(value)
    return (
        f'<rect class="{kind}" x="{x0:.1f}" y="{y:.1f}" width="{max(x1 - x0, 0.8):.1f}" '
        f'height="{HEIGHT - BOTTOM - y:.1f}"><title>{escape(title)}</title></rect>'
    )


def figure(body: str, label: str, height: float = HEIGHT) -> Markup:
    """A chart of markup that is numbers or escaped."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _range(low: float, high: float, whole: bool) -> str:
    return f"{(low + high) / 2:g}" if whole else f"{low:.2f} to {high:.2f}"


def _edges(low: float, high: float, bins: int) -> FloatArray:
    """Bin edges at round numbers that cover [low, high], with 0 among them if it is inside."""
    step = _nice((high - low) / bins if high > low else max(abs(low), 1.0) / bins)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return np.arange(first, last + 1, dtype=np.float64) * np.float64(step)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers between two values."""
    step = _nice((high - low) / count)
    if whole:
        step = max(1.0, round(step))
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5 times powers of ten between `low` and `high`; of powers of ten only if they are many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [k + math.log10(m) for k in powers for m in (1, 2, 5) if low <= k + math.log10(m) <= high]
    whole = [t for t in ticks if t == round(t)]
    return whole if len(ticks) > 7 else ticks


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * 0.999)


def _finite(values: ArrayLike) -> FloatArray:
    v = np.asarray(values, dtype=np.float64).ravel()
    return v[np.isfinite(v)]
