"""The built-in crystals: neutral, distinct, physically possible, the same every time, near known compounds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols, reference_states

from hpcgen.config import DataConfig, PrototypeData
from hpcgen.crystal import Crystal, composition_of, to_structure
from hpcgen.data import load
from hpcgen.data.aflow import library
from hpcgen.data.elements import element_structures, volume_per_atom
from hpcgen.data.gate import Limits, check
from hpcgen.data.prototypes import Decoration, decorations
from hpcgen.errors import ConfigError, DataError

DEFAULT = DataConfig()


@pytest.fixture(scope="module")
def made() -> list[Decoration]:
    return decorations(DEFAULT)


def test_library_holds_prototypes_with_unique_names() -> None:
    names = [p.name for p in library()]
    assert len(names) > 250
    assert len(set(names)) == len(names)
    assert "AB_cF8_225_a_b/NaCl" in names


def test_count_labels_and_variety(made: list[Decoration]) -> None:
    assert len(made) > 1500
    assert len({d.label for d in made}) == len(made)
    assert len({d.prototype for d in made}) > 60
    assert {2, 3} <= {len(d.charges) for d in made}
    elements = {e for d in made for e in d.charges}
    assert elements == {*DEFAULT.builtin.cations, *DEFAULT.builtin.anions}


def test_charge_balanced(made: list[Decoration]) -> None:
    for d in made:
        counts = Counter(chemical_symbols[z] for z in d.crystal.numbers)
        assert counts.keys() == d.charges.keys()
        assert sum(d.charges[e] * n for e, n in counts.items()) == 0
        assert {e for e, q in d.charges.items() if q > 0} <= set(DEFAULT.builtin.cations)
        assert {e for e, q in d.charges.items() if q < 0} <= set(DEFAULT.builtin.anions)


def test_within_limits_and_already_reduced(made: list[Decoration]) -> None:
    limits = Limits.of(DEFAULT)
    for d in made[::15]:
        got = check(d.crystal, limits)
        np.testing.assert_allclose(got.parameters, d.crystal.parameters, atol=2e-3)
        assert np.linalg.det(d.crystal.lattice) > 0


def test_no_atoms_too_close_and_neighbours_of_opposite_charge(made: list[Decoration]) -> None:
    for d in made[::6]:
        assert d.crystal.smallest_distance() > 1.4
        structure = to_structure(d.crystal)  # neighbours by an independent implementation
        charges = [d.charges[site.specie.symbol] for site in structure]
        reach = 3.6
        for i, neighbours in enumerate(structure.get_all_neighbors(reach)):
            if neighbours:
                nearest = min(neighbours, key=lambda n: n.nn_distance)
                assert charges[i] * charges[nearest.index] < 0, d.label


def test_distinct_by_an_independent_matcher(made: list[Decoration]) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.5)
    for formula in ("MgO", "SrTiO3", "TiO2", "Al2O3", "LiCl"):
        same = [to_structure(d.crystal) for d in made if d.crystal.formula == formula]
        assert same
        assert len(matcher.group_structures(same)) == len(same)


def test_deterministic_and_cut_by_label(made: list[Decoration]) -> None:
    few = decorations(DataConfig(builtin=PrototypeData(max_structures=100)))
    whole = {d.label: d.crystal for d in made}
    assert len(few) == 100
    assert [d.label for d in few] == [label for label in whole if label in {d.label for d in few}]
    for d in few:
        assert np.array_equal(whole[d.label].frac, d.crystal.frac)
        assert np.array_equal(whole[d.label].lattice, d.crystal.lattice)
    fewer = {d.label for d in decorations(DataConfig(builtin=PrototypeData(max_structures=50)))}
    assert fewer < {d.label for d in few}
    assert len({d.prototype for d in few}) > 30


@pytest.mark.parametrize(
    ("prototype", "formula", "volume"),
    [  # cubic angstrom per formula unit, from the lattice parameters measured at room temperature
        ("AB_cF8_225_a_b/NaCl", "NaCl", 5.640**3 / 4),
        ("AB_cF8_225_a_b/NaCl", "MgO", 4.212**3 / 4),
        ("AB_cF8_225_a_b/NaCl", "CaS", 5.690**3 / 4),
        ("AB2_cF12_225_a_c/CaF2", "CaF2", 5.463**3 / 4),
        ("AB2_cF12_225_a_c/CaF2", "Li2O", 4.619**3 / 4),
        ("AB_hP4_186_b_b/ZnS", "ZnO", 3.250**2 * 5.207 * np.sqrt(0.75) / 2),
        ("AB_cF8_216_c_a/ZnS", "ZnS", 5.409**3 / 4),
        ("A2B_tP6_136_f_a/TiO2", "TiO2", 4.594**2 * 2.959 / 2),
        ("A2B3_hR10_167_c_e/Al2O3", "Al2O3", 4.759**2 * 12.991 * np.sqrt(0.75) / 6),
        ("AB3C_cP5_221_a_c_b/CaTiO3", "SrTiO3", 3.905**3),
        ("A2BC4_cF56_227_d_a_e/MgAl2O4", "MgAl2O4", 8.083**3 / 8),
    ],
)
def test_known_compounds_come_out_at_their_size(
    prototype: str, formula: str, volume: float, made: list[Decoration]
) -> None:
    found = [d.crystal for d in made if d.prototype == prototype and d.crystal.formula == formula]
    assert found
    units = len(found[0]) / composition_of(found[0].numbers).reduced_composition.num_atoms
    # In length; ionic radii are worst for covalent ZnS, 4.2 %.
    assert (found[0].volume / units) ** (1 / 3) == pytest.approx(volume ** (1 / 3), rel=0.045)


def test_spaces_that_hold_nothing_or_no_ions() -> None:
    with pytest.raises(DataError, match="no prototype of at most 1 atoms"):
        decorations(DataConfig(max_atoms=1))
    with pytest.raises(DataError, match=r"cations \(none\)"):
        decorations(DataConfig(elements=["O"]))
    with pytest.raises(ConfigError, match=r"data\.builtin\.anions: Na without a negative"):
        decorations(DataConfig(builtin=PrototypeData(anions=["Na"])))
    with pytest.raises(ConfigError, match=r"data\.builtin\.cations: 'Natrium' no element"):
        decorations(DataConfig(builtin=PrototypeData(cations=["Natrium"])))


def test_elements_and_size_of_the_configuration_hold() -> None:
    got = load(DataConfig(elements=["Na", "Cl", "Mg", "O"], max_atoms=6, max_elements=2))
    assert not got.failures
    assert {e for c in got.crystals for e in c.elements} == {"Na", "Cl", "Mg", "O"}
    assert max(map(len, got.crystals)) <= 6
    assert max(len(c.elements) for c in got.crystals) == 2
    twice = PrototypeData(cations=["Na", "Na", "Mg"], anions=["Cl", "O", "Cl"])
    again = load(DataConfig(elements=["Mg", "Cl"], max_atoms=6, max_elements=2, builtin=twice))
    assert again.labels == [
        label for label, c in zip(got.labels, got.crystals, strict=True) if c.elements == ("Cl", "Mg")
    ]
    assert list(got.inputs) == ["aflow_prototypes.json.gz"]


@pytest.mark.parametrize("symbol", chemical_symbols[1 : atomic_numbers["Pu"] + 1])
def test_element_structures_of_every_element(symbol: str) -> None:
    trials = element_structures(symbol)
    assert len({name for name, _ in trials}) == len(trials) >= 1
    for _, crystal in trials:
        assert set(crystal.elements) == {symbol}
        assert 0.7 < crystal.smallest_distance() < 6
        assert len(crystal) <= 32
        assert crystal.volume / len(crystal) == pytest.approx(volume_per_atom(symbol), rel=0.4)
    reference = reference_states[atomic_numbers[symbol]] or {}
    if reference.get("symmetry") in ("fcc", "bcc"):
        atoms = {"fcc": 4, "bcc": 2}[reference["symmetry"]]
        crystal = dict(trials).get(reference["symmetry"])
        if crystal is not None:
            assert crystal.volume == pytest.approx(reference["a"] ** 3 / atoms, rel=0.1)


@pytest.mark.parametrize(
    ("symbol", "bond"), [("H", 0.74), ("N", 1.10), ("O", 1.2), ("F", 1.42), ("Cl", 1.99), ("Br", 2.28), ("I", 2.67)]
)
def test_molecular_elements_are_molecules(symbol: str, bond: float) -> None:
    for _, crystal in element_structures(symbol):
        neighbours = to_structure(crystal).get_all_neighbors(1.15 * bond)
        assert [len(n) for n in neighbours] == [1] * len(crystal)
        assert neighbours[0][0].nn_distance == pytest.approx(bond, rel=0.1)


def test_element_structures_of_what_is_no_element() -> None:
    for symbol in ("X", "Xx"):
        with pytest.raises(ValueError, match="no element"):
            element_structures(symbol)
    with pytest.raises(ValueError, match="no volume"):
        element_structures("Lr")


def test_ground_states_that_are_not_close_packed() -> None:
    trials = {s: dict(element_structures(s)) for s in ("S", "C", "Si", "In", "Mn")}
    assert max(map(len, trials["S"].values())) == 32
    assert len(trials["Mn"]["A_cI58_217_ac2g/Mn"]) == 29
    graphite: Crystal = trials["C"]["A_hP4_194_bc/C"]
    assert graphite.smallest_distance() == pytest.approx(1.42, abs=0.01)
    assert trials["Si"]["diamond"].smallest_distance() == pytest.approx(2.35, abs=0.02)
    assert trials["In"]["bct-1.52"].smallest_distance() == pytest.approx(3.25, abs=0.03)
