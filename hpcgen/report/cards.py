"""A card for each of the most promising crystals: picture, phase diagram, what competes, relaxation, files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcgen.report.data import FAR_BELOW, Row, RunData
from hpcgen.report.files import cif_path
from hpcgen.report.headline import group_text, plural, stable_limit
from hpcgen.report.phase_svg import competing, phase_diagram
from hpcgen.report.phases import LARGEST, Competitors, Landscape
from hpcgen.report.relaxation_svg import relaxation_chart
from hpcgen.report.scene import element_style, hex_colour, scene
from hpcgen.report.table import formula_html, signed, states_html

BELOW = -0.001
"""eV/atom. A known crystal that was found again lies on the hull up to what two relaxations differ by."""


def chosen(data: RunData) -> list[tuple[int, Row]]:
    """(rank, row) of the crystals that get a card: unique and novel stable ones first, then by rank."""
    limit = stable_limit(data)
    ranked = list(enumerate(data.rows, 1))

    def order(item: tuple[int, Row]) -> tuple[bool, bool, int]:
        rank, row = item
        s = row.stability
        found = bool(s.unique and s.novel) and s.e_hull <= limit and not row.doubtful
        return not found, row.doubtful, rank

    return sorted(ranked, key=order)[: data.config.report.survivors]


def cards(data: RunData, rows: list[tuple[int, Row]], competitors: Competitors | None) -> list[dict[str, Any]]:
    """The cards of `chosen` crystals, for the template."""
    return [_card(rank, row, competitors, data.config.relax.max_force) for rank, row in rows]


def _card(rank: int, row: Row, competitors: Competitors | None, max_force: float) -> dict[str, Any]:
    s = row.stability
    badges = [
        {"text": "novel", "kind": "good"} if s.novel else {"text": "in training data", "kind": ""},
        None if s.unique else {"text": "duplicate", "kind": ""},
        {"text": "not converged", "kind": ""} if row.converged is False else None,
        {"text": "below this reference", "kind": "good"} if FAR_BELOW <= s.e_hull < BELOW else None,
        {"text": "competitors missing?", "kind": "warn"} if row.doubtful else None,
    ]
    elements = [element_style(int(z)) for z in np.unique(s.crystal.numbers)]
    landscape = competitors.landscape(s) if competitors else None
    return {
        "rank": rank,
        "formula": s.formula,
        "formula_html": formula_html(s.formula),
        "e_hull": signed(s.e_hull),
        "judged_by": row.judged_by,
        "others": [{"by": name, "e_hull": signed(o.e_hull)} for name, o in row.others.items()],
        "symbol": group_text(s.spacegroup),
        "spacegroup": s.spacegroup,
        "atoms": len(s.crystal),
        "elements": [{"symbol": symbol, "colour": hex_colour(rgb)} for symbol, rgb, _ in elements],
        "badges": [b for b in badges if b],
        "cif": cif_path(rank, row),
        "diagram": phase_diagram(landscape) if landscape else Markup(""),
        "competing": competing(landscape) if landscape else [],
        "landscape": _landscape_text(landscape, row),
        "relaxed": _relaxation_text(row),
        "curve": relaxation_chart(row.relaxations, max_force),
        "charges": _charges_text(row),
        "dynamics": _dynamics_text(row),
        "ids": [("stability", s.id), ("relaxation", s.relaxation_id), ("candidate", s.candidate_id), *_outputs(row)],
    }


def _landscape_text(landscape: Landscape | None, row: Row) -> str:
    """One sentence on the chemical system."""
    s = row.stability
    if landscape is None:
        many = len(s.crystal.elements) > LARGEST
        why = f"more than {LARGEST} elements" if many else "no reference entries at hand"
        return f"No diagram: {why}. Decomposes to {s.decomposition}."
    system = "-".join(landscape.elements)
    known = [p for p in (*landscape.stable, *landscape.others) if p.formula == landscape.this.formula]
    text = (
        f"{system}: {len(landscape.stable)} stable and {plural(len(landscape.others), 'other phase')} in the reference"
    )
    text += f", and {plural(len(landscape.own), 'more crystal')} of this run." if landscape.own else "."
    if known:
        gap = landscape.this.formation_energy - min(p.formation_energy for p in known)
        text += (
            f" The lowest known phase of this formula lies {abs(gap):.3f} eV/atom {'below' if gap > 0 else 'above'} it."
        )
    return text


def _relaxation_text(row: Row) -> str:
    r = row.relaxation
    if r is None:
        return ""
    gain = (r.energy - r.energy_initial) / len(r.crystal)
    state = "converged" if r.converged else "not converged"
    return (
        f"Relaxed by {r.calculator} in {r.steps} steps, {state}: {signed(gain)} eV/atom, "
        f"largest force {r.max_force_initial:.2f} → {r.max_force:.3f} eV/Å."
    )


def _outputs(row: Row) -> list[tuple[str, str]]:
    """Where a DFT code left its files, below the run folder."""
    folders = [getattr(r, "folder", "") for r in row.relaxations.values()]
    return [("files of VASP in the run folder", folder) for folder in folders if folder]


def _charges_text(row: Row) -> Markup:
    s = row.stability
    if s.charge_balanced == "yes":
        return Markup("Oxidation states balance: {}.").format(states_html(s.oxidation_states))
    return Markup("No common oxidation states balance.") if s.charge_balanced == "no" else Markup("")


def _dynamics_text(row: Row) -> str:
    return " ".join(text for text in (_phonons_text(row), _simulation_text(row)) if text)


def _phonons_text(row: Row) -> str:
    p = row.phonons
    if p is None:
        return ""
    verdict = "imaginary modes, so no minimum of the energy" if p.imaginary else "no imaginary modes"
    return f"Phonons by {p.calculator}: {verdict}; the lowest lies at {signed(p.lowest_frequency, '.2f')} THz."


def _simulation_text(row: Row) -> str:
    d = row.dynamics
    if d is None:
        return ""
    hottest = f"{d.temperature.max():.0f} K"
    text = f"Molecular dynamics by {d.calculator}, {d.atoms} atoms: "
    text += f"stays a crystal at {hottest}" if d.stays else f"no crystal any more at {hottest}"
    text += f", its atoms move by {d.displacement:.2f} Å at most."
    if not math.isnan(d.path):
        way = f"{d.path:.2f} Å wide in {d.path_dimensions} dimensions" if d.path > 0 else "closed"
        text += f" Narrowest point of the widest way for the ion: {way}, {d.path_ratio:.2f} of its radius."
    if not math.isnan(d.conductivity):
        text += (
            f" {d.ion}: activation energy {d.activation_energy:.2f} ± {d.activation_energy_error:.2f} eV, "
            f"conductivity at {d.conductivity_at:.0f} K {d.conductivity:.1e} S/cm, "
            f"times or over {d.conductivity_factor:.1f}."
        )
    elif d.ion:
        text += f" {d.ion}: too few hops at two temperatures to give a conductivity."
    return text


def scenes(rows: list[tuple[int, Row]]) -> dict[str, Any]:
    """Crystals and the elements in them, for the drawing script; in the order of the cards."""
    crystals, kinds = [], set()
    for _, row in rows:
        s = scene(row.stability.crystal)
        kinds |= {int(z) for z in s.numbers}
        atoms = [[*(round(float(v), 3) for v in p), int(z)] for p, z in zip(s.position, s.numbers, strict=True)]
        radii = np.array([element_style(int(z))[2] for z in s.numbers])
        extent = max(
            float((np.linalg.norm(s.position, axis=1) + radii).max()), float(np.linalg.norm(s.edges, axis=-1).max())
        )
        crystals.append(
            {
                "atoms": atoms,
                "bonds": s.bonds.tolist(),
                "edges": np.round(s.edges, 3).tolist(),
                "extent": round(extent, 3),
            }
        )
    elements = {}
    for z in sorted(kinds):
        _, rgb, radius = element_style(z)
        light, dark = ([c + (1 - c) * 0.75 for c in rgb], [c * 0.55 for c in rgb])
        elements[str(z)] = {
            "radius": round(radius, 3),
            "colour": hex_colour(rgb),
            "light": hex_colour((light[0], light[1], light[2])),
            "dark": hex_colour((dark[0], dark[1], dark[2])),
        }
    return {"crystals": crystals, "elements": elements}
