from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from pymatgen.analysis.structure_matcher import StructureMatcher

from hpcgen.crystal import Crystal, from_atoms, to_structure
from hpcgen.screen import Effort, find_duplicates, find_known
from hpcgen.screen.fingerprint import differences, fingerprint, minima
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
    found = find_duplicates(crystals)
    assert [j < 0 for j in found] == [j < 0 for j in expected]
    assert all(j < 0 or (found[j] < 0 and j < i and plain(crystals[j], crystals[i])) for i, j in enumerate(found))
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


def test_effort_is_counted_and_lattices_tell_crystals_apart():
    long = bulk("NaCl", "rocksalt", a=5.6)
    long.set_cell(long.cell.array @ np.diag([0.7, 0.7, 1 / 0.49]), scale_atoms=True)
    crystals = [from_atoms(bulk("NaCl", "rocksalt", a=5.6)), from_atoms(long)]
    effort = Effort()
    assert find_known(crystals, crystals[:1], effort) == [True, plain(*crystals)] == [True, False]
    assert (effort.all_pairs, effort.alike, effort.comparisons + effort.other_lattice) == (2, 2, 2)
    # the reference's shortest vector is too long for the drawn-out cell
    assert effort.other_lattice == 1


def test_minima_bound_what_the_matcher_maps():
    """No pair that plain StructureMatcher calls equal is ever told apart by its lattice: 300 strained pairs."""
    rng = np.random.default_rng(0)
    matcher, equal, apart = Matcher(), 0, 0
    for seed in range(300):
        base = [bulk("NaCl", "rocksalt", a=5.6), bulk("Ti", "hcp", a=2.95, c=4.68), bulk("Si")][seed % 3]
        strained = base.copy()
        strained.set_cell(
            base.cell.array @ (np.eye(3) + rng.normal(0, (0.03, 0.15)[seed % 2], (3, 3))), scale_atoms=True
        )
        a, b = matcher.reduce(from_atoms(base)), matcher.reduce(from_atoms(strained))
        possible = bool((minima(a) <= 1.2 * (1 + 1e-9) * minima(b)).all())
        same = matcher.equal(a, b)
        assert possible or not same
        equal += same
        apart += not possible
    assert equal > 20
    assert apart > 20


def test_fingerprint_knows_neither_cell_nor_order():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=0)
    double = make_supercell(atoms, np.array([[1, 1, 0], [0, 1, 0], [0, 0, 2]]))
    a, b = fingerprint(from_atoms(atoms)), fingerprint(from_atoms(double[::-1]))
    assert a.shape == (2, 16)
    assert differences(a, [b])[0] == pytest.approx(0, abs=1e-12)
    layers = bulk("Na", "sc", a=3.0)
    layers.set_cell([2.0, 2.0, 40.0])
    assert fingerprint(from_atoms(layers)).shape == (1, 16)  # few neighbours within the first radius


def test_one_atom_and_nothing():
    copper = from_atoms(bulk("Cu"))
    assert find_duplicates([copper, copper, copper]) == [-1, 0, 0]
    assert find_known([copper], [copper]) == [True]
    assert find_duplicates([]) == []
    assert find_known([], [copper]) == []
    assert find_known([copper], []) == [False]
