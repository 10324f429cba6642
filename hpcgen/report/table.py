"""The table of all judged crystals: its columns, and a row for each crystal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from markupsafe import Markup, escape

from hpcgen.flow import Dynamics, Relaxation, Stability
from hpcgen.report.data import Row, RunData
from hpcgen.report.files import cif_path
from hpcgen.report.headline import group_text


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        head, title: what stands above it, and what it means.
        numeric: aligned right, sorted by value.
        cell: rank and row to a cell: text, value to sort by (None: by the text), style.
    """

    head: Markup | str
    title: str
    numeric: bool
    cell: Callable[[int, Row], dict[str, Any]]


def all_rows(data: RunData) -> list[Row]:
    """Ranked crystals, then those that only an earlier calculator judged."""
    return [*data.rows, *data.rest]


def columns(data: RunData) -> list[Column]:
    """Those that the run has something for."""
    doc = {f.name: f.metadata.get("doc", "") for t in (Relaxation, Stability) for f in fields(t)}
    e_hull = Markup("E<sub>hull</sub>")
    first, *others = data.calculators
    out = [
        Column("#", "rank by energy above the hull; last what lies implausibly far below it", True, _rank),
        Column("formula", doc["formula"], False, lambda _, r: text(formula_html(r.stability.formula))),
        Column("space group", doc["spacegroup"], False, _group),
        Column("atoms", "atoms in the cell", True, lambda _, r: number(len(r.stability.crystal), "d")),
        Column(
            Markup("{} {}").format(e_hull, first) if others else e_hull,
            f"{doc['e_hull']}, eV/atom, by {first}",
            True,
            lambda _, r: number(r.stability.e_hull if r.final else None, "+.3f"),
        ),
    ]
    for name in others:
        out.append(
            Column(Markup("{} {}").format(e_hull, name), f"{doc['e_hull']}, eV/atom, by {name}", True, _other(name))
        )
    out += [
        Column(
            "own hull", f"{doc['e_hull_self']}, eV/atom", True, lambda _, r: number(r.stability.e_hull_self, "+.3f")
        ),
        Column(
            "formation",
            f"{doc['formation_energy']}, eV/atom",
            True,
            lambda _, r: number(r.stability.formation_energy, "+.3f"),
        ),
        Column("decomposes to", doc["decomposition"], False, lambda _, r: text(r.stability.decomposition, "text")),
        Column("unique", doc["unique"], False, lambda _, r: flag(r.stability.unique)),
        Column("novel", doc["novel"], False, lambda _, r: flag(r.stability.novel)),
        Column("oxidation states", f"{doc['charge_balanced']}; {doc['oxidation_states']}", False, _charges),
        Column("converged", doc["converged"], False, lambda _, r: flag(r.converged)),
        *_dynamics(data),
        Column("force before", f"{doc['max_force_initial']}, eV/Å", True, _force("max_force_initial", ".2f")),
        Column("after", f"{doc['max_force']}, eV/Å", True, _force("max_force", ".3f")),
        Column("residual", "relative residual of the reconstruction", True, lambda _, r: number(r.residual, ".3f")),
    ]
    return out


def _dynamics(data: RunData) -> list[Column]:
    """Columns of `hpcgen phonons` and `hpcgen dynamics`, where they were run."""
    doc = {f.name: f.metadata.get("doc", "") for f in fields(Dynamics)}
    out = []
    if any(r.phonons for r in data.rows):
        title = "a mode lies below zero, so that the crystal is no minimum (phonons): lowest frequency, THz"
        out.append(Column("imaginary modes", title, True, _modes))
    if not any(r.dynamics for r in data.rows):
        return out
    return [
        *out,
        Column("stays a crystal", f"{doc['stays']} (molecular dynamics)", False, _stays),
        Column("mobile ion", doc["ion"], False, lambda _, r: text((r.dynamics.ion or "none") if r.dynamics else "–")),
        Column("conductivity", f"{doc['conductivity']}, S/cm", True, _conductivity),
    ]


