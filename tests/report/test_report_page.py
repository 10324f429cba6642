from __future__ import annotations

import csv
import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from synthetic_run import HOSTILE, known_crystals, make_run  # type: ignore[import-not-found]

from hpcgen import report, store
from hpcgen.crystal import to_structure
from hpcgen.flow import DftRelaxation, Relaxation, Stability
from hpcgen.report.data import collect
from hpcgen.report.distribution import Distribution
from hpcgen.report.files import cif_name, columns
from hpcgen.report.page import render
from hpcgen.report.relaxation_svg import above_the_end, new_runs, relaxation_chart
from hpcgen.report.table import formula_html, states_html


class Page(HTMLParser):
    """Every tag with its attributes, the text by element id, and whether tags close as they opened."""

    VOID = frozenset({"meta", "link", "input", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(run folder, report folder, configuration) of a complete run."""
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder)
    report.build(folder, config, folder / "report")
    return folder, folder / "report", config


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a run whose formula and failure message try to break out."""
    folder = tmp_path_factory.mktemp("hostile")
    config = make_run(folder, hostile=True)
    report.build(folder, config, folder / "report")
    return folder / "report"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_file_is_there(built):
    _, out, _ = built
    names = {p.name for p in out.iterdir()}
    assert names == {
        "index.html",
        "stability.csv",
        "survivors",
        "report.json",
        "funnel.png",
        "crystals.png",
        "overview.png",
    }
    for picture in ("funnel.png", "crystals.png", "overview.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_the_page_asks_for_nothing(built):
    _, out, _ = built
    text = read(out / "index.html")
    page = Page(text)
    assert page.open == []
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            target = attrs.get(name)
            if target is not None:
                assert target.startswith(("#", "data:")) or (out / target).is_file(), (tag, target)
        assert tag not in ("iframe", "object", "embed", "base")
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"@import|url\(", text)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|sendBeacon)\b", text)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_table_holds_every_crystal_most_stable_first(built):
    folder, out, _ = built
    page = Page(read(out / "index.html"))
    shown = [float(a["data-energy"]) for t, a in page.tags if t == "tr" and "data-energy" in a]
    with store.open(folder / "stability.h5", Stability) as f:
        assert shown == sorted(f.column("e_hull").tolist())
    assert len(shown) == len(known_crystals())


def test_csv_is_stability_row_by_row(built):
    folder, out, _ = built
    with (out / "stability.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    with store.open(folder / "stability.h5", Stability) as f:
        stored = {s.id: s for s in f}
    assert list(lines[0]) == columns()
    assert {line["id"] for line in lines} == set(stored)
    assert len(lines) == len(stored)
    for line in lines:
        s = stored[line["id"]]
        assert float(line["e_hull"]) == s.e_hull
        assert line["novel"] == str(bool(s.novel))
        assert int(line["atoms"]) == len(s.crystal)
        assert line["decomposition"] == s.decomposition
        assert float(line["max_force"]) == 0.04
    assert [line["converged"] for line in lines].count("False") == 1
    energies = [float(line["e_hull"]) for line in lines]
    assert energies == sorted(energies)


def test_cifs_parse_back_to_the_same_crystals(built):
    folder, out, _ = built
    with store.open(folder / "stability.h5", Stability) as f:
        stored = {s.id: s.crystal for s in f}
    cifs = sorted((out / "survivors").iterdir())
    assert len(cifs) == len(stored)
    for cif in cifs:
        crystal = stored[cif.stem.rsplit("-", 1)[1]]
        parsed = Structure.from_file(cif)
        np.testing.assert_allclose(parsed.lattice.parameters, crystal.parameters, atol=1e-5)
        assert [s.specie.Z for s in parsed] == crystal.numbers.tolist()
        np.testing.assert_allclose(parsed.distance_matrix, to_structure(crystal).distance_matrix, atol=1e-4)


def test_hostile_text_stays_text(hostile, built):
    text = read(hostile / "index.html")
    page = Page(text)
    assert [t for t, _ in page.tags].count("script") == [t for t, _ in Page(read(built[1] / "index.html")).tags].count(
        "script"
    )
    assert "img" not in [t for t, _ in page.tags]
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert HOSTILE not in text
    assert page.text.count('<script>alert("x")</script>') > 2  # shown as text: failure, formula, decomposition
    inside = {p.resolve().parent for p in (hostile / "survivors").iterdir()}
    assert inside == {(hostile / "survivors").resolve()}
    assert json.loads(read(hostile / "report.json"))["losses"][0]["examples"][0] == f"row:99: {HOSTILE}"


def test_embedded_scenes_are_json(hostile):
    match = re.search(r'<script type="application/json" id="scenes">(.*?)</script>', read(hostile / "index.html"), re.S)
    scenes = json.loads(match.group(1))
    assert len(scenes["crystals"]) == len(known_crystals())
    for crystal in scenes["crystals"]:
        assert len(crystal["edges"]) == 12
        assert all(str(atom[3]) in scenes["elements"] for atom in crystal["atoms"])


@pytest.mark.parametrize(("formula", "identity"), [("../../etc", "a/b"), ("", ""), ("Na\0Cl", ".."), ("x" * 300, "é")])
def test_cif_names_are_safe(formula, identity):
    assert re.fullmatch(r"0007(-[A-Za-z0-9]{1,40}){0,2}\.cif", cif_name(7, formula, identity))


def test_formula_subscripts():
    assert formula_html("SrTiO3") == "SrTiO<sub>3</sub>"
    assert formula_html("<b>2'") == "&lt;b&gt;<sub>2</sub>&#39;"


def test_funnel_and_warning_are_on_the_page(built):
    text = " ".join(Page(read(built[1] / "index.html")).text.split())
    assert "−7 impossible-cell" in text
    assert "NOT Materials Project" in text
    assert "elements and training structures by chgnet 0.3.0" in text
    assert "broken-cif" in text


def test_cards_draw_the_relaxation(built):
    folder, out, config = built
    data = collect(folder, config)
    text = read(out / "index.html")
    assert text.count("Relaxation by chgnet 0.3.0: energy above the end") == len(known_crystals()) - 1
    row = next(r for r in data.rows if r.stability.formula == "SrTiO3")
    above = above_the_end(row.relaxation)
    assert (above[0], above[-1]) == (pytest.approx(0.3, abs=1e-5), 0)
    chart = relaxation_chart(row.relaxations, 0.05)
    energy, force = (
        np.array([[float(v) for v in pair.split(",")] for pair in points.split()])
        for points in re.findall(r'<polyline class="line line-0" points="([^"]*)"', chart)
    )
    assert len(energy) == len(force) == 13
    assert (np.diff(energy[:, 1]) >= 0).all()  # downhill is downwards on the page
    np.testing.assert_allclose(
        np.diff(force[:, 1]), np.diff(force[:, 1])[0], atol=0.11
    )  # a straight line in the logarithm
    first = next(r for r in data.rows if not len(r.relaxation.step_energy))
    assert relaxation_chart(first.relaxations, 0.05) == ""


def test_unconverged_and_second_relaxations_are_drawn_as_they_are(built):
    data = collect(built[0], built[2])
    base = next(r for r in data.rows if len(r.relaxation.step_energy)).relaxation
    energies = np.array([-4.0, -5.0, -4.5], np.float32)
    forces = np.array([1.0, 0.0, 0.1], np.float32)  # zero by symmetry, which has no logarithm
    rough = replace(base, converged=False, step_energy=energies, step_max_force=forces)
    assert above_the_end(rough).tolist() == [1.0, 0.0, 0.5]
    names = [f.name for f in fields(Relaxation)]
    vasp = DftRelaxation(
        **{name: getattr(rough, name) for name in names},
        **{
            "relaxation_id": "",
            "run_type": "GGA",
            "hubbards": "{}",
            "potcars": "[]",
            "code": "6",
            "magnetization": 0.0,
        },
        **{"corrections": "{}", "attempts": 1, "folder": "", "step_run": np.array([1, 1, 2], np.uint8)},
    )
    assert new_runs(vasp) == [2]
    chart = relaxation_chart({"VASP": vasp, "CHGNet": base}, 0.05)
    assert chart.count("polyline") == 4
    assert chart.count('class="run') == 1
    assert "nan" not in chart
    assert "inf" not in chart


def test_oxidation_states_are_a_column_and_a_sentence(built):
    _, out, _ = built
    text = read(out / "index.html")
    assert "Oxidation states balance: Sr<sup>2+</sup> Ti<sup>4+</sup> O<sup>2−</sup>." in text
    with (out / "stability.csv").open(newline="", encoding="utf-8") as stream:
        lines = {line["formula"]: line for line in csv.DictReader(stream)}
    assert (lines["SrTiO3"]["charge_balanced"], lines["SrTiO3"]["oxidation_states"]) == ("yes", "Sr2+ Ti4+ O2-")
    assert (lines["Cu"]["charge_balanced"], lines["Cu"]["oxidation_states"]) == ("unknown", "")
    rows = [a["data-balanced"] for t, a in Page(text).tags if t == "tr" and "data-energy" in a]
    assert rows.count("yes") == sum(line["charge_balanced"] == "yes" for line in lines.values())
    assert states_html('<b>2+ "') == "<sup>&lt;b&gt;2+</sup> <sup>&#34;</sup>"


def test_no_survivors_at_all(tmp_path):
    config = make_run(tmp_path, relaxed=0)
    assert report.build(tmp_path, config, tmp_path / "report") == 0
    text = read(tmp_path / "report/index.html")
    assert Page(text).open == []
    assert "No crystal reached the hull" in text
    assert "13 duplicate" in " ".join(Page(text).text.split())
    assert read(tmp_path / "report/stability.csv").strip() == ",".join(columns())
    assert list((tmp_path / "report/survivors").iterdir()) == []
    assert len(report.summary(tmp_path)) == 5


def test_only_the_first_survivors_get_a_picture(tmp_path):
    config = make_run(tmp_path, overrides=["report.survivors=3", "report.title=My <run>"])
    text = render(collect(tmp_path, config))
    page = Page(text)
    assert sum(t == "canvas" for t, _ in page.tags) == 3
    assert "<title>My &lt;run&gt;</title>" in text


def test_distribution_matches_single_crystals():
    from hpcgen.crystal import CrystalBatch

    crystals = known_crystals()
    d = Distribution.of(CrystalBatch.of(crystals))
    np.testing.assert_allclose(d.density, [c.density for c in crystals])
    assert d.atoms.tolist() == [len(c) for c in crystals]
    assert d.elements.tolist() == [len(c.elements) for c in crystals]
    assert len(Distribution.of(CrystalBatch.of([])).density) == 0
