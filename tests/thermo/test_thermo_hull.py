"""Hulls against an independent linear programme, and on the real formation energies of Materials Project."""

from __future__ import annotations

import csv
import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition
from scipy.optimize import linprog

from hpcgen.flow import ReferenceEntry, make_id
from hpcgen.thermo import Hulls, MissingElementError, ReferenceSet, from_formation_energies, hull
from hpcgen.thermo.check import against_published
from hpcgen.thermo.hull import decomposition_text
from hpcgen.thermo.programme import Programme
from hpcgen.thermo.reference import parse_formula


def reference(phases: dict[str, float]) -> ReferenceSet:
    """Of formula -> energy per atom."""
    entries = tuple(
        ReferenceEntry(make_id("t", "r", i), f"{formula}#{i}", formula, energy, False)
        for i, (formula, energy) in enumerate(phases.items())
    )
    return ReferenceSet(entries, "s", "t", "", "by hand")


@lru_cache(maxsize=64)
def competitors(reference: ReferenceSet, system: tuple[str, ...]) -> list[tuple[dict[str, float], float]]:
    """(atomic fractions, energy per atom) of the entries inside a chemical system."""
    parsed = ((parse_formula(e.formula), e.energy_per_atom) for e in reference.entries)
    return [(x, energy) for x, energy in parsed if set(x) <= set(system)]


def hull_energy_by_programme(reference: ReferenceSet, formula: str) -> float:
    """Lowest energy per atom of a mixture of entries with the composition of `formula`: HiGHS, no hull anywhere."""
    target = parse_formula(formula)
    symbols = sorted(target)
    inside = competitors(reference, tuple(symbols))
    a = np.array([[x.get(s, 0.0) for x, _ in inside] for s in symbols])
    energy = np.array([e for _, e in inside])
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    result = linprog(
        energy, A_eq=a, b_eq=[target[s] for s in symbols], bounds=(0, None), method="highs", options=options
    )
    assert result.success
    return float(result.fun)


LI_O = {"Li": -1.9, "O2": -4.9, "Li2O": -4.9, "Li2O2": -4.8, "LiO3": -4.0, "Li2": -1.7}


def test_by_hand() -> None:
    """Li2O at -2 eV/atom of formation; a phase Li3 O1 between Li and Li2O: 1/4 Li + 3/4 Li2O."""
    hulls = Hulls(reference(LI_O))
    verdict = hulls.judge(Composition("Li3O"), -4.0)
    hull = 0.25 * -1.9 + 0.75 * -4.9
    assert verdict.e_hull == pytest.approx(-4.0 - hull, abs=1e-12)
    assert verdict.e_hull_self == pytest.approx(-4.0 - hull, abs=1e-12)
    assert verdict.formation_energy == pytest.approx(-4.0 - (0.75 * -1.9 + 0.25 * -4.9), abs=1e-12)
    assert verdict.decomposition == "0.75 Li2O + 0.25 Li"
    assert verdict.reference_entries == 6


def test_new_stable_phase_is_negative_and_competes_among_its_own() -> None:
    own = [(Composition("Li3O"), -5.0), (Composition("Li3O"), -4.9), (Composition("Li6O2"), -5.0)]
    hulls = Hulls(reference(LI_O), own)
    hull = 0.25 * -1.9 + 0.75 * -4.9
    first, second, third = (hulls.judge(c, e) for c, e in own)
    assert first.e_hull == pytest.approx(-5.0 - hull, abs=1e-12)
    assert first.e_hull < -0.5
    assert first.e_hull_self == 0
    assert second.e_hull < 0
    assert second.e_hull_self == pytest.approx(0.1, abs=1e-12)
    assert third.e_hull == pytest.approx(first.e_hull, abs=1e-12)
    assert third.e_hull_self == pytest.approx(0, abs=1e-12)


def test_own_candidates_of_other_systems_do_not_compete() -> None:
    alone = Hulls(reference(LI_O)).judge(Composition("Li3O"), -4.0)
    crowd = Hulls(reference(LI_O), [(Composition("LiF"), -99.0), (Composition("Li2OF"), -99.0)])
    assert crowd.judge(Composition("Li3O"), -4.0) == alone


