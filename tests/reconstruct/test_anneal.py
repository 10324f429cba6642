"""The annealing solver: it finds crystals, stops for the right reason, and depends on the seed alone."""

from __future__ import annotations

import csv
import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from hpcgen.config import AnnealConfig, PairSpectrumConfig
from hpcgen.crystal import Crystal, from_structure, to_structure
from hpcgen.reconstruct.anneal import AnnealSolver
from hpcgen.reconstruct.solution import Solution
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_spectrum import PairSpectrum

DESCRIPTOR = PairSpectrum(PairSpectrumConfig().resolved(2, exact=True))
MATCHER = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)

PEROVSKITE = Crystal(
    np.diag([3.9, 3.9, 4.1]),
    [[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0.03], [0.5, 0, 0.48], [0, 0.5, 0.48]],
    np.array([38, 22, 8, 8, 8]),
)
ROCKSALT = Crystal(
    5.6 * np.eye(3),
    [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]],
    np.array([11] * 4 + [17] * 4),
)


def random_crystal() -> Crystal:
    """Six atoms in a triclinic cell, no two closer than 1.8 angstrom.

    Without any symmetry this is far harder than a real crystal.
    """
    rng = np.random.default_rng(3)
    lattice = 4.8 * np.eye(3) + rng.normal(scale=0.4, size=(3, 3))
    while True:
        crystal = Crystal(lattice, rng.random((6, 3)), np.array([22, 22, 8, 8, 8, 8]))
        if crystal.smallest_distance() > 1.8:
            return crystal


def rebuild(crystal: Crystal, seed: int = 0, noise: float = 0.0, **keys) -> tuple[Solution, Crystal]:
    species, elements = species_channels(crystal.numbers)
    target = DESCRIPTOR.encode(crystal, species, len(elements))
    target *= 1 + noise * np.random.default_rng(seed).standard_normal(len(target))
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig(**keys))
    solution = solver.solve(target, crystal.lattice, crystal.numbers, seed, noise_floor=noise)
    return solution, Crystal(crystal.lattice, solution.frac, crystal.numbers)


def matches(a: Crystal, b: Crystal) -> bool:
    return MATCHER.get_rms_dist(to_structure(a), to_structure(b)) is not None


@pytest.mark.parametrize("crystal", [PEROVSKITE, ROCKSALT, random_crystal()], ids=["perovskite", "rocksalt", "random"])
def test_exact_targets_are_found(crystal):
    solution, built = rebuild(crystal)
    assert solution.stop_reason == "converged"
    assert solution.residual**2 <= AnnealConfig().tolerance
    assert MATCHER.get_rms_dist(to_structure(built), to_structure(crystal))[0] < 0.01
    assert 0 <= solution.confidence <= 1
    assert ((solution.frac >= 0) & (solution.frac < 1)).all()


def test_residual_is_that_of_the_crystal():
    solution, built = rebuild(random_crystal(), noise=0.05, starts=1)
    species, elements = species_channels(built.numbers)
    exact = DESCRIPTOR.encode(random_crystal(), species, len(elements))
    target = exact * (1 + 0.05 * np.random.default_rng(0).standard_normal(len(exact)))
    q = DESCRIPTOR.encode(built, species, len(elements))
    assert solution.residual == pytest.approx(np.linalg.norm(q - target) / np.linalg.norm(target), rel=1e-6)


def test_one_atom_needs_no_search():
    solution, _ = rebuild(Crystal(2.6 * np.eye(3), [[0.4, 0.4, 0.4]], np.array([84])))
    assert solution.frac.tolist() == [[0, 0, 0]]
    assert (solution.residual, solution.iterations, solution.stop_reason) == (pytest.approx(0), 0, "converged")


def test_easy_target_stops_at_once():
    """CsCl: the first start finds it, and no other is spent."""
    config = AnnealConfig()
    solution, _ = rebuild(Crystal(4.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([55, 17])))
    assert solution.stop_reason == "converged"
    assert solution.confidence == 1.0
    assert solution.iterations <= config.sweeps + 6 + 8 + config.polish


