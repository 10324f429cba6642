from __future__ import annotations

import numpy as np
import pytest

from hpcgen.evaluate import coverage
from hpcgen.evaluate.coverage import Thresholds, nearest


def points(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_recall_goes_over_the_reference_and_precision_over_what_was_made():
    near = nearest(points(0.0, 5.0, 9.0), points(0.0, 0.0, 0.0), points(0.1, 7.0), points(0.0, 0.0))
    limits = Thresholds(structure=0.2, composition=1.0)
    assert near.recall(limits) == 1 / 2  # 0.1 is near 0.0; 7 is 2 away from everything
    assert near.precision(limits) == 1 / 3
    assert near.recall(Thresholds(2.0, 1.0)) == 1.0


def test_structure_and_composition_are_sought_on_their_own():
    """The real crystal has its structure from one generated crystal and its composition from another, and counts."""
    near = nearest(points(0.0, 50.0), points(90.0, 0.0), points(0.0), points(0.0))
    assert near.recall(Thresholds(0.1, 0.1)) == 1.0
    assert near.precision(Thresholds(0.1, 0.1)) == 0.0


def test_thresholds_are_included():
    near = nearest(points(0.25), points(4.0), points(0.0), points(0.0))
    assert near.recall(Thresholds(0.25, 4.0)) == 1.0
    assert near.recall(Thresholds(0.25, 3.999)) == 0.0


def test_without_fingerprint_nothing_is_covered_but_it_counts():
    made, of = np.array([[0.0], [np.nan]]), points(0.0, 0.0)
    near = nearest(made, of, points(0.0), points(0.0))
    assert near.precision(Thresholds(1, 1)) == 0.5
    # a reference crystal without fingerprint is no row of the recall
    assert (
        nearest(points(0.0), points(0.0), np.array([[0.0], [np.nan]]), points(0.0, 0.0)).recall(Thresholds(1, 1)) == 1
    )


def test_blocks_do_not_change_distances(monkeypatch):
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.normal(size=(n, 7)) for n in (23, 23, 11, 11))
    whole = nearest(a, b, c, d)
    monkeypatch.setattr(coverage, "BLOCK", 5)
    parts = nearest(a, b, c, d)
    for name in ("recall_structure", "recall_composition", "precision_structure", "precision_composition"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    np.testing.assert_allclose(whole.recall_structure[3], min(np.linalg.norm(a - c[3], axis=1)))


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(ValueError, match="0 reference"):
        nearest(points(0.0), points(0.0), np.full((2, 1), np.nan), points(0.0, 0.0))
    with pytest.raises(ValueError, match="0 generated"):
        nearest(np.zeros((0, 1)), np.zeros((0, 1)), points(0.0), points(0.0))


def test_published_thresholds():
    assert (coverage.CDVAE["mp"].name, coverage.CDVAE["perov"].name) == ("10, 0.4", "4, 0.2")
    assert [coverage.STRUCTREPDIFF[k].name for k in ("perov", "carbon", "mp")] == ["6, 0.8", "4, 1", "12, 0.6"]
