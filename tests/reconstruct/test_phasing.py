"""Phase retrieval: kernels against plain sums and numpy, what a solution is to it, and crystals without symmetry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from hpcgen.config import AnnealConfig, PairSpectrumConfig
from hpcgen.crystal import Crystal, to_structure
from hpcgen.reconstruct import anneal, search
from hpcgen.reconstruct.anneal import AnnealSolver
from hpcgen.reconstruct.phasing import CLOSEST, ENOUGH, Phasing, phasing, retrieve
from hpcgen.reconstruct.phasing_kernels import (
    _solve_banded,
    density,
    fourier_table,
    highest_peaks,
    meet_bins,
    structure_factors,
)
from hpcgen.reconstruct.solution import Solution
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig().resolved(1, exact=True))
MATCHER = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)


def triclinic(n: int, seed: int) -> Crystal:
    """n carbons without symmetry in 2.5^3 cubic angstrom each, no two closer than 1.8 angstrom."""
    rng = np.random.default_rng(seed)
    lattice = np.diag([1.0, 1.1, 1.3]) + rng.normal(scale=0.1, size=(3, 3))
    lattice *= 2.5 * (n / np.linalg.det(lattice)) ** (1 / 3)
    frac = rng.random((1, 3))
    while len(frac) < n:
        more = np.vstack([frac, rng.random(3)])
        if Crystal(lattice, more, np.full(len(more), 6)).smallest_distance() > 1.8:
            frac = more
    return Crystal(lattice, frac, np.full(n, 6)).niggli()


CRYSTAL = triclinic(10, 1)


def problem_of(crystal: Crystal, descriptor: PairSpectrum = DESCRIPTOR) -> Phasing:
    n = len(crystal)
    tables, _ = descriptor.prepare(crystal.lattice, n)
    target = descriptor.encode(crystal, np.zeros(n, int), 1) - descriptor.self_terms(tables, [n], 1)
    return phasing(tables, target, n)


def scaled(crystal: Crystal, problem: Phasing) -> np.ndarray:
    return crystal.frac @ problem.tables.cell


def factors(x: np.ndarray, problem: Phasing) -> np.ndarray:
    re, im = np.empty(len(problem.damp)), np.empty(len(problem.damp))
    structure_factors(x, problem.tables.inverse, problem.tables.miller, re, im)
    return re + 1j * im


def met(f: np.ndarray, problem: Phasing, n: int, damping: float = 1e-4) -> np.ndarray:
    """`meet_bins` of F."""
    lower, step = np.empty((len(problem.wanted), problem.band + 1)), np.empty(len(problem.wanted))
    re, im = np.empty(len(f)), np.empty(len(f))
    meet_bins(f.real.copy(), f.imag.copy(), problem.tables, problem.wanted, n, damping, 0.1, lower, step, re, im)
    return re + 1j * im


def missed(f: np.ndarray, problem: Phasing, n: int) -> float:
    """Relative residual of the bins."""
    miss = problem.tables.weights.T @ (np.abs(f) ** 2 - n) - problem.wanted
    return float(np.linalg.norm(miss) / np.linalg.norm(problem.wanted))


def test_structure_factors_are_sums_over_atoms():
    problem = problem_of(CRYSTAL)
    x = scaled(CRYSTAL, problem)
    np.testing.assert_allclose(factors(x, problem), np.exp(1j * problem.tables.waves @ x.T).sum(axis=1), atol=1e-10)


def test_density_is_the_fourier_sum():
    problem = problem_of(CRYSTAL)
    rng = np.random.default_rng(0)
    size = len(problem.damp)
    f = rng.normal(size=size) + 1j * rng.normal(size=size)
    rho = np.empty(tuple(problem.shape))
    density(f.real.copy(), f.imag.copy(), problem.damp, problem.tables.miller, problem.fourier, rho)
    for a, b, c in [(0, 0, 0), (1, 2, 3), tuple(problem.shape - 1)]:
        phase = 2 * np.pi * problem.tables.miller @ (np.array([a, b, c]) / problem.shape)
        assert rho[a, b, c] == pytest.approx(2 * np.sum(problem.damp * f * np.exp(-1j * phase)).real, abs=1e-10)


def test_fourier_table_holds_negative_indices_first():
    cosine, sine = fourier_table(2, 7)
    phase = 2 * np.pi * np.outer(np.arange(-2, 3), np.arange(7)) / 7
    np.testing.assert_allclose(cosine + 1j * sine, np.exp(1j * phase), atol=1e-12)


def test_highest_peaks_are_the_atoms_and_keep_their_distance():
    """Of atoms across cell faces too; asked for more, it finds ripples, but none within `closest` of another."""
    problem = problem_of(CRYSTAL)
    tables, rho = problem.tables, np.empty(tuple(problem.shape))
    f = factors(scaled(CRYSTAL, problem), problem)
    density(f.real.copy(), f.imag.copy(), problem.damp, tables.miller, problem.fourier, rho)
    frac = np.full((3 * len(CRYSTAL), 3), np.nan)
    found = highest_peaks(rho, tables.cell, tables.images, CLOSEST, frac)
    assert len(CRYSTAL) < found <= len(frac)
    assert np.isnan(frac[found:]).all()
    d = frac[: len(CRYSTAL), None] - CRYSTAL.frac
    r = np.linalg.norm((d - np.rint(d)) @ tables.cell, axis=-1)
    assert r.min(axis=0).max() < 0.25  # every atom has its peak
    assert Crystal(tables.cell, frac[:found], np.full(found, 6)).smallest_distance() >= CLOSEST


def test_banded_solver_solves():
    rng = np.random.default_rng(0)
    n, band = 20, 3
    root = np.tril(np.triu(rng.normal(size=(n, n)), -band)) + 3 * np.eye(n)
    a, b = root @ root.T, rng.normal(size=n)
    lower = np.zeros((n, band + 1))
    for i in range(n):
        for j in range(max(0, i - band), i + 1):
            lower[i, j - i + band] = a[i, j]
    x = b.copy()
    _solve_banded(lower, band, x)
    np.testing.assert_allclose(a @ x, b, atol=1e-10)


def test_crystal_is_a_fixed_point_of_the_bins():
    problem = problem_of(CRYSTAL)
    f = factors(scaled(CRYSTAL, problem), problem)
    assert missed(f, problem, 10) < 1e-10
    np.testing.assert_allclose(met(f, problem, 10), f, atol=1e-8)


@pytest.mark.parametrize("exact", [True, False], ids=["narrow", "wide"])
def test_bins_are_met_with_the_phases_kept(exact):
    """From another crystal's F: steps come ever nearer to the bins, and no phase turns."""
    problem = problem_of(CRYSTAL, PairSpectrum(PairSpectrumConfig().resolved(1, exact=exact)))
    f = factors(scaled(triclinic(10, 2), problem), problem)
    steps = [f]
    for _ in range(6):
        steps.append(met(steps[-1], problem, 10))
    assert missed(steps[0], problem, 10) > 0.5
    assert missed(steps[1], problem, 10) < 0.8 * missed(steps[0], problem, 10)
    assert missed(steps[-1], problem, 10) < 0.1
    seen = np.abs(steps[-1]) > 1e-6
    np.testing.assert_allclose(np.angle(steps[-1] / f)[seen], 0, atol=1e-9)


