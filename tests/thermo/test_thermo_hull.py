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
from hpcgen.thermo import Hulls, MissingElementError, ReferenceSet, from_formation_energies
from hpcgen.thermo.hull import decomposition_text
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


def test_real_formation_energies(materials_project) -> None:
    """The file lacks competitors, so its hull lies above the published one and no row may lie higher above it.

    Except 77 of its 25,985 rows, all with sulfur: some sulfates and the like carry the correction of a sulfide
    (-0.503 eV per S) in their formation energies and not in the published hull, so that the file contradicts itself.
    The formation energy comes back too, except where a row of an element lies below the elemental reference.
    """
    made, rows = materials_project
    energy = {e.entry_id: e.energy_per_atom for e in made.entries}
    hulls = Hulls(made)
    rng = np.random.default_rng(0)
    small = [r for r in rows if len(parse_formula(r["formula"])) <= 5]
    equal = 0
    above = []
    for i in rng.choice(len(small), 500, replace=False):
        row = small[i]
        verdict = hulls.judge(Composition(row["formula"]), energy[row["material_id"]])
        published = float(row["e_above_hull"])
        if verdict.e_hull > published + 1e-6:
            above.append(row)
        assert verdict.e_hull >= -1e-9, row  # every row is itself an entry
        assert verdict.formation_energy == pytest.approx(float(row["formation_energy_per_atom"]), abs=1e-3), row
        equal += abs(verdict.e_hull - published) < 1e-3
    assert all("S" in parse_formula(row["formula"]) for row in above), above
    assert len(above) <= 5
    assert equal > 250  # about 65 % of all rows


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