def test_noise_floor_stops_before_the_budget():
    crystal = random_crystal()
    floor, built = rebuild(crystal, noise=0.05)
    assert floor.stop_reason == "noise-floor"
    assert floor.residual <= 0.05
    assert matches(built, crystal)
    species, elements = species_channels(crystal.numbers)
    target = DESCRIPTOR.encode(crystal, species, len(elements))
    target *= 1 + 0.05 * np.random.default_rng(0).standard_normal(len(target))
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig(starts=3))
    spent = solver.solve(target, crystal.lattice, crystal.numbers, 0)
    assert spent.stop_reason == "budget"
    assert spent.iterations > floor.iterations
    assert spent.residual <= floor.residual + 1e-12


def test_same_seed_same_crystal_in_threads_and_alone():
    crystals = [PEROVSKITE, random_crystal(), ROCKSALT, random_crystal()]
    alone = [rebuild(c, seed=3, noise=0.02, starts=1)[0] for c in crystals]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda c: rebuild(c, seed=3, noise=0.02, starts=1)[0], crystals))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.frac, b.frac)
        assert (a.residual, a.iterations, a.confidence) == (b.residual, b.iterations, b.confidence)
    assert not np.array_equal(alone[1].frac, rebuild(crystals[1], seed=4, noise=0.02, starts=1)[0].frac)


def test_atoms_keep_their_order():
    order = np.array([4, 0, 2, 1, 3])
    shuffled = Crystal(PEROVSKITE.lattice, PEROVSKITE.frac[order], PEROVSKITE.numbers[order])
    solution, built = rebuild(shuffled)
    assert solution.stop_reason == "converged"
    assert matches(built, PEROVSKITE)


def test_blocks_and_trace_account_for_the_residual():
    solution, _ = rebuild(random_crystal(), noise=0.05, starts=1)
    assert list(solution.blocks) == ["rdf", "s"]
    assert sum(v**2 for v in solution.blocks.values()) == pytest.approx(solution.residual**2)
    work, best = solution.trace.T
    assert (np.diff(work) > 0).all()
    assert (np.diff(best) <= 0).all()
    assert work[-1] == solution.iterations
    assert best[-1] == pytest.approx(solution.residual, rel=1e-6)


def test_impossible_targets_are_errors():
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig())
    good = DESCRIPTOR.encode(PEROVSKITE, [0, 1, 2, 2, 2], 3)
    cases = [
        (good[:-1], PEROVSKITE.lattice, PEROVSKITE.numbers, "finite numbers"),
        (np.full_like(good, np.nan), PEROVSKITE.lattice, PEROVSKITE.numbers, "finite numbers"),
        (good, np.zeros((3, 3)), PEROVSKITE.numbers, "no volume"),
        (good, PEROVSKITE.lattice, [38, 22, 8, 8, 16], "finite numbers"),
        (good, PEROVSKITE.lattice, [], "finite numbers"),
    ]
    for target, lattice, numbers, message in cases:
        with pytest.raises(ValueError, match=message):
            solver.solve(target, lattice, numbers, 0)


def test_impossible_target_returns_the_best_so_far():
    """No crystal has a negative radial distribution: the answer is a residual, not an exception."""
    solver = AnnealSolver(DESCRIPTOR, AnnealConfig(starts=2))
    solution = solver.solve(-np.ones(DESCRIPTOR.length(1)), 4 * np.eye(3), [6, 6, 6], 0)
    assert solution.stop_reason == "budget"
    assert np.isfinite(solution.frac).all()
    assert solution.residual > 0.5


def test_warm_up_compiles_everything(data_folder):
    """After warm_up a first structure takes no compilation: far less than a second."""
    AnnealSolver(DESCRIPTOR, AnnealConfig()).warm_up()
    crystal = real_rows(data_folder / "perov_5_val.csv.gz", 1)[0]
    assert rebuild(crystal)[0].stop_reason == "converged"


def real_rows(path, n: int) -> list[Crystal]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row["cif"] for _, row in zip(range(n), csv.DictReader(file), strict=False)]
    return [from_structure(Structure.from_str(cif, fmt="cif")).niggli() for cif in rows]


@pytest.mark.parametrize("name", ["perov_5_val", "mp_20_biternary_val"])
def test_real_rows(data_folder, name):
    crystals = real_rows(data_folder / f"{name}.csv.gz", 10)
    assert sum(matches(rebuild(c, seed=i)[1], c) for i, c in enumerate(crystals)) >= 9
