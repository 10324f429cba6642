"""Oxidation states: those of textbooks, the same answer as pymatgen's search, and time that does not explode."""

from __future__ import annotations

import csv
import gzip
import os
import time
from pathlib import Path

import pytest
from pymatgen.core import Composition

from hpcgen.screen import oxidation_balance

TABLE = Path(os.environ.get("HPCGEN_DATA", "")) / "mp_formation_energies.csv.gz"


def numbers(formula: str) -> list[int]:
    return [element.Z for element, n in Composition(formula).items() for _ in range(int(n))]


@pytest.mark.parametrize(
    ("formula", "states"),
    [
        ("NaCl", "Na+ Cl-"),
        ("SrTiO3", "Sr2+ Ti4+ O2-"),
        ("LiFePO4", "Li+ Fe2+ P5+ O2-"),
        ("Fe3O4", "Fe2+ Fe3+ O2-"),
        ("Mn3O4", "Mn2+ Mn3+ O2-"),
        ("Mn2O3", "Mn3+ O2-"),
        ("LiMn2O4", "Li+ Mn3+ Mn4+ O2-"),
        ("FeS2", "Fe2+ S-"),
        ("Na2O2", "Na+ O-"),
        ("NaBH4", "Na+ B3+ H-"),
    ],
)
def test_states_of_textbooks(formula: str, states: str) -> None:
    assert oxidation_balance(numbers(formula)) == ("yes", states)
    assert oxidation_balance(numbers(formula) * 3) == ("yes", states)


@pytest.mark.parametrize(
    ("formula", "answer"),
    [("BaTiO4", "no"), ("Na3Cl", "no"), ("MgSi", "no"), ("C", "unknown"), ("SmCo5", "unknown"), ("HeO", "unknown")],
)
def test_none_and_unknown(formula: str, answer: str) -> None:
    assert oxidation_balance(numbers(formula)) == (answer, "")


@pytest.mark.skipif(not TABLE.is_file(), reason="needs the development data")
def test_as_pymatgen_decides() -> None:
    with gzip.open(TABLE, "rt") as stream:
        formulas = [row["formula"] for row in csv.DictReader(stream)][::100]
    compared = 0
    for formula in formulas:
        reduced = Composition(formula).reduced_composition
        found = oxidation_balance(numbers(reduced.formula))
        if reduced.num_atoms > 14 or found.balanced == "unknown" or " O-" in found.states:
            continue
        compared += 1
        assert (found.balanced == "yes") == bool(reduced.oxi_state_guesses(max_sites=-1)), formula
    assert compared > 100


def test_many_atoms_take_no_time() -> None:
    oxidation_balance([11, 17])  # the tables
    start = time.process_time()
    assert oxidation_balance([25] * 41 + [7] * 37 + [8] * 83 + [16] * 13).balanced == "yes"
    assert time.process_time() - start < 1
