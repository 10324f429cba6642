"""Phase diagrams against a linear programme, and what is drawn of them."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers
from scipy.optimize import linprog
from synthetic_run import make_run  # type: ignore[import-not-found]

from hpcgen import config, flow, provenance, store
from hpcgen.crystal import Crystal, from_atoms
from hpcgen.report.data import collect
from hpcgen.report.phase_svg import competing, phase_diagram
from hpcgen.report.phases import Competitors

ELEMENTS = ("Cl", "K", "Na", "O", "Ti")
PHASES = {  # formation energies, eV/atom; not nature's
    "Na1 Cl1": -2.1, "K1 Cl1": -2.2, "Na1 K1 Cl2": -2.0, "Na2 O1": -1.4, "K2 O1": -1.2, "Ti1 O2": -3.2, "Ti2 O2": -2.9,
    "Na2 Ti1 O3": -2.7, "Na4 Ti1 O4": -2.2, "Na1 O1": -0.9, "Na3 Cl3": -2.05, "Ti1 Cl4": -1.6, "K2 Ti1 O3": -2.75,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """One record of stability.h5, to be changed."""
    folder = tmp_path_factory.mktemp("run")
    return collect(folder, make_run(folder)).rows[0].stability


@pytest.fixture(scope="module")
def reference(tmp_path_factory, base):
    """reference.h5 with the phases above and elements at -1, -2, ... eV/atom."""
    path = tmp_path_factory.mktemp("reference") / "reference.h5"
    level = {e: -1.0 - i for i, e in enumerate(ELEMENTS)}
    rows = [(f"{e}1", level[e], True) for e in ELEMENTS]
    for formula, formation in PHASES.items():
        counts = {e: float(n) for e, n in re.findall(r"([A-Z][a-z]?)(\d+)", formula)}
        total = sum(counts.values())
        rows.append((formula, formation + sum(n * level[e] for e, n in counts.items()) / total, False))
    entries = [
        flow.ReferenceEntry(
            id=flow.make_id("x", "reference", i), entry_id=f"e{i}", formula=f, energy_per_atom=e, element=el
        )
        for i, (f, e, el) in enumerate(rows)
    ]
    store.write(path, flow.ReferenceEntry, entries, header=provenance.header(config.loads("{name: x}"), {}))
    return path, rows


def record(base, formula: str, energy: float, number: int = 0):
    """A crystal of that formula; its geometry does not matter here."""
    counts = {e: int(n) for e, n in re.findall(r"([A-Z][a-z]?)(\d+)", formula)}
    numbers = np.array([atomic_numbers[e] for e, n in counts.items() for _ in range(n)])
    frac = np.random.default_rng(0).random((len(numbers), 3))
    crystal = Crystal(np.eye(3) * 9, frac, numbers)
    return replace(
        base, id=flow.make_id("x", "hull", number), crystal=crystal, formula=crystal.formula, energy_per_atom=energy
    )


def lowest_mixture(rows, formula: str) -> float:
    """Energy per atom of the best mixture of phases of the composition, by linear programming."""

    def fractions(text: str):
        counts = {e: float(n) for e, n in re.findall(r"([A-Z][a-z]?)(\d+)", text)}
        return np.array([counts.get(e, 0.0) for e in ELEMENTS]) / sum(counts.values())

    matrix = np.array([fractions(f) for f, _, _ in rows]).T
    return linprog([e for _, e, _ in rows], A_eq=matrix, b_eq=fractions(formula), method="highs").fun


@pytest.mark.parametrize(
    "formula",
    ["Na2 Cl2", "Na3 Ti1 O4", "Na1 O3", "K1 Na3 Cl4", "Na1 K1 Ti1 O3", "Na1 K1 Ti2 O4 Cl2", "Ti3", "K1 Ti1 Cl5"],
)
def test_landscape_agrees_with_a_linear_programme(base, reference, formula):
    path, rows = reference
    energy = lowest_mixture(rows, formula) + 0.07
    s = record(base, formula, energy)
    land = Competitors(path, [s], [s]).landscape(s)
    assert land.this.above == pytest.approx(0.07, abs=1e-9)
    assert sum(x for _, x in land.products) == pytest.approx(1)
    mixed = sum(x * p.formation_energy for p, x in land.products)
    assert land.this.formation_energy - mixed == pytest.approx(0.07, abs=1e-9)
    for p in land.others:
        assert p.above > 0
    assert len({p.formula for p in (*land.stable, *land.others)}) == len(land.stable) + len(land.others)
    assert competing(land)[0]["share"].endswith("%")


def test_only_the_system_and_the_runs_own_crystals_of_it(base, reference):
    path, _ = reference
    crystals = [record(base, f, -3.0, i) for i, f in enumerate(["Na2 O1", "Na1 Cl1", "Na3 O3", "Ti1 O1", "Na2 Ti1 O3"])]
    land = Competitors(path, crystals, crystals[:1]).landscape(crystals[0])
    assert land.elements == ("Na", "O")
    assert [p.formula for p in land.own] == [crystals[2].formula]
    assert {p.formula for p in land.stable} | {p.formula for p in land.others} == {"Na", "O2", "Na2O", "Na2O2"}


def test_an_element_that_the_reference_lacks_gives_no_diagram(base, reference):
    s = record(base, "Na1 F1", -3.0)
    assert Competitors(reference[0], [s], [s]).landscape(s) is None
    wide = replace(s, crystal=from_atoms(bulk("Cu") * (1, 1, 6)))
    wide = replace(wide, crystal=Crystal(wide.crystal.lattice, wide.crystal.frac, np.arange(3, 9)))
    assert Competitors(reference[0], [wide], [wide]).landscape(wide) is None


@pytest.mark.parametrize(("formula", "marks"), [("Na1 O3", 2), ("Na3 Ti1 O4", 3)])
def test_drawing_shows_every_phase_inside_the_picture(base, reference, formula, marks):
    path, rows = reference
    s = record(base, formula, lowest_mixture(rows, formula) + 0.05)
    land = Competitors(path, [s, record(base, formula, s.energy_per_atom + 0.1, 1)], [s]).landscape(s)
    svg = ElementTree.fromstring(str(phase_diagram(land)))
    kinds = [e.get("class") for e in svg.iter()]
    assert kinds.count("p-stable") == len(land.stable)
    assert kinds.count("p-this") == 1
    assert kinds.count("tie") == len(land.ties)
    titles = [t.text for t in svg.iter() if t.tag == "title"]
    assert any(t.startswith(f"{land.this.formula} (this crystal): +0.050") for t in titles)
    _, _, width, height = map(float, svg.get("viewBox").split())
    for circle in svg.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
    corners = [t.text for t in svg.iter("text") if t.get("class") == "label"]
    assert corners == list(land.elements)
    assert len(corners) == marks


def test_ties_of_three_elements_cover_the_triangle_without_crossing(base, reference):
    path, rows = reference
    s = record(base, "Na3 Ti1 O4", lowest_mixture(rows, "Na3 Ti1 O4"))
    land = Competitors(path, [s], [s]).landscape(s)
    corners = np.array([[0, 0], [1, 0], [0.5, 1]])
    at = [np.array(p.fractions) @ corners for p in land.stable]

    def side(a, b, c):
        value = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        return 0 if abs(value) < 1e-9 else np.sign(value)

    for i, j in land.ties:
        for k, m in land.ties:
            if len({i, j, k, m}) == 4:
                a, b, c, d = at[i], at[j], at[k], at[m]
                assert side(a, b, c) * side(a, b, d) >= 0 or side(c, d, a) * side(c, d, b) >= 0


def test_four_elements_are_text_only(base, reference):
    path, rows = reference
    formula = "Na1 K1 Ti1 O3"
    s = record(base, formula, lowest_mixture(rows, formula) + 0.05)
    land = Competitors(path, [s], [s]).landscape(s)
    assert phase_diagram(land) == ""
    assert {row["formula"] for row in competing(land)} == {p.formula for p, _ in land.products}
