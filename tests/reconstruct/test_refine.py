"""Joint refinement of positions and cell: it finds the cell of exact targets, and leaves cells that noise explains."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hpcgen.config import EadConfig, PairSpectrumConfig, ReconstructConfig, RepresentationConfig, ThreeBodyConfig
from hpcgen.crystal import Crystal, lattice_parameters
from hpcgen.reconstruct.calibration import match_probability
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.refine_fit import SHEARS, STRAINS, Bounds, Problem, deformation, fit
from hpcgen.reconstruct.refine_kernels import column_space, normal_equations
from hpcgen.reconstruct.solution import Solution
from hpcgen.represent.composition import species_channels
from hpcgen.represent.ead import EmbeddedAtomDensity
from hpcgen.represent.pair_spectrum import PairSpectrum
from hpcgen.represent.three_body import PairSpectrumThreeBody

PAIR = PairSpectrum(PairSpectrumConfig())
DESCRIPTORS = {
    "pair-spectrum": PAIR,
    "pair-spectrum+3body": PairSpectrumThreeBody(PairSpectrumConfig(), ThreeBodyConfig()),
    "ead": EmbeddedAtomDensity(EadConfig(cutoff=6.0, eta=[1.0, 4.0], centres=24)),
}
NO_SYMMETRY = ReconstructConfig(symmetry_tolerance=None)
# no two atoms are equivalent, so that nothing is hidden by symmetry
LOW = Crystal(
    np.array([[5.1, 0.0, 0.0], [0.6, 5.6, 0.0], [-0.5, 0.9, 4.7]]),
    np.array([[0.02, 0.05, 0.01], [0.45, 0.52, 0.13], [0.13, 0.48, 0.55], [0.56, 0.08, 0.44], [0.81, 0.79, 0.77]]),
    np.array([22, 38, 8, 8, 8], dtype=np.uint8),
)


def problem(descriptor, target, generated, crystal, **changes) -> Problem:
    species, elements = species_channels(crystal.numbers)
    return Problem(
        descriptor,
        target,
        species,
        len(elements),
        generated,
        changes.pop("bounds", Bounds(0.05, 4.0)),
        reference=generated,
        strains=changes.pop("strains", np.eye(6)[:, :SHEARS]),
        **changes,
    )


def encode(descriptor, crystal: Crystal) -> np.ndarray:
    species, elements = species_channels(crystal.numbers)
    return descriptor.encode(crystal, species, len(elements))


def solution(frac, reason="budget") -> Solution:
    return Solution(np.asarray(frac), 0.1, 10, reason, 1.0)


def noisy(seed: int, noise: float, lattice_noise: float):
    """Target and cell of `LOW` with relative noise; the cell keeps its volume."""
    rng = np.random.default_rng(seed)
    target = encode(PAIR, LOW)
    target = target * (1 + noise * rng.standard_normal(len(target)))
    h = np.append(lattice_noise * rng.standard_normal(SHEARS), 0.0)
    return target, LOW.lattice @ deformation(h)


def test_strains_are_an_orthonormal_basis_and_shears_keep_the_volume() -> None:
    np.testing.assert_allclose(np.einsum("iab,jab->ij", STRAINS, STRAINS), np.eye(6), atol=1e-15)
    h = np.array([0.03, -0.02, 0.05, 0.01, -0.04, 0.0])
    assert np.linalg.det(deformation(h)) == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(deformation(h) @ deformation(-h), np.eye(3), atol=1e-14)


def test_strain_derivative_predicts_the_descriptor_of_a_strained_cell() -> None:
    at = problem(PAIR, encode(PAIR, LOW), LOW.lattice, LOW)
    derivative = at.strain_derivative(np.zeros(6), LOW.frac)
    h = 2e-4 * np.array([1.0, -0.5, 0.7, -1.0, 0.3, 0.0])
    species, elements = species_channels(LOW.numbers)
    lattice = LOW.lattice @ deformation(h)
    moved = PAIR.evaluate(lattice, LOW.frac @ lattice, species, len(elements), jacobian=False)[0]
    change = moved - at.target
    assert np.linalg.norm(derivative.T @ h[:SHEARS] - change) < 0.01 * np.linalg.norm(change)


@pytest.mark.parametrize("name", [name for name in DESCRIPTORS if name != "ead"])
def test_an_exact_target_gives_back_cell_and_positions(name: str) -> None:
    descriptor = DESCRIPTORS[name]
    scales = "scale" not in descriptor.invariances  # then the volume is in the target too
    h = np.array([0.012, -0.008, 0.01, -0.006, 0.009, 0.005 if scales else 0.0])
    generated = LOW.lattice @ deformation(h)
    start = LOW.frac + np.random.default_rng(0).normal(size=LOW.frac.shape) * 0.004
    at = problem(descriptor, encode(descriptor, LOW), generated, LOW, strains=np.eye(6)[:, : 6 if scales else SHEARS])
    found = fit(at, start, 60)
    assert np.sqrt(found.cost) < 1e-3 * np.linalg.norm(at.target)
    np.testing.assert_allclose(lattice_parameters(found.lattice), LOW.parameters, rtol=1e-3)
    metric = found.lattice @ found.lattice.T
    away = found.frac - LOW.frac
    away -= away.mean(axis=0)  # the origin is free
    assert np.sqrt(np.einsum("ia,ab,ib->i", away, metric, away)).max() < 0.01
    if not scales:
        assert np.linalg.det(found.lattice) == pytest.approx(np.linalg.det(generated), rel=1e-12)


def test_the_fit_never_ends_above_its_start_and_keeps_the_bounds() -> None:
    bounds = Bounds(0.004, 0.3)
    for seed in range(5):
        target, generated = noisy(seed, 0.1, 0.03)
        at = problem(PAIR, target, generated, LOW, bounds=bounds)
        start = fit(at, LOW.frac, 0)
        found = fit(at, LOW.frac, 40)
        assert found.cost < start.cost
        assert start.iterations == 0
        new, old = lattice_parameters(found.lattice), lattice_parameters(generated)
        assert np.abs(new[:3] / old[:3] - 1).max() <= bounds.length
        assert np.abs(new[3:] - old[3:]).max() <= bounds.angle
        assert not np.array_equal(found.lattice, generated)


def test_noise_in_the_cell_is_found_out() -> None:
    before, after, kept = [], [], 0
    for seed in range(8):
        target, generated = noisy(seed, 0.02, 0.01)
        refined = Refiner(PAIR, NO_SYMMETRY).refine(target, generated, LOW.numbers, solution(LOW.frac))
        before.append(np.abs(lattice_parameters(generated) - LOW.parameters))
        after.append(np.abs(lattice_parameters(refined.lattice) - LOW.parameters))
        kept += refined.strain == 0
        assert np.sqrt(sum(v**2 for v in refined.blocks.values())) == pytest.approx(refined.residual, rel=1e-12)
        assert list(refined.blocks) == ["rdf", "s"]
    assert kept <= 2
    assert (np.mean(after, axis=0) < 0.75 * np.mean(before, axis=0)).all()


def test_a_cell_without_error_is_kept() -> None:
    kept = 0
    for seed in range(8):
        target, _ = noisy(seed, 0.05, 0.0)
        refined = Refiner(PAIR, NO_SYMMETRY).refine(target, LOW.lattice, LOW.numbers, solution(LOW.frac))
        kept += np.array_equal(refined.lattice, LOW.lattice)
        assert (refined.strain == 0) == np.array_equal(refined.lattice, LOW.lattice)
    assert kept >= 7


@pytest.mark.parametrize("key", ["cell_length", "cell_angle"])
def test_a_bound_of_zero_keeps_every_cell(key: str) -> None:
    target, generated = noisy(0, 0.02, 0.01)
    config = ReconstructConfig.model_validate({key: 0.0, "symmetry_tolerance": 0.5})
    refined = Refiner(PAIR, config).refine(target, generated, LOW.numbers, solution(LOW.frac))
    assert (refined.lattice == generated).all()
    assert refined.strain == 0


def test_what_the_solver_met_exactly_stays_as_it_is() -> None:
    refined = Refiner(PAIR, ReconstructConfig()).refine(
        encode(PAIR, LOW), LOW.lattice, LOW.numbers, solution(LOW.frac, "converged")
    )
    assert (refined.lattice == LOW.lattice).all()
    assert (refined.frac == LOW.frac).all()
    assert (refined.iterations, refined.symmetry) == (0, "")
    assert refined.residual < 1e-12


def test_one_atom_has_a_cell_to_refine() -> None:
    one = Crystal(np.diag([2.5, 2.6, 2.8]), np.zeros((1, 3)), np.array([29], dtype=np.uint8))
    generated = one.lattice @ deformation(np.array([0.01, -0.008, 0.0, 0.0, 0.005, 0.0]))
    start = solution(one.frac)
    kept = Refiner(PAIR, ReconstructConfig(cell_length=0.0)).refine(encode(PAIR, one), generated, one.numbers, start)
    refined = Refiner(PAIR, NO_SYMMETRY).refine(encode(PAIR, one), generated, one.numbers, start)
    assert refined.residual < 0.2 * kept.residual
    assert np.abs(lattice_parameters(refined.lattice) / one.parameters - 1)[:3].max() < 2e-3


def test_the_same_bits_in_threads() -> None:
    refiner = Refiner(PAIR, ReconstructConfig())

    def run(seed: int) -> bytes:
        refined = refiner.refine(*noisy(seed, 0.05, 0.01), LOW.numbers, solution(LOW.frac))
        return refined.lattice.tobytes() + refined.frac.tobytes()

    alone = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(4))) == alone


def test_kernels_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    jt, r = rng.normal(size=(7, 40)), rng.normal(size=40)
    hessian, gradient = normal_equations(jt, r)
    np.testing.assert_allclose(hessian, np.tril(jt @ jt.T), atol=1e-12)
    np.testing.assert_allclose(gradient, jt @ r, atol=1e-12)
    columns = rng.normal(size=(9, 4)) @ rng.normal(size=(4, 9))
    basis = column_space(columns)
    assert basis.shape == (9, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(basis @ basis.T @ columns, columns, atol=1e-10)


@pytest.mark.parametrize(("data", "n_elements"), [(1, 1), (3, 1), (3, 3)])
def test_match_probability_falls_with_the_residual(data: int, n_elements: int) -> None:
    settings = RepresentationConfig().resolved(data)
    values = [match_probability(r, n_elements, settings) for r in (0.0, 1e-3, 0.05, 0.2, 0.5, 1.0)]
    assert values[0] == 1
    assert (np.diff(values) < 0).all()
    assert values[-1] < 0.6


def test_match_probability_is_unknown_where_nothing_was_calibrated() -> None:
    other_bins = RepresentationConfig(pair_spectrum=PairSpectrumConfig(s_width=0.08)).resolved(1)
    for settings in (other_bins, RepresentationConfig(descriptor="ead").resolved(1)):
        assert np.isnan(match_probability(0.1, 1, settings))
