from __future__ import annotations

import random

import numpy as np
import pytest
from ase.data import chemical_symbols
from pymatgen.core import Composition

from hpcgen.crystal import Crystal
from hpcgen.screen import composition_valid, spacegroup_symbol, structure_problem, structure_valid


def numbers(formula: str) -> list[int]:
    return [e.Z for e, n in Composition(formula).items() for _ in range(round(n))]


def one_atom(a: float) -> Crystal:
    return Crystal(np.eye(3) * a, np.zeros((1, 3)), np.array([29]))


def test_own_periodic_images_count():
    flat = Crystal(np.diag([0.4, 3.0, 3.0]), np.zeros((1, 3)), np.array([29]))
    assert structure_problem(flat, 0.5) == "atoms-too-close"
    assert structure_valid(one_atom(0.6))
    assert not structure_valid(one_atom(0.6), min_distance=0.7)


def test_images_across_a_sheared_cell_count():
    sheared = Crystal(np.array([[4.0, 0, 0], [3.7, 0.2, 0], [0, 0, 4.0]]), np.zeros((1, 3)), np.array([29]))
    assert structure_problem(sheared, 0.5) == "atoms-too-close"  # a - b is 0.36 angstrom long


def test_atoms_at_opposite_faces_are_close():
    pair = Crystal(np.eye(3) * 4, np.array([[0.01, 0, 0], [0.98, 0, 0]]), np.array([11, 17]))
    assert structure_problem(pair, 0.5) == "atoms-too-close"
    assert structure_problem(pair, 0.1) == ""


def test_collapsed_cell():
    assert structure_problem(one_atom(0.45), 0.01) == "cell-collapsed"
    assert structure_problem(one_atom(0.47), 0.01) == ""


@pytest.mark.parametrize("formula", ["NaCl", "Na2Cl2", "SrTiO3", "TiO2", "CuNi", "Fe3Al", "O2", "Si"])
def test_valid_compositions(formula):
    assert composition_valid(numbers(formula))


@pytest.mark.parametrize("formula", ["Na2Cl", "NaCl2", "MgF3", "HeNa", "NeO2"])
def test_invalid_compositions(formula):
    assert not composition_valid(numbers(formula))


def test_same_rule_as_smact():
    from smact.screening import smact_validity

    rng = random.Random(3)
    anions = [1, 7, 8, 9, 15, 16, 17, 34, 35, 53]
    verdicts = []
    for _ in range(600):
        z = [*rng.sample(range(1, 95), rng.choice([1, 2, 3])), rng.choice(anions)]
        counts = {i: rng.randint(1, 6) for i in z}
        composition = Composition({chemical_symbols[i]: n for i, n in counts.items()})
        expected = smact_validity(composition, oxidation_states_set="smact14")
        assert composition_valid([i for i, n in counts.items() for _ in range(n)]) == expected, composition
        verdicts.append(expected)
    assert 100 < sum(verdicts) < 500  # both answers occur


def test_many_elements_do_not_explode():
    z = [*range(21, 31), *range(39, 49), 8, 16, 17, 34, 35]  # the product of their oxidation states exceeds 1e12
    assert composition_valid(z) in (True, False)


def test_symbols_of_space_groups():
    assert spacegroup_symbol(225) == "Fm-3m"
    assert spacegroup_symbol(0) == "?"
