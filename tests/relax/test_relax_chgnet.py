"""CHGNet: evaluations against its own code, relaxations against known lattice constants and ASE's optimisers."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest
from relax_crystals import FCC, diamond, perovskite, rocksalt, strained

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms, to_structure
from hpcgen.errors import ConfigError, DependencyError, Failure
from hpcgen.flow import Relaxation
from hpcgen.relax import Relaxed, get_calculator, relax_all
from hpcgen.relax.chgnet import ChgnetCalculator
from hpcgen.relax.graph import angles, edges
from hpcgen.relax.minimise import GPA

TRIO = [
    strained(rocksalt(5.9), 0.02, 0.1),
    strained(diamond(5.3), 0.02, 0.1, 1),
    strained(perovskite(4.1), 0.02, 0.1, 2),
]


def relax(calculator: ChgnetCalculator, crystal: Crystal) -> Relaxed:
    (result,) = calculator.relax(["id"], [crystal])
    assert isinstance(result, Relaxed), result
    return result


@pytest.fixture(scope="module")
def original():
    """CHGNet by its own code."""
    with contextlib.redirect_stdout(io.StringIO()):
        from chgnet.model.model import CHGNet

        return CHGNet.load(use_device="cpu")


NO_ANGLE = Crystal(np.eye(3) * 4.0, np.zeros((1, 3)), np.array([19]))


@pytest.mark.parametrize("crystal", [*TRIO, Crystal(np.eye(3) * 2.5, np.zeros((1, 3)), np.array([29])), NO_ANGLE])
def test_evaluation_equals_chgnets_own(chgnet, original, crystal: Crystal) -> None:
    mine = chgnet().evaluate(crystal)
    own = original.predict_structure(to_structure(crystal), task="efs")
    assert mine.energy / len(crystal) == pytest.approx(float(own["e"]), abs=1e-5)
    np.testing.assert_allclose(mine.forces, own["f"], atol=2e-4)
    np.testing.assert_allclose(mine.stress * GPA, own["s"], atol=2e-3)


def test_evaluation_does_not_depend_on_the_neighbours(chgnet) -> None:
    """To the last bit, also of a crystal of one atom and of one without angles."""
    calculator = chgnet()
    crystals = [*TRIO, NO_ANGLE, Crystal(3.6 * FCC, np.zeros((1, 3)), np.array([29])), strained(TRIO[2], 0.05, 0.2, 7)]
    alone = [calculator.evaluate(crystal) for crystal in crystals]
    rng = np.random.default_rng(3)
    for _ in range(8):
        picks = rng.permutation(len(crystals))[: rng.integers(2, len(crystals) + 1)]
        for i, together in zip(picks, calculator.evaluate_all([crystals[i] for i in picks]), strict=True):
            assert together.energy == alone[i].energy
            np.testing.assert_array_equal(together.forces, alone[i].forces)
            np.testing.assert_array_equal(together.stress, alone[i].stress)


def test_forces_and_stress_are_the_gradient_of_the_energy(chgnet) -> None:
    calculator, crystal = chgnet(), TRIO[2]
    result = calculator.evaluate(crystal)
    h = 0.01
    for atom, axis in ((1, 0), (3, 2)):
        energies = []
        for sign in (1, -1):
            cart = crystal.cart.copy()
            cart[atom, axis] += sign * h
            moved = Crystal(crystal.lattice, cart @ np.linalg.inv(crystal.lattice), crystal.numbers)
            energies.append(calculator.evaluate(moved).energy)
        assert result.forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), rel=0.02, abs=0.01)
    for i, j in ((0, 0), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * h / 4
            strain[j, i] += sign * h / 4
            lattice = crystal.lattice @ (np.eye(3) + strain)
            energies.append(calculator.evaluate(Crystal(lattice, crystal.frac, crystal.numbers)).energy)
        slope = (energies[0] - energies[1]) / h / crystal.volume
        assert result.stress[i, j] == pytest.approx(slope, rel=0.02, abs=2e-4)


def test_edges_are_those_of_ase() -> None:
    from ase.neighborlist import neighbor_list

    crystal = strained(perovskite(3.9), 0.1, 0.2)
    e = edges(crystal, 6.0)
    i, j, shift, d = neighbor_list("ijSd", to_atoms(crystal), 6.0)

    def table(i, j, shift, d):
        rows = np.column_stack([i, j, shift])
        order = np.lexsort(rows.T)
        return rows[order], d[order]

    rows, distance = table(e.centre, e.neighbour, e.image, e.distance)
    other_rows, other_distance = table(i, j, shift, d)
    np.testing.assert_array_equal(rows, other_rows)
    np.testing.assert_allclose(distance, other_distance, atol=1e-9)
    # every undirected edge has two directions, which are each other's reverse
    assert (np.bincount(e.undirected) == 2).all()
    np.testing.assert_array_equal(e.undirected[e.first], np.arange(len(e.first)))
    for u in range(0, len(e.first), 17):
        a, b = np.flatnonzero(e.undirected == u)
        assert (e.centre[a], e.neighbour[a]) == (e.neighbour[b], e.centre[b])
        np.testing.assert_array_equal(e.image[a], -e.image[b])


def test_angles_are_ordered_pairs_of_short_edges() -> None:
    e = edges(strained(perovskite(3.9), 0.05, 0.1), 6.0)
    rows = angles(e, 3.0)
    found = {(d1, d2) for _, _, d1, _, d2 in rows.tolist()}
    short = np.flatnonzero(e.distance <= 3.0)
    expected = {(a, b) for a in short for b in short if a != b and e.centre[a] == e.centre[b]}
    assert found == expected
    assert len(found) == len(rows)
    np.testing.assert_array_equal(rows[:, 1], e.undirected[rows[:, 2]])
    np.testing.assert_array_equal(rows[:, 0], e.centre[rows[:, 4]])


@pytest.mark.parametrize(("crystal", "a"), [(rocksalt(6.1), 5.69), (diamond(5.2), 5.47)], ids=("NaCl", "Si"))
def test_relaxation_finds_the_lattice_constant(chgnet, crystal: Crystal, a: float) -> None:
    """Lattice constants of PBE (Materials Project: NaCl 5.69, Si 5.47 angstrom), within 1.5 %."""
    config = RelaxConfig()
    result = relax(chgnet(), strained(crystal, 0.03, 0.1))
    assert result.converged
    assert result.energy < result.energy_initial - 0.05
    assert np.linalg.norm(result.forces, axis=1).max() <= config.max_force
    assert np.abs(result.stress).max() <= config.max_stress
    assert result.steps > 0
    assert (4 * result.crystal.volume) ** (1 / 3) == pytest.approx(a, rel=0.015)
    np.testing.assert_array_equal(result.crystal.numbers, crystal.numbers)


def test_stress_alone_keeps_it_going(chgnet) -> None:
    """By symmetry there is no force on any atom, and the cell is 8 % too large."""
    result = relax(chgnet(), rocksalt(6.1))
    assert result.max_force_initial < 0.01
    assert result.steps > 0
    assert result.converged
    assert np.abs(result.stress).max() <= 0.1


def test_one_atom(chgnet) -> None:
    result = relax(chgnet(), Crystal(3.9 * FCC, np.zeros((1, 3)), np.array([29])))
    assert result.converged
    assert (4 * result.crystal.volume) ** (1 / 3) == pytest.approx(3.6, rel=0.02)  # copper


def test_result_does_not_depend_on_the_batch_or_on_the_call(chgnet) -> None:
    calculator = chgnet()
    together = calculator.relax(["a", "b", "c"], TRIO)
    alone = calculator.relax(["b"], [TRIO[1]])[0]
    assert isinstance(alone, Relaxed)
    assert isinstance(together[1], Relaxed)
    assert alone.energy == together[1].energy
    np.testing.assert_array_equal(alone.crystal.lattice, together[1].crystal.lattice)
    np.testing.assert_array_equal(alone.crystal.frac, together[1].crystal.frac)


@pytest.mark.parametrize("crystal", TRIO, ids=lambda c: c.formula)
def test_energy_is_that_of_chgnets_own_optimiser(chgnet, original, crystal: Crystal) -> None:
    calculator = chgnet()
    mine = relax(calculator, crystal)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model.dynamics import StructOptimizer

        optimiser = StructOptimizer(model=original, use_device="cpu")
        other = optimiser.relax(to_structure(crystal), fmax=0.02, steps=300, verbose=False, assign_magmoms=False)
    assert mine.energy / len(crystal) == pytest.approx(other["trajectory"].energies[-1] / len(crystal), abs=2e-3)


def test_not_converged_is_a_result_no_higher_than_the_start(chgnet) -> None:
    result = relax(chgnet(max_steps=2), strained(perovskite(4.4), 0.05, 0.3))
    assert not result.converged
    assert result.steps == 2
    assert result.energy <= result.energy_initial
    own = chgnet().evaluate(result.crystal)
    assert own.energy == pytest.approx(result.energy, abs=1e-6)  # energy, forces and crystal belong together
    np.testing.assert_allclose(own.forces, result.forces, atol=1e-6)


def overlapping() -> Crystal:
    return Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.02, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17, 8]))


def test_failures_have_their_reasons(chgnet) -> None:
    far = Crystal(np.eye(3) * 9, np.zeros((1, 3)), np.array([18]))
    heavy = Crystal(np.eye(3) * 3, np.zeros((1, 3)), np.array([100]))
    squeezed, stretched = rocksalt(3.6), rocksalt(8.0)
    calculator = chgnet(max_volume_change=1.5, max_steps=60)
    results = calculator.relax(["a", "b", "c", "d", "e"], [overlapping(), far, heavy, squeezed, stretched])
    kinds = {r.id: r.kind for r in results if isinstance(r, Failure)}
    assert kinds == {
        "a": "atoms-too-close",
        "b": "isolated-atom",
        "c": "unknown-element",
        "d": "exploded",
        "e": "collapsed",
    }
    assert all(r.stage == "relax" and r.message for r in results if isinstance(r, Failure))


def test_an_error_inside_the_potential_is_a_failure(chgnet, monkeypatch: pytest.MonkeyPatch) -> None:
    calculator = chgnet()

    evaluate = calculator._evaluate

    def broken(crystals, graphs):
        if any(crystal.formula == "NaCl" for crystal in crystals):
            raise RuntimeError("index out of range\nand more")
        return evaluate(crystals, graphs)

    monkeypatch.setattr(calculator, "_evaluate", broken)
    results = calculator.relax(["x", "y"], [rocksalt(5.7), rocksalt(4.3, 12, 8)])
    assert results[0] == Failure("x", "relax", "calculator-error", "NaCl: RuntimeError: index out of range")
    assert isinstance(results[1], Relaxed)  # its neighbour is not to blame


def test_record_holds_what_the_limits_are_about(chgnet) -> None:
    crystals = [strained(rocksalt(5.8), 0.01, 0.05), overlapping()]
    record, failure = relax_all(chgnet(), crystals, ["0" * 16, "2" * 16], ["1" * 16, "3" * 16])
    assert isinstance(record, Relaxation)
    assert record.converged
    assert record.max_force == pytest.approx(np.linalg.norm(record.forces, axis=1).max())
    assert record.max_stress == pytest.approx(np.abs(record.stress).max())
    assert (record.scale, record.calculator) == ("chgnet-mp2020", "CHGNet 0.3.0")
    assert record.candidate_id == "1" * 16
    assert isinstance(failure, Failure)
    assert failure.id == "3" * 16


def test_other_atoms_than_were_given_are_a_failure() -> None:
    class Thief:
        title = scale = settings_digest = "x"

        def relax(self, ids, crystals):
            kept = Crystal(crystals[0].lattice, crystals[0].frac[:1], crystals[0].numbers[:1])
            return [Relaxed(kept, -1.0, -1.0, np.zeros((1, 3)), np.zeros((3, 3)), 0.0, 0, True, 0.0)]

    (result,) = relax_all(Thief(), [rocksalt(5.7)], ["0" * 16], ["1" * 16])
    assert isinstance(result, Failure)
    assert (result.id, result.kind) == ("1" * 16, "composition-changed")
    assert "NaCl went in, Na came out" in result.message


def test_oxygen_that_falls_into_a_hole_of_the_potential_is_a_collapse(chgnet) -> None:
    """Two oxygen atoms at 0.7 angstrom, where CHGNet knows no repulsion."""
    fused = Crystal(np.eye(3) * 3.6, np.array([[0, 0, 0], [0, 0, 0.18]]), np.array([8, 8]))
    (result,) = chgnet().relax(["x"], [fused])
    if isinstance(result, Relaxed):  # it found its way out
        assert result.crystal.smallest_distance() > 1.0
    else:
        assert result.kind in ("collapsed", "exploded")


def test_settings_digest_follows_what_determines_the_energy(chgnet) -> None:
    assert chgnet().settings_digest == chgnet(device="auto").settings_digest
    assert chgnet().settings_digest != chgnet(max_force=0.01).settings_digest
    assert chgnet().settings_digest != chgnet(max_stress=0.2).settings_digest


def test_nothing_is_printed(chgnet, capfd: pytest.CaptureFixture[str]) -> None:
    calculator = ChgnetCalculator(RelaxConfig(device="cpu"))
    relax(calculator, rocksalt(5.8))
    assert capfd.readouterr() == ("", "")


def test_threads_do_not_matter_and_are_given_back(chgnet) -> None:
    import torch

    before = torch.get_num_threads()
    energies = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            energies.append(relax(chgnet(), TRIO[2]).energy)
            assert torch.get_num_threads() == threads
        assert energies[0] == energies[1]
    finally:
        torch.set_num_threads(before)


def test_unknown_calculator_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"relax\.calculator is 'chgnett'") as error:
        get_calculator(RelaxConfig(calculator="chgnett"))
    assert "chgnet" in error.value.expected
    monkeypatch.setattr("hpcgen.relax.chgnet.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'hpcgen\[mlip\]'"):
        get_calculator(RelaxConfig())
