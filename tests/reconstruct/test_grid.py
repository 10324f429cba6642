"""The grid's table of the pair function, against ASE's distances and plain sums over reciprocal vectors."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from hpcgen.config import PairSpectrumConfig
from hpcgen.reconstruct import grid as grid_module
from hpcgen.reconstruct.grid import BASIS_ERROR, build_grid, pair_targets
from hpcgen.represent.pair_spectrum import K_DAMP, PairSpectrum

ATOMS = 4
SHEAR = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]])
CELLS = {
    "triclinic": np.diag([3.6, 4.0, 4.4]) + np.random.default_rng(2).normal(scale=0.3, size=(3, 3)),
    "flat": np.array([[6.5, 0.0, 0.0], [3.1, 5.8, 0.0], [0.4, 0.3, 1.7]]),
    "sheared": SHEAR @ np.diag([3.6, 4.0, 4.4]),
}


def prepared(name: str, **settings):
    """Descriptor, cell scaled to 2.5^3 per atom, and its tables."""
    descriptor = PairSpectrum(PairSpectrumConfig(**settings))
    tables, _ = descriptor.prepare(CELLS[name], ATOMS)
    return descriptor, tables.cell, tables


def pair_function(descriptor: PairSpectrum, cell: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(p, D) Phi of displacements (p, 3) as defined: ASE's distances to all images, and all reciprocal vectors."""
    config, bins = descriptor.config, descriptor.structure_factor
    h = np.stack(np.meshgrid(*[np.arange(-16, 17)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    waves = 2 * np.pi * h[h.any(axis=1)] @ np.linalg.inv(cell).T
    k = np.linalg.norm(waves, axis=1)
    waves, k = waves[k < 7], k[k < 7]
    a = 2 * bins.amplitude / ATOMS / k * np.exp(-((k / K_DAMP) ** 2))
    a = 0.5 * a[:, None] * np.exp(-0.5 * ((k[:, None] - descriptor.wave_numbers) / bins.width) ** 2)
    rows = []
    for d in points:
        i, j, r = neighbor_list("ijd", Atoms("H2", positions=[[0, 0, 0], d], cell=cell, pbc=True), config.cutoff)
        r = np.maximum(r[(i == 0) & (j == 1)], 0.3)[:, None]
        phi = np.exp(-0.5 * ((r - descriptor.centres) / config.rdf_width) ** 2) * 3 / np.maximum(r, 0.6)
        rdf = (phi * 0.5 * (1 + np.cos(np.pi * r / config.cutoff))).sum(axis=0)
        rows.append(np.concatenate([rdf, np.cos(waves @ d) @ a]))
    return np.array(rows)


@pytest.mark.parametrize("name", CELLS)
def test_table_holds_the_pair_function_of_every_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a basis that leaves out nothing. Where wrapping does not give the nearest image the table must know it."""
    monkeypatch.setattr(grid_module, "BASIS_ERROR", 1e-7)
    descriptor, cell, tables = prepared(name)
    grid = build_grid(tables, 0.6)
    points = np.random.default_rng(0).integers(0, grid.shape, (40, 3))
    frac = points / grid.shape
    wrapped = np.linalg.norm((frac - np.rint(frac)) @ cell, axis=1)
    nearest = [
        Atoms("H2", scaled_positions=[[0, 0, 0], f], cell=cell, pbc=True).get_distance(0, 1, mic=True) for f in frac
    ]
    assert (np.array(nearest) < wrapped - 0.05).any()
    expected = pair_function(descriptor, cell, frac @ cell)
    found = grid.phi[tuple(points.T)] @ grid.basis.T
    scale = np.sqrt((expected**2).sum(axis=1).mean())
    np.testing.assert_allclose(found / scale, expected / scale, atol=3e-3)


@pytest.mark.parametrize("name", CELLS)
def test_basis_is_orthonormal_and_loses_no_more_than_it_says(name: str) -> None:
    descriptor, cell, tables = prepared(name)
    grid = build_grid(tables, 0.6)
    assert grid.basis.shape[1] % 8 == 0
    used = np.linalg.norm(grid.basis, axis=0) > 0
    assert not used[np.argmin(used) :].any() or used.all()  # zero columns come last
    assert used.sum() < len(grid.basis)  # shorter than the vector: what the basis is for
    np.testing.assert_allclose(grid.basis[:, used].T @ grid.basis[:, used], np.eye(used.sum()), atol=1e-10)
    points = np.random.default_rng(1).integers(0, grid.shape, (20, 3))
    expected = pair_function(descriptor, cell, points / grid.shape @ cell)
    lost = np.linalg.norm(expected - grid.phi[tuple(points.T)] @ grid.basis.T, axis=1)
    assert lost.max() < 1.2 * BASIS_ERROR * np.sqrt((expected**2).sum(axis=1).mean()) + 1e-2


def test_table_is_the_same_for_a_displacement_and_its_opposite() -> None:
    _, _, tables = prepared("sheared")
    grid = build_grid(tables, 0.6)
    assert len(set(grid.shape)) > 1
    opposite = grid.phi[np.ix_(*(-np.arange(n) % n for n in grid.shape))]
    np.testing.assert_array_equal(grid.phi, opposite)
    assert np.ptp(grid.phi, axis=(0, 1, 2)).max() > 0.1


def test_targets_keep_their_distances_in_the_basis() -> None:
    """Descriptors of crystals on the grid: distances in the basis and of the vectors, order of the pairs."""
    descriptor, cell, tables = prepared("triclinic")
    grid = build_grid(tables, 0.6)
    bins = (len(descriptor.centres), len(descriptor.wave_numbers))
    species = np.array([0, 1, 1, 2])
    rng = np.random.default_rng(5)
    placed = [rng.integers(0, grid.shape, (4, 3)) / grid.shape @ cell for _ in range(6)]
    vectors = [descriptor.evaluate(cell, x, species, 3, jacobian=False)[0] for x in placed]
    c, d = np.triu_indices(3)
    targets = [pair_targets(v, 3, bins, grid.basis) for v in vectors]
    for a, u in zip(targets, vectors, strict=True):
        np.testing.assert_array_equal(a, a.transpose(1, 0, 2))
        by_pair = np.concatenate([u[: 6 * bins[0]].reshape(6, -1), u[6 * bins[0] :].reshape(6, -1)], axis=1)
        np.testing.assert_allclose(a[c, d], by_pair @ grid.basis, rtol=1e-5, atol=1e-5)
        for b, v in zip(targets, vectors, strict=True):
            distance = np.linalg.norm((a - b)[c, d].astype(float))
            assert distance == pytest.approx(np.linalg.norm(u - v), rel=0.02, abs=1e-6)
