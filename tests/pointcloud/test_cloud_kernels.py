"""The compiled kernels of decoding against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import cut_tree, ward
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from hpcgen.pointcloud.kernels import apportion, cut, loneliness, tree
from hpcgen.pointcloud.mixture import STRAY, fit

CELL = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [-0.5, 0.7, 9.0]])


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("clusters", [1, 2, 5, 17, 40])
@pytest.mark.parametrize("shift", [0.0, 0.45])
def test_tree_is_wards(clusters: int, shift: float) -> None:
    """Points within half a cell, whose nearest images scipy can have as they are, seen across a face as well."""
    frac = 0.3 + 0.4 * np.random.default_rng(0).random((40, 3))
    label = np.empty(40, dtype=np.int64)
    cut(tree((frac + shift) % 1, CELL), clusters, label)
    assert same_partition(label, cut_tree(ward(frac @ CELL), clusters).ravel())
    assert set(label) == set(range(clusters))


def test_loneliness_is_the_distance_to_the_kth_neighbour() -> None:
    frac = 0.3 + 0.4 * np.random.default_rng(1).random((30, 3))
    out = np.empty(30)
    loneliness((frac + 0.5) % 1, CELL, 3, out)
    distances, _ = NearestNeighbors(n_neighbors=4).fit(frac @ CELL).kneighbors()
    np.testing.assert_allclose(out, distances[:, 2])
    loneliness(frac[:3], CELL, 3, out[:3])
    assert np.isinf(out[:3]).all()


@pytest.mark.parametrize("points", [64, 100, 128])
def test_counts_of_real_clouds_are_explained(points: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        atoms = rng.integers(1, 7, rng.integers(1, 4))
        n = int(atoms.sum())
        extra = rng.permutation(n) < points % n
        of = np.repeat(np.arange(len(atoms)), atoms)
        counts = np.bincount(of, weights=points // n + extra).astype(np.int64)
        out = np.zeros_like(counts)
        assert apportion(counts, n, out) == 0
        assert (out == atoms).all()


def test_a_mixture_is_fitted_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(2)
    truth = np.array([[0.25, 0.3, 0.4], [0.45, 0.35, 0.45], [0.6, 0.6, 0.3]])
    of = np.repeat(np.arange(3), 40)
    frac = truth[of] + 0.03 * rng.standard_normal((120, 3))
    share = np.eye(3)[of]
    mean, size, spread = truth.copy(), np.empty(3), np.empty(2)
    slot = np.zeros(120, dtype=np.int64)
    arguments = (slot, np.array([3]), np.array([0]), CELL)
    evidence = fit(frac, *arguments, share, mean, size, spread, -np.inf)
    reference = GaussianMixture(3, covariance_type="tied", means_init=truth @ CELL, random_state=0).fit(frac @ CELL)
    np.testing.assert_allclose(mean @ CELL, reference.means_, atol=0.02)
    np.testing.assert_allclose(np.sqrt(spread[0] / spread[1]), np.sqrt(np.trace(reference.covariances_)), rtol=0.03)
    assert np.isfinite(evidence)
    assert size.sum() == pytest.approx(120, abs=1)
    moved_mean, moved_share = (truth + 0.55) % 1, np.eye(3)[of]
    moved = fit((frac + 0.55) % 1, *arguments, moved_share, moved_mean, size, spread, -np.inf)
    assert moved == pytest.approx(evidence)
    assert 0 < STRAY < 1


def test_evidence_prefers_the_true_number() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([[0.2, 0.2, 0.2], [0.7, 0.2, 0.2], [0.2, 0.7, 0.7], [0.7, 0.7, 0.7]])
    frac = np.repeat(truth, 32, axis=0) + 0.02 * rng.standard_normal((128, 3))
    joins = tree(frac, CELL)
    scores = []
    for n in range(1, 9):
        label = np.empty(128, dtype=np.int64)
        cut(joins, n, label)
        mean = np.array([frac[label == k][0] for k in range(n)])
        arrays = (np.eye(n)[label], mean, np.empty(n), np.empty(2))
        scores.append(fit(frac, np.zeros(128, np.int64), np.array([n]), np.array([0]), CELL, *arrays, -np.inf))
    assert np.argmax(scores) == 3
