"""The page: everything in one HTML file, which asks the network for nothing."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from hpcgen.flow import Relaxation, Stability
from hpcgen.report import funnel, svg
from hpcgen.report.data import FAR_BELOW, Row, RunData
from hpcgen.report.files import cif_name
from hpcgen.report.headline import best_row, group_text, lines, percent, reference, stable_limit, thresholds
from hpcgen.report.scene import element_style, hex_colour, scene

TABLE_ROWS = 1000
"""Rows of the table and CIF files at most; stability.csv always holds all."""

FIRST_CARDS = 12
"""Crystals shown before `Show all` is pressed."""


def render(data: RunData) -> str:
    """The whole page. All text from files is escaped by the template engine."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = files("hpcgen.report")
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    shown = data.rows[: data.config.report.survivors]
    ref = reference(data)
    steps = funnel.chain(data)
    widest = max([data.generated_count, *(s.left for s in steps), 1])
    hull = data.attrs.get("stability.h5", {})
    return template.render(
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        js=Markup((folder / "page.js").read_text(encoding="utf-8")),
        title=data.config.report.title or f"Generated crystals: {data.config.name}",
        created=str(hull.get("created_utc", "")).replace("T", " ").removesuffix("+00:00"),
        summary=lines(data),
        tiles=_tiles(data),
        reference=ref,
        funnel=[{**s.__dict__, "width": 100 * s.left / widest} for s in steps],
        side=funnel.side(data),
        thresholds=thresholds(data),
        percent=percent,
        rows_total=len(data.rows),
        converged=sum(r.converged is True for r in data.rows),
        generated=data.generated_count,
        energy_chart=svg.energy_histogram([r.stability.e_hull for r in data.rows], data.config.hull.thresholds),
        cards=[_card(rank, row) for rank, row in enumerate(shown, 1)],
        first_cards=FIRST_CARDS,
        columns=_columns(),
        rows=[_table_row(rank, row) for rank, row in enumerate(data.rows[:TABLE_ROWS], 1)],
        distributions=_distributions(data),
        curve=_training(data),
        losses=data.losses,
        facts=_facts(data),
        timings=data.timings,
        files=[_file(name, attrs) for name, attrs in data.attrs.items()],
        config_text=data.config.text(),
        scenes=_scenes(shown),
    )


def cif_path(rank: int, row: Row) -> str:
    """Where the CIF of a row lies, relative to the page; empty for rows beyond the table."""
    return f"survivors/{cif_name(rank, row.stability.formula, row.stability.id)}" if rank <= TABLE_ROWS else ""


def formula_html(formula: str) -> Markup:
    """A formula with lowered numbers, escaped."""
    parts = re.split(r"(\d+(?:\.\d+)?)", formula)
    return Markup("").join(Markup(f"<sub>{escape(p)}</sub>") if i % 2 else escape(p) for i, p in enumerate(parts))


def _tiles(data: RunData) -> list[dict[str, str]]:
    limit = stable_limit(data)
    counts = {t.e_hull: t for t in thresholds(data)}
    tiles = [
        {"value": str(data.generated_count), "label": "generated"},
        {"value": str(len(data.rows)), "label": "relaxed, with an energy above the hull"},
    ]
    if limit in counts:
        t = counts[limit]
        tiles.append({"value": str(t.relaxed), "label": f"at or below {limit:g} eV/atom"})
        tiles.append(
            {"value": str(t.sun), "label": f"of these unique and novel ({percent(t.sun_of_generated)} of generated)"}
        )
    best = best_row(data)
    if best is not None:
        label = f"eV/atom: {best.stability.formula}, the most stable"
        novel = best.stability.unique and best.stability.novel
        tiles.append({"value": f"{best.stability.e_hull:+.3f}", "label": label + (" novel one" if novel else " one")})
    return tiles


def _card(rank: int, row: Row) -> dict[str, Any]:
    s = row.stability
    badges = [
        {"text": "novel", "kind": "good"} if s.novel else {"text": "in training data", "kind": ""},
        None if s.unique else {"text": "duplicate", "kind": ""},
        {"text": "not converged", "kind": ""} if row.converged is False else None,
        {"text": "below this reference", "kind": "good"} if FAR_BELOW <= s.e_hull < -1e-8 else None,
        {"text": "competitors missing?", "kind": "warn"} if row.doubtful else None,
    ]
    elements = [element_style(int(z)) for z in np.unique(s.crystal.numbers)]
    return {
        "rank": rank,
        "formula": s.formula,
        "formula_html": formula_html(s.formula),
        "e_hull": _signed(s.e_hull),
        "symbol": group_text(s.spacegroup),
        "spacegroup": s.spacegroup,
        "atoms": len(s.crystal),
        "elements": [{"symbol": symbol, "colour": hex_colour(rgb)} for symbol, rgb, _ in elements],
        "badges": [b for b in badges if b],
        "cif": cif_path(rank, row),
    }