def test_missing_element_is_named() -> None:
    hulls = Hulls(reference({**LI_O, "NaCl": -3.0}), [(Composition("NaLi"), -3.0)])
    with pytest.raises(MissingElementError, match="Na"):
        hulls.judge(Composition("NaLi"), -3.0)
    assert hulls.judge(Composition("Li2O"), -4.9).e_hull == pytest.approx(0, abs=1e-12)


def test_one_element() -> None:
    verdict = Hulls(reference(LI_O)).judge(Composition("Li4"), -1.95)
    assert verdict.e_hull == pytest.approx(-0.05, abs=1e-12)
    assert verdict.formation_energy == pytest.approx(-0.05, abs=1e-12)
    assert verdict.decomposition == "1.00 Li"


def test_competitors_are_named() -> None:
    verdict = Hulls(reference(LI_O)).judge(Composition("Li3O"), -9.0)
    assert verdict.competitors == "Li2O#2 + Li#0"
    assert verdict.new_stable
    assert not Hulls(reference(LI_O)).judge(Composition("Li2O"), -4.9).new_stable


def test_order_of_the_entries_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    phases = {f"Li{a}O{b}F{c}": float(-2 - rng.exponential()) for a, b, c in rng.integers(1, 6, (30, 3))}
    phases |= {"Li": -1.9, "O2": -4.9, "F2": -1.5, **LI_O}
    shuffled = dict(sorted(phases.items()))
    for text in ("Li3OF", "LiO", "Li7O2F5"):
        first = Hulls(reference(phases)).judge(Composition(text), -3.0)
        second = Hulls(reference(shuffled)).judge(Composition(text), -3.0)
        assert first.e_hull == pytest.approx(second.e_hull, abs=1e-12)
        assert first.decomposition == second.decomposition


def test_highs_takes_over_where_the_simplex_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    by_simplex = Hulls(reference(LI_O)).judge(Composition("Li3O"), -4.0)
    monkeypatch.setattr(hull, "ITERATIONS", 1)  # the elements alone: not proven to be the lowest
    by_highs = Hulls(reference(LI_O)).judge(Composition("Li3O"), -4.0)
    assert by_highs.e_hull == pytest.approx(by_simplex.e_hull, abs=1e-10)
    assert (by_highs.decomposition, by_highs.competitors) == (by_simplex.decomposition, by_simplex.competitors)


def test_nine_elements_with_ties() -> None:
    """Degenerate: many mixtures of the same energy, on whose vertices a simplex without Bland's rule may cycle."""
    symbols = ["Li", "Na", "K", "Rb", "Cs", "O", "S", "Se", "Te"]
    phases = dict.fromkeys(symbols, -1.0)
    for metal in symbols[:5]:
        for anion in symbols[5:]:
            phases[f"{metal}{anion}"] = phases[f"{metal}2{anion}"] = -2.0
    known = reference(phases)
    text = "".join(symbols)
    expected = -2.5 - Programme(known).hull_energy(dict.fromkeys(symbols, 1 / 9))
    assert Hulls(known).judge(Composition(text), -2.5).e_hull == pytest.approx(expected, abs=1e-10)


def test_decomposition_text() -> None:
    assert decomposition_text([("TiO2", 0.4), ("Li2O", 0.6)]) == "0.60 Li2O + 0.40 TiO2"
    assert decomposition_text([("B", 0.5), ("A", 0.5 + 1e-12)]) == "0.50 A + 0.50 B"


@pytest.mark.parametrize("n_elements", [2, 3, 4, 5])
def test_random_hulls_equal_the_linear_programme(n_elements: int) -> None:
    rng = np.random.default_rng(n_elements)
    symbols = ["Li", "O", "Ti", "Fe", "S"][:n_elements]
    phases = dict.fromkeys(symbols, -2.0)

    def formula() -> str:
        counts = rng.integers(0, 6, size=n_elements)
        counts[rng.integers(n_elements)] += 1
        return " ".join(f"{s}{c}" for s, c in zip(symbols, counts, strict=True) if c)

    for _ in range(60):
        phases[formula()] = float(-2 - rng.exponential())
    known = reference(phases)
    hulls = Hulls(known)
    for _ in range(40):
        text, energy = formula(), float(-3 + rng.normal())
        verdict = hulls.judge(Composition(text), energy)
        assert verdict.e_hull == pytest.approx(energy - hull_energy_by_programme(known, text), abs=1e-8)


