"""The relaxation of one crystal as SVG: energy above the end and largest force at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from hpcgen.crystal import FloatArray
from hpcgen.flow import Relaxation
from hpcgen.report.svg import LEFT, RIGHT, WIDTH, Frame, figure, legend_entry

ENERGY = (26, 116)
FORCE = (136, 226)
HEIGHT = 266
"""Where the two panels begin and end, and the height of the picture."""

LOWEST_FORCE = 1e-4
"""eV/angstrom. Below this a force is zero by symmetry, and is drawn at this height."""


def relaxation_chart(relaxations: Mapping[str, Relaxation], max_force: float) -> Markup:
    """Two panels over the step, a line for each calculator; empty if no relaxation knows its steps.

    Where VASP relaxes a second time, with a new basis, a dotted line stands.

    Args:
        relaxations: by calculator, at most four are drawn.
        max_force: limit of the potential's relaxation, drawn as a dashed line, eV/angstrom.
    """
    known = [(name, r) for name, r in relaxations.items() if len(r.step_energy)][:4]
    if not known:
        return Markup("")
    above = [above_the_end(r) for _, r in known]
    forces = [np.log10(np.maximum(r.step_max_force.astype(float), LOWEST_FORCE)) for _, r in known]
    last = max(len(a) for a in above) - 1
    energy, force = np.concatenate(above), np.concatenate([*forces, [math.log10(max_force)]])
    pad = max(0.05 * float(np.ptp(energy)), 1e-3)
    panels = (
        Frame(0, last, float(energy.min()) - pad, float(energy.max()) + pad, *ENERGY),
        Frame(0, last, float(force.min()) - 0.1, float(force.max()) + 0.1, *FORCE),
    )
    parts = [
        panels[0].axes("", "eV/atom", ticks_x=False),
        panels[1].axes("step", "force, eV/Å", log=True, whole_x=True),
    ]
    room = (WIDTH - LEFT - RIGHT) // len(known)
    y = panels[1].y(math.log10(max_force))
    parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for number, (name, r) in enumerate(known):
        parts += [_line(panels[0], above[number], number), _line(panels[1], forces[number], number)]
        parts += [_border(panels, step, number) for step in new_runs(r)]
        parts.append(legend_entry(number, LEFT + room * number, name[: room // 6 - 4]))
    label = f"Relaxation by {' and by '.join(name for name, _ in known)}: energy above the end, and largest force"
    return figure("".join(parts), label, HEIGHT)


def above_the_end(relaxation: Relaxation) -> FloatArray:
    """(s,) energies at each step above where the relaxation ended, eV/atom.

    That is the last step, or the lowest where it did not converge (`Descent.result`).
    """
    energies = relaxation.step_energy.astype(float)
    return energies - (energies[-1] if relaxation.converged else energies.min())


def new_runs(relaxation: Relaxation) -> list[int]:
    """The steps at which VASP began a further relaxation."""
    runs = np.asarray(getattr(relaxation, "step_run", []), dtype=int)
    return (np.flatnonzero(np.diff(runs)) + 1).tolist()


def _line(frame: Frame, values: FloatArray, number: int) -> str:
    points = [(frame.x(step), frame.y(float(value))) for step, value in enumerate(values)]
    x, y = points[-1]
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return (
        f'<polyline class="line line-{number}" points="{joined}"/>'
        f'<circle class="dot line-{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    )


def _border(panels: tuple[Frame, Frame], step: int, number: int) -> str:
    x = panels[0].x(step - 0.5)
    return f'<line class="run line-{number}" x1="{x:.1f}" x2="{x:.1f}" y1="{ENERGY[0]}" y2="{FORCE[1]}"/>'