def _modes(_: int, row: Row) -> dict[str, Any]:
    p = row.phonons
    if p is None:
        return number(None, "")
    words = f"{'yes' if p.imaginary else 'no'} ({signed(p.lowest_frequency, '.2f')})"
    return {"text": words, "sort": float(p.lowest_frequency), "kind": "n"}


def _stays(_: int, row: Row) -> dict[str, Any]:
    d = row.dynamics
    if d is None:
        return flag(None)
    top = f"{d.temperature.max():.0f}" if d.stays else f"{d.stays_up_to:.0f}"
    words = f"yes, {top} K" if d.stays else f"up to {top} K" if d.stays_up_to else "no"
    return {"text": words, "sort": float(d.stays_up_to), "kind": "" if d.stays else "no"}


def _conductivity(_: int, row: Row) -> dict[str, Any]:
    return number(row.dynamics.conductivity if row.dynamics else None, ".1e")


def table_row(rank: int, row: Row, chosen: list[Column], cards: set[int]) -> dict[str, Any]:
    """One row for the template. `cards`: ranks that have a card, which the formula links to."""
    s = row.stability
    return {
        "unique": yes(s.unique),
        "novel": yes(s.novel),
        "converged": yes(row.converged),
        "balanced": s.charge_balanced,
        "stays": yes(row.dynamics.stays if row.dynamics else None),
        "energy": repr(float(s.e_hull)),
        "cif": cif_path(rank, row),
        "card": f"c{rank}" if rank in cards else "",
        "cells": [c.cell(rank, row) for c in chosen],
    }


def formula_html(formula: str) -> Markup:
    """A formula with lowered numbers, escaped."""
    parts = re.split(r"(\d+(?:\.\d+)?)", formula)
    return Markup("").join(Markup(f"<sub>{escape(p)}</sub>") if i % 2 else escape(p) for i, p in enumerate(parts))


def states_html(states: str) -> Markup:
    """Oxidation states such as `Fe2+ O2-` with raised charges, escaped."""
    out = []
    for word in states.split():
        symbol, charge = re.fullmatch(r"([A-Za-z]*)(.*)", word, re.S).groups()  # type: ignore[union-attr]
        out.append(Markup("{}<sup>{}</sup>").format(symbol, charge.replace("-", "−")))
    return Markup(" ").join(out)


def number(value: float | None, form: str) -> dict[str, Any]:
    """A cell with a number, or a dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return {"text": "–", "sort": "", "kind": "n"}
    return {"text": signed(value, form), "sort": repr(value), "kind": "n"}


def signed(value: float, form: str = "+.3f") -> str:
    """A number as text with a real minus sign, and without the sign of a zero; a dash where it is not finite."""
    if not math.isfinite(value):
        return "–"
    out = format(value, form)
    if not out.strip("+-0."):
        out = out.lstrip("+-")
    return out.replace("-", "−")


def flag(value: bool | None) -> dict[str, Any]:
    """A cell with yes, no, or a dash."""
    return {"text": yes(value), "sort": None, "kind": "" if value else "no"}


def text(value: Markup | str, kind: str = "") -> dict[str, Any]:
    """A cell with words."""
    return {"text": value, "sort": None, "kind": kind}


def yes(value: bool | None) -> str:
    """`yes`, `no`, or a dash."""
    return "–" if value is None else "yes" if value else "no"


def _rank(rank: int, row: Row) -> dict[str, Any]:
    return {"text": rank if row.final else "–", "sort": rank, "kind": "n"}


def _group(_: int, row: Row) -> dict[str, Any]:
    s = row.stability
    return {"text": f"{group_text(s.spacegroup)} ({s.spacegroup})", "sort": s.spacegroup, "kind": ""}


def _charges(_: int, row: Row) -> dict[str, Any]:
    s = row.stability
    if s.charge_balanced == "yes":
        return text(states_html(s.oxidation_states))
    return text("none balance" if s.charge_balanced == "no" else "–", "no")


def _other(name: str) -> Callable[[int, Row], dict[str, Any]]:
    return lambda _, r: number(r.others[name].e_hull if name in r.others else None, "+.3f")


def _force(name: str, form: str) -> Callable[[int, Row], dict[str, Any]]:
    return lambda _, r: number(getattr(r.relaxation, name) if r.relaxation else None, form)