@pytest.fixture(scope="module")
def materials_project(data_folder: Path) -> tuple[ReferenceSet, list[dict[str, str]]]:
    table = data_folder / "mp_formation_energies.csv.gz"
    elements = data_folder / "mp_elemental_reference_entries_2023-02-07.json.gz"
    made, failures, entered = from_formation_energies(table, elements, "test")
    assert failures == []
    with gzip.open(table, "rt") as f:
        rows = list(csv.DictReader(f))
    assert entered == len(made.entries) == len(rows) + 89
    return made, rows


def test_every_row_lies_at_most_as_high_as_published(materials_project) -> None:
    """The file lacks competitors, so no row may lie higher above its hull than published: so it is in each data set.

    Together they contradict each other in 77 rows, all of MPTS-52 and all with sulfur that is no sulfide: MP-20 is of
    an older version of the database, which gave the compounds of oxidised sulfur the correction of a sulfide too.
    """
    made, rows = materials_project
    published = {r["material_id"]: float(r["e_above_hull"]) for r in rows}
    dataset = {r["material_id"]: r["dataset"] for r in rows}
    formula = {r["material_id"]: r["formula"] for r in rows}
    together = against_published(made, published)
    assert (together.rows, together.above) == (25985, 77)
    assert together.equal > 0.6 * together.rows
    assert all(dataset[name] == "mpts_52" and "S" in parse_formula(formula[name]) for name in together.examples)
    for name in ("mp_20_biternary", "mpts_52"):
        entries = tuple(e for e in made.entries if e.element or dataset.get(e.entry_id) == name)
        alone = against_published(ReferenceSet(entries, made.scale, made.thermo_type, made.date, name), published)
        assert alone.rows == sum(d == name for d in dataset.values())
        assert alone.above == 0
        assert "none higher" in str(alone)


def test_the_contradiction_is_the_sulfide_correction(materials_project) -> None:
    """Two HgSO4 of the two versions: the published hull of one and the energy of the other differ by 0.503 eV per S."""
    _, rows = materials_project
    row = {r["material_id"]: r for r in rows}
    hull_of_new = float(row["mp-1200662"]["formation_energy_per_atom"]) - float(row["mp-1200662"]["e_above_hull"])
    old = float(row["mp-3228"]["formation_energy_per_atom"])
    assert float(row["mp-3228"]["e_above_hull"]) == 0
    assert (hull_of_new - old) * 6 == pytest.approx(0.503, abs=1e-4)


def test_hull_members_are_at_zero(materials_project) -> None:
    """Whatever is among its own competitors is on the hull, at exactly zero; and whatever is at zero is."""
    made, rows = materials_project
    energy = {e.entry_id: e.energy_per_atom for e in made.entries}
    hulls = Hulls(made)
    members = 0
    for row in rows[::7]:
        verdict = hulls.judge(Composition(row["formula"]), energy[row["material_id"]])
        assert verdict.e_hull >= 0
        member = row["material_id"] in verdict.competitors.split(" + ")
        assert not member or verdict.e_hull == 0, row
        assert not verdict.new_stable
        members += member
    assert members > 500


@pytest.mark.parametrize("system", [("Li", "O", "Ti"), ("Fe", "Li", "O", "P"), ("Al", "Mg"), ("C",)])
def test_real_hull_members_are_at_zero_and_equal_the_programme(materials_project, system: tuple[str, ...]) -> None:
    made, _ = materials_project
    hulls = Hulls(made)
    diagram = hulls.diagram(system)
    assert len(diagram.stable_entries) >= len(system)
    for entry in diagram.stable_entries:
        verdict = hulls.judge(entry.composition, entry.energy_per_atom)
        assert verdict.e_hull == pytest.approx(0, abs=1e-10)
        assert verdict.e_hull_self == pytest.approx(0, abs=1e-10)
    inside = [e for e in made.entries if set(parse_formula(e.formula)) <= set(system)]
    assert len(hulls.entries(system)) == len(inside)
    for e in inside:
        verdict = hulls.judge(Composition(e.formula), e.energy_per_atom)
        expected = e.energy_per_atom - hull_energy_by_programme(made, e.formula)
        assert verdict.e_hull == pytest.approx(expected, abs=1e-8), e.formula