def test_retrieval_falls_into_the_crystal():
    problem = problem_of(CRYSTAL)
    runs = [retrieve(problem, 10, 400, 1e-4, np.array([seed], np.uint64)) for seed in range(5)]
    found = [miss <= ENOUGH for _, miss, _ in runs]
    assert sum(found) >= 3
    for (x, miss, done), there in zip(runs, found, strict=True):
        assert there == (done < 400)
        assert missed(factors(x, problem), problem, 10) ** 2 == pytest.approx(miss, rel=1e-6)


def rebuild(crystal: Crystal, seed: int = 0, noise: float = 0.0, **keys) -> tuple[Solution, float | None]:
    """The solution, and its distance from the crystal, None without a match."""
    n = len(crystal)
    target = DESCRIPTOR.encode(crystal, np.zeros(n, int), 1)
    target *= 1 + noise * np.random.default_rng(seed).standard_normal(len(target))
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig(**keys))
    solution = solver.solve(target, crystal.lattice, crystal.numbers, seed, noise_floor=noise)
    built = Crystal(crystal.lattice, solution.frac, crystal.numbers)
    distance = MATCHER.get_rms_dist(to_structure(built), to_structure(crystal))
    return solution, None if distance is None else distance[0]


@pytest.mark.parametrize("seed", range(4))
def test_sixteen_atoms_without_symmetry_are_found_without_annealing(seed, monkeypatch):
    """Annealing misses such crystals with any budget that one would wait for."""
    monkeypatch.setattr(search, "build_grid", lambda *_: pytest.fail("annealed"))
    monkeypatch.setattr(anneal, "PHASED", 10**6)
    solution, distance = rebuild(triclinic(16, seed))
    assert solution.stop_reason == "converged"
    assert distance is not None
    assert distance < 0.01


def test_noisy_target_is_found():
    solution, distance = rebuild(CRYSTAL, noise=0.05)
    assert solution.stop_reason == "noise-floor"
    assert distance is not None
    assert distance < 0.1


def test_molecules_are_found():
    """0.7 angstrom long when scaled: both atoms make one peak, which the polish parts."""
    lattice = np.diag([2.8, 3.2, 6.97])
    centres = np.array([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]]) @ lattice
    arms = 0.35 * np.array([[0.9, 0.2, 0.39], [0.9, -0.2, 0.39]])
    cart = np.vstack([centres - arms, centres + arms])
    solution, distance = rebuild(Crystal(lattice, cart @ np.linalg.inv(lattice), np.full(4, 1)))
    assert solution.stop_reason == "converged"
    assert distance is not None


def test_some_starts_anneal(monkeypatch):
    """Whatever keeps phases from being retrieved, a small crystal is found."""
    monkeypatch.setattr(anneal, "retrieve", lambda problem, n, *_: (np.zeros((n, 3)), 1.0, 1))
    solution, distance = rebuild(triclinic(6, 1))
    assert solution.stop_reason == "converged"
    assert distance is not None


def test_same_bits_in_threads_and_alone():
    crystals = [CRYSTAL, triclinic(6, 3), triclinic(8, 4)]
    alone = [rebuild(c, seed=2)[0] for c in crystals]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda c: rebuild(c, seed=2)[0], crystals))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.frac, b.frac)
        assert (a.residual, a.iterations) == (b.residual, b.iterations)
