"""Phonons: a harmonic crystal with known modes, real and imaginary; the stage with its books."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config, PhononsConfig
from hpcgen.crystal import Crystal
from hpcgen.dynamics import phonons
from hpcgen.dynamics.phonons import Spectrum, spectrum, supercell_of
from hpcgen.errors import DependencyError
from hpcgen.flow import Phonons, Stability, make_id
from hpcgen.relax.minimise import Evaluation, UnphysicalError
from hpcgen.stages import phonons as stage
from hpcgen.stages.context import Balance, Context

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
CHAIN = Crystal(np.diag([3.0, 9.0, 9.0]), np.zeros((1, 3)), np.array([18]))  # argon atoms along x


def springs(strength: float):
    """Harmonic springs (eV/angstrom^2) to the two neighbours along x."""

    def evaluate(crystal: Crystal) -> Evaluation:
        n = len(crystal)
        assert np.allclose(crystal.lattice, np.diag([3.0 * n, 9.0, 9.0]))
        cart = crystal.cart
        order = np.argsort(cart[:, 0] - 1.5)
        x = cart[order, 0]
        right = np.roll(x, -1) + np.where(np.arange(n) == n - 1, 3.0 * n, 0.0)
        stretch = strength * (right - x - 3.0)
        forces = np.zeros((n, 3))
        forces[order, 0] = stretch - np.roll(stretch, 1)
        return Evaluation(0.0, forces, np.zeros((3, 3)))

    return lambda crystals: [evaluate(c) for c in crystals]


def test_supercell_is_as_wide_as_asked_for() -> None:
    np.testing.assert_array_equal(supercell_of(CHAIN, 9.0), [3, 1, 1])
    np.testing.assert_array_equal(supercell_of(CHAIN, 9.1), [4, 2, 2])
    repeats = supercell_of(Crystal(5.7 * FCC, np.zeros((1, 3)), np.array([11])), 12.0)
    np.testing.assert_array_equal(repeats, [4, 4, 4])  # faces of the primitive cell are 3.29 angstrom apart


def test_modes_of_a_chain() -> None:
    """Frequencies 2 sqrt(k / m) |sin(pi q)| / 2 pi along it; imaginary for a negative k."""
    pytest.importorskip("phonopy")
    config = PhononsConfig(supercell_length=9.0, displacement=0.01)
    found = spectrum(springs(1.0), CHAIN, config)
    np.testing.assert_array_equal(found.supercell, [3, 1, 1])
    thz = 15.633302 / np.sqrt(39.948)  # of sqrt(eV/angstrom^2/amu)
    assert found.frequencies[1].max() == pytest.approx(2 * np.sin(np.pi / 3) * thz, rel=1e-3)
    assert found.frequencies[0] == pytest.approx([0, 0, 0], abs=1e-3)
    assert found.lowest()[0] == pytest.approx(0.0, abs=1e-3)  # nothing holds it across
    frequency, q = spectrum(springs(-1.0), CHAIN, config).lowest()
    assert frequency == pytest.approx(-2 * np.sin(np.pi / 3) * thz, rel=1e-3)
    assert q[0] in (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_translations_are_no_modes() -> None:
    q = np.array([[0, 0, 0], [0.5, 0, 0]])
    first = Spectrum(np.array([2, 1, 1]), 1, q, np.array([[-1e-3, 0.0, 1e-3, 2.0, 3, 4], [1.0, 1, 1, 2, 3, 4]]))
    assert first.lowest() == (1.0, pytest.approx([0.5, 0, 0]))
    optical = Spectrum(np.array([2, 1, 1]), 1, q, np.array([[-2.0, -1e-3, 0.0, 1e-3, 3, 4], [1.0, 1, 1, 2, 3, 4]]))
    assert optical.lowest() == (-2.0, pytest.approx([0, 0, 0]))


def test_what_cannot_be_computed_has_its_reason() -> None:
    pytest.importorskip("phonopy")
    with pytest.raises(UnphysicalError, match=r"more than phonons\.max_atoms") as error:
        spectrum(springs(1.0), CHAIN, PhononsConfig(supercell_length=30.0, max_atoms=20))
    assert error.value.kind == "supercell-too-large"
    with pytest.raises(UnphysicalError, match="alone") as error:
        spectrum(lambda cs: [UnphysicalError("isolated-atom", "alone") for _ in cs], CHAIN, PhononsConfig())
    assert error.value.kind == "isolated-atom"


def test_without_phonopy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phonons, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"hpcgen\[phonons\]"):
        phonons.check_installed()


def stability(index: int, crystal: Crystal, e_hull: float, unique: bool = True) -> Stability:
    i = make_id("t", "s", index)
    words = ("Cu", 225, -3.0, 0.0, e_hull, e_hull, "", 1, "s", "s", "d", "same-scale", unique, "", True)
    return Stability(i, crystal, make_id("t", "c", index), i, *words)


def test_stage_judges_what_is_near_the_hull(tmp_path: Path) -> None:
    """Copper by EMT: fcc is a minimum, the simple cubic crystal is not; the others are not looked at."""
    pytest.importorskip("phonopy")
    fcc = Crystal(3.6 * FCC, np.zeros((1, 3)), np.array([29]))
    cubic = Crystal(2.4 * np.eye(3), np.zeros((1, 3)), np.array([29]))
    rows = [stability(0, fcc, 0.0), stability(1, cubic, 0.1), stability(2, fcc, 0.0, False), stability(3, fcc, 0.5)]
    store.write(tmp_path / "stability.h5", Stability, rows)
    settings = {"relax": {"calculator": "ase", "ase": {"path": "ase.calculators.emt:EMT"}, "device": "cpu"}}
    config = Config.model_validate({**settings, "phonons": {"supercell_length": 7.0, "max_e_hull": 0.2}})
    balance = stage.run(Context(config, tmp_path))
    assert str(balance) == "phonons: 4 in = 2 out + 1 duplicate + 1 above-limit"
    with store.open(tmp_path / "phonons.h5", Phonons) as f:
        found, failures, attrs = list(f), f.failures, f.attrs
    assert [(r.candidate_id, r.imaginary) for r in found] == [
        (rows[0].candidate_id, False),
        (rows[1].candidate_id, True),
    ]
    assert found[1].lowest_frequency < -1
    assert found[0].lowest_frequency > 1
    assert found[0].gamma.shape == (1, 3)
    assert Balance.from_json(attrs["balance"]) == balance
    assert {f.kind for f in failures} == {"duplicate", "above-limit"}


def test_section_changes_neither_the_folder_nor_earlier_ids() -> None:
    one, other = Config(), Config.model_validate({"phonons": {"displacement": 0.01}})
    assert one.digest() == other.digest()
    assert one.identity("hull") == other.identity("hull")
    assert one.identity("phonons") != other.identity("phonons")
