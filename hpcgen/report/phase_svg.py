"""Phase diagrams of two and three elements as SVG; colours come from the page's style sheet."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup, escape

from hpcgen.report.phases import Landscape, Phase
from hpcgen.report.svg import ticks

WIDTH, HEIGHT = 340, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 18, 40
OWN_SHOWN = 60
"""Other crystals of the run in one diagram at most, the most stable ones."""

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def phase_diagram(landscape: Landscape) -> Markup:
    """The diagram of a system of two or three elements; empty for others.

    Filled dots are stable phases of the reference, joined where they coexist; rings are its other phases; squares are
    other crystals of the run; the diamond is the crystal itself.
    """
    draw = {2: _binary, 3: _ternary}.get(len(landscape.elements))
    if draw is None:
        return Markup("")
    label = f"Phase diagram {'-'.join(landscape.elements)} with {landscape.this.formula}"
    return Markup(  # everything inside is numbers or escaped
        f'<svg class="chart phases" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{draw(landscape)}</svg>"
    )


def _binary(land: Landscape) -> str:
    """Formation energy over the share of the second element."""
    own = sorted(land.own, key=lambda p: p.above)[:OWN_SHOWN]
    energies = [p.formation_energy for p in (*land.stable, land.this)]
    low, high = min(energies), max(*energies, 0.0)
    pad = max(0.12 * (high - low), 0.03)
    low, high = low - 1.6 * pad, high + pad

    def at(p: Phase) -> tuple[float, float]:
        x = LEFT + p.fractions[1] * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - p.formation_energy) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def inside(p: Phase) -> bool:
        return low <= p.formation_energy <= high

    bottom = HEIGHT - BOTTOM
    parts = []
    for value in ticks(low, high, 4):
        y = TOP + (high - value) / (high - low) * (bottom - TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 5}" y="{y + 4:.1f}">{value:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    for end, anchor, element in ((LEFT, "start", land.elements[0]), (WIDTH - RIGHT, "end", land.elements[1])):
        parts.append(f'<text class="label" text-anchor="{anchor}" x="{end}" y="{bottom + 16}">{escape(element)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="tick" text-anchor="middle" x="{middle}" y="{HEIGHT - 6}">'
        f"formation energy (eV/atom) over the share of {escape(land.elements[1])}</text>"
    )
    parts += _ties(land, at)
    x, y = at(land.this)
    hull = TOP + (high - (land.this.formation_energy - land.this.above)) / (high - low) * (bottom - TOP)
    parts.append(f'<line class="drop" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{hull:.1f}"/>')
    parts += [_mark("other", at(p), _title(p)) for p in land.others if inside(p)]
    parts += [_mark("own", at(p), _title(p, "of this run")) for p in own if inside(p)]
    parts += [_mark("stable", at(p), _title(p)) for p in land.stable]
    names = [p for p in land.stable if 0 < p.fractions[1] < 1]
    parts += [_name(p, at(p)[0], at(p)[1] + 15) for p in names]
    parts.append(_mark("this", (x, y), _title(land.this, "this crystal")))
    if land.this.formula not in {p.formula for p in names}:
        parts.append(_name(land.this, x, y - 10, "this-name"))
    return "".join(parts)


def _ternary(land: Landscape) -> str:
    """The Gibbs triangle; the triangle (or line) of phases that the crystal would decompose to is filled."""
    edge = WIDTH - 2 * 38
    height = edge * 3**0.5 / 2
    corners = np.array([[38.0, TOP + 14 + height], [38.0 + edge, TOP + 14 + height], [WIDTH / 2, TOP + 14]])

    def at(p: Phase) -> tuple[float, float]:
        x, y = np.array(p.fractions) @ corners
        return float(x), float(y)

    parts = []
    products = [at(p) for p, _ in land.products]
    if len(products) > 1:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in products)
        parts.append(f'<polygon class="products" points="{points}"/>')
    parts += _ties(land, at)
    own = sorted(land.own, key=lambda p: p.above)[:OWN_SHOWN]
    parts += [_mark("other", at(p), _title(p)) for p in land.others]
    parts += [_mark("own", at(p), _title(p, "of this run")) for p in own]
    parts += [_mark("stable", at(p), _title(p)) for p in land.stable]
    for element, (x, y), dy in zip(land.elements, corners, (17, 17, -9), strict=True):
        parts.append(f'<text class="label" text-anchor="middle" x="{x:.1f}" y="{y + dy:.1f}">{escape(element)}</text>')
    for p in land.stable:
        if max(p.fractions) < 1:
            x, y = at(p)
            parts.append(_name(p, x, y + (15 if min(p.fractions[2], 1) < 1e-9 else -8)))
    parts.append(_mark("this", at(land.this), _title(land.this, "this crystal")))
    if land.this.formula not in {p.formula for p in land.stable}:
        parts.append(_name(land.this, at(land.this)[0], at(land.this)[1] + 17, "this-name"))
    return "".join(parts)


def _ties(land: Landscape, at) -> list[str]:
    lines = []
    for i, j in land.ties:
        a, b = land.stable[i], land.stable[j]
        (x0, y0), (x1, y1) = at(a), at(b)
        lines.append(f'<line class="tie" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    return lines


def _mark(kind: str, at: tuple[float, float], title: str) -> str:
    x, y = at
    shape = {
        "stable": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"',
        "other": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"',
        "own": f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"',
        "this": f'<path d="M{x:.1f},{y - 8:.1f}l8,8l-8,8l-8,-8z"',
    }[kind]
    tag = shape[1 : shape.index(" ")]
    return f'{shape} class="p-{kind}"><title>{escape(title)}</title></{tag}>'


def _name(p: Phase, x: float, y: float, kind: str = "name") -> str:
    # kept inside the picture: a text of n letters is about 6 n wide
    half = 3.1 * len(p.formula)
    x = min(max(x, half + 2), WIDTH - half - 2)
    text = escape(p.formula.translate(SUBSCRIPTS))
    return f'<text class="{kind}" text-anchor="middle" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _title(p: Phase, what: str = "") -> str:
    place = "on the hull" if abs(p.above) < 5e-4 else f"{p.above:+.3f} eV/atom from the hull"
    return f"{p.formula}{f' ({what})' if what else ''}: {place}, formation {p.formation_energy:+.3f} eV/atom"


def competing(land: Landscape) -> list[dict[str, str]]:
    """Rows of the table beside the diagram: the phases that the crystal competes with, the largest share first."""

    def row(p: Phase, share: str) -> dict[str, str]:
        energy = f"{p.formation_energy:+.3f}".replace("-", "−")
        return {"formula": p.formula, "share": share, "energy": energy}

    return [row(p, f"{100 * x:.0f} %") for p, x in land.products]
