"""The page: everything in one HTML file, which asks the network for nothing."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from hpcgen.report import cards, funnel, published, svg
from hpcgen.report.data import RunData
from hpcgen.report.distribution import charts
from hpcgen.report.files import TABLE_ROWS
from hpcgen.report.headline import best_row, lines, percent, reference, stable_limit, thresholds
from hpcgen.report.phases import Competitors
from hpcgen.report.table import all_rows, columns, signed, table_row

FIRST_CARDS = 12
"""Crystals shown before `Show all` is pressed."""


def render(data: RunData, competitors: Competitors | None = None) -> str:
    """The whole page. All text from files is escaped by the template engine.

    Args:
        data: what to show.
        competitors: the reference set, for phase diagrams; None without reference.h5.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = files("hpcgen.report")
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    shown = cards.chosen(data)
    shown_cards = cards.cards(data, shown, competitors)
    steps = funnel.chain(data)
    widest = max([data.generated_count, *(s.left for s in steps), 1])
    hull = data.attrs.get("stability.h5", {})
    table, rows = columns(data), all_rows(data)
    ranks = {rank for rank, _ in shown}
    return template.render(
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        js=Markup((folder / "page.js").read_text(encoding="utf-8")),
        title=data.config.report.title or f"Generated crystals: {data.config.name}",
        created=str(hull.get("created_utc", "")).replace("T", " ").removesuffix("+00:00"),
        summary=lines(data),
        tiles=_tiles(data),
        reference=reference(data),
        funnel=[{**s.__dict__, "width": 100 * s.left / widest} for s in steps],
        side=funnel.side(data),
        thresholds=thresholds(data),
        percent=percent,
        rows_total=len(rows),
        judged=len(data.rows),
        converged=sum(r.converged is True for r in data.rows),
        generated=data.generated_count,
        energy_chart=svg.energy_histogram([r.stability.e_hull for r in data.rows], data.config.hull.thresholds),
        published=published.comparison(data),
        cards=shown_cards,
        curves=any(card["curve"] for card in shown_cards),
        first_cards=FIRST_CARDS,
        columns=table,
        flags=[(name, name) for name in ("unique", "novel", "converged")]
        + ([("balanced", "charges balance")] if any(r.stability.charge_balanced == "yes" for r in rows) else [])
        + ([("stays", "stays a crystal")] if any(r.dynamics for r in data.rows) else []),
        rows=[table_row(rank, row, table, ranks) for rank, row in enumerate(rows[:TABLE_ROWS], 1)],
        distributions=charts(data.generated, data.training),
        curve=_training(data),
        losses=data.losses,
        facts=_facts(data),
        timings=data.timings,
        files=[_file(name, attrs) for name, attrs in data.attrs.items()],
        config_text=data.config.text(),
        scenes=cards.scenes(shown),
    )


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
        tiles.append({"value": signed(best.stability.e_hull), "label": label + (" novel one" if novel else " one")})
    return tiles


def _training(data: RunData) -> list[tuple[str, Markup]]:
    """A name and a chart of the losses for each part of the generator."""
    out = []
    for part, curve in data.curves.items():
        losses = {name: values for name, values in curve.items() if name in ("train_loss", "validation_loss")}
        chart = svg.curves(curve["step"], losses, "optimiser step", "loss")
        out += [(part, chart)] if chart else []
    return out


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