def _columns() -> list[dict[str, Any]]:
    doc = {f.name: f.metadata.get("doc", "") for t in (Relaxation, Stability) for f in fields(t)}
    table = [
        ("#", "rank by energy above the hull; last what lies implausibly far below it", True),
        ("formula", doc["formula"], False),
        ("space group", doc["spacegroup"], False),
        ("atoms", "atoms in the cell", True),
        (Markup("E<sub>hull</sub>"), f"{doc['e_hull']}, eV/atom", True),
        ("own hull", f"{doc['e_hull_self']}, eV/atom", True),
        ("formation", f"{doc['formation_energy']}, eV/atom", True),
        ("decomposes to", doc["decomposition"], False),
        ("unique", doc["unique"], False),
        ("novel", doc["novel"], False),
        ("converged", doc["converged"], False),
        ("force before", f"{doc['max_force_initial']}, eV/Å", True),
        ("after", f"{doc['max_force']}, eV/Å", True),
        ("residual", "relative residual of the reconstruction", True),
    ]
    return [{"head": head, "title": title, "numeric": numeric} for head, title, numeric in table]


def _table_row(rank: int, row: Row) -> dict[str, Any]:
    s, r = row.stability, row.relaxation

    def number(value: float | None, form: str) -> dict[str, Any]:
        if value is None or not math.isfinite(value):
            return {"text": "–", "sort": "", "kind": "n"}
        return {"text": format(value, form).replace("-", "−"), "sort": repr(float(value)), "kind": "n"}

    def flag(value: bool | None) -> dict[str, Any]:
        return {"text": _yes(value), "sort": None, "kind": "" if value else "no"}

    group = {"text": f"{group_text(s.spacegroup)} ({s.spacegroup})", "sort": s.spacegroup, "kind": ""}
    return {
        "unique": _yes(s.unique),
        "novel": _yes(s.novel),
        "converged": _yes(row.converged),
        "energy": repr(float(s.e_hull)),
        "cif": cif_path(rank, row),
        "cells": [
            {"text": rank, "sort": rank, "kind": "n"},
            {"text": formula_html(s.formula), "sort": None, "kind": ""},
            group,
            {"text": len(s.crystal), "sort": len(s.crystal), "kind": "n"},
            number(s.e_hull, "+.3f"),
            number(s.e_hull_self, "+.3f"),
            number(s.formation_energy, "+.3f"),
            {"text": s.decomposition, "sort": None, "kind": "text"},
            flag(s.unique),
            flag(s.novel),
            flag(row.converged),
            number(r.max_force_initial if r else None, ".2f"),
            number(r.max_force if r else None, ".3f"),
            number(row.residual, ".3f"),
        ],
    }


def _scenes(rows: list[Row]) -> dict[str, Any]:
    """Crystals and the elements in them, for the drawing script."""
    crystals, kinds = [], set()
    for row in rows:
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


def _distributions(data: RunData) -> list[Markup]:
    g, t = data.generated, data.training
    if g is None or not len(g.density):
        return []
    none = np.zeros(0)
    charts = [
        svg.comparison(g.density, none if t is None else t.density, "density, g/cm³"),
        svg.comparison(g.atoms, none if t is None else t.atoms, "atoms per cell", whole=True),
        svg.comparison(g.elements, none if t is None else t.elements, "elements per crystal", whole=True),
    ]
    return [c for c in charts if c]


def _training(data: RunData) -> list[Markup]:
    losses = {name: y for name, y in data.curve.items() if name.endswith("loss")}
    step = data.curve.get("step")
    if step is None or not losses:
        return []
    chart = svg.curves(step, losses, "optimiser step", "loss")
    return [chart] if chart else []


def _facts(data: RunData) -> list[tuple[str, str]]:
    attrs = data.attrs.get("stability.h5", {})
    host, packages = (_parsed(attrs.get(key)) for key in ("host", "packages"))
    facts = [
        ("run", data.config.name),
        ("seed", str(data.config.seed)),
        ("config digest", data.config.digest()),
        ("hpcgen", f"{attrs.get('hpcgen_version', '?')} {attrs.get('git', '')}".strip()),
        ("reference", f"content digest {reference(data).digest}" if reference(data).digest else ""),
        ("host", ", ".join(f"{k} {v}" for k, v in host.items())),
        ("packages", ", ".join(f"{k} {v}" for k, v in packages.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _file(name: str, attrs: dict[str, Any]) -> dict[str, str]:
    version = f"{attrs.get('hpcgen_version', '')} {attrs.get('git', '')}".strip()
    created = str(attrs.get("created_utc", "")).replace("T", " ").removesuffix("+00:00")
    digest = str(attrs.get("content_digest", ""))[:16]
    return {
        "name": name,
        "count": str(attrs.get("count", "")),
        "created": created,
        "digest": digest,
        "version": version,
    }


def _parsed(text: Any) -> dict[str, Any]:
    return json.loads(text) if text else {}


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−") if math.isfinite(value) else "–"


def _yes(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"
