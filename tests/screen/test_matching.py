from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from pymatgen.analysis.structure_matcher import StructureMatcher

from hpcgen.crystal import Crystal, from_atoms, to_structure
from hpcgen.screen import find_duplicates, find_known
from hpcgen.screen.matching import Matcher


def rattled(atoms, seed: int, amplitude: float) -> Crystal:
    copy = atoms.copy()
    copy.rattle(amplitude, seed=seed)
    return from_atoms(copy)


def zoo() -> list[Crystal]:
    """Crystals of few formulas: equal, nearly equal, equal as supercells, scaled, and different."""
    salt, cscl = bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "cesiumchloride", a=3.4)
    double = make_supercell(salt, np.diag([1, 1, 2]))
    zinc = bulk("NaCl", "zincblende", a=6.0)
    crystals = [from_atoms(a) for a in (salt, cscl, double, bulk("NaCl", "rocksalt", a=6.1), zinc)]
    crystals += [rattled(a, seed, 0.15) for seed, a in enumerate([salt, cscl, double, zinc, salt, cscl])]
    crystals += [rattled(a, seed, 0.6) for seed, a in enumerate([double, cscl, zinc, double])]
    crystals += [from_atoms(bulk("Cu")), from_atoms(bulk("Cu", "bcc", a=2.9)), from_atoms(bulk("Cu", cubic=True))]
    return crystals


def plain(a: Crystal, b: Crystal) -> bool:
    return StructureMatcher().fit(to_structure(a), to_structure(b))


def test_duplicates_agree_with_plain_all_pairs():
    crystals = zoo()
    expected: list[int] = []
    for i, crystal in enumerate(crystals):
        unique = [j for j in range(i) if expected[j] < 0]
        expected.append(next((j for j in unique if plain(crystals[j], crystal)), -1))
    assert find_duplicates(crystals) == expected
    assert 3 <= expected.count(-1) < len(crystals) - 3


def test_known_agrees_with_plain_all_pairs():
    crystals = zoo()
    references = [crystals[1], crystals[-1], crystals[5]]
    expected = [any(plain(r, c) for r in references) for c in crystals]
    assert find_known(crystals, references) == expected
    assert True in expected
    assert False in expected


def test_other_formulas_are_never_compared(monkeypatch):
    monkeypatch.setattr(Matcher, "equal", lambda *_: pytest.fail("compared"))
    salt, other = from_atoms(bulk("NaCl", "rocksalt", a=5.6)), from_atoms(bulk("KCl", "rocksalt", a=6.3))
    assert find_duplicates([salt, other]) == [-1, -1]
    assert find_known([salt], [other]) == [False]


def test_one_atom_and_nothing():
    copper = from_atoms(bulk("Cu"))
    assert find_duplicates([copper, copper, copper]) == [-1, 0, 0]
    assert find_known([copper], [copper]) == [True]
    assert find_duplicates([]) == []
    assert find_known([], [copper]) == []
    assert find_known([copper], []) == [False]
