"""Scalers: round trips, what they make of the variance, and their state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgen.represent.scaling import HalfWhitenedPca, Standard


def correlated(rows: int = 400, dims: int = 30, rank: int = 8, seed: int = 0) -> np.ndarray:
    """Rows of a rank-limited distribution with falling variances, off the origin."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dims, rank)))[0].T
    return rng.normal(size=(rows, rank)) * 3.0 ** -np.arange(rank) @ basis + rng.normal(size=dims)


def test_standard_round_trip_and_moments() -> None:
    x = correlated() * np.linspace(1, 50, 30)
    scaler = Standard.fit(x, 1e-9)
    z = scaler.forward(x)
    np.testing.assert_allclose(scaler.inverse(z), x, atol=1e-10)
    np.testing.assert_allclose([z.mean(0), z.std(0)], [np.zeros(30), np.ones(30)], atol=1e-9)


def test_a_dimension_that_hardly_varies_is_not_blown_up() -> None:
    x = np.array([[1.0, 5.0], [3.0, 5.0], [1.0, 5.001], [3.0, 5.0]])
    z = Standard.fit(x, 0.25).forward(x)
    assert z[:, 0].std() == pytest.approx(1)
    assert np.abs(z[:, 1]).max() < 0.01


def test_bits_share_one_scale() -> None:
    bits = np.eye(5)[[0, 0, 0, 0, 0, 0, 1, 1, 2, 3]]  # the last column never occurs
    scaler = Standard.fit_common(bits)
    z = scaler.forward(bits)
    assert len(set(scaler.scale)) == 1
    assert (z**2).mean() == pytest.approx(1)
    np.testing.assert_allclose(scaler.inverse(z), bits, atol=1e-12)
    assert Standard.fit_common(np.ones((3, 2))).forward(np.ones((3, 2))).tolist() == [[0, 0]] * 3


def test_all_components_invert_exactly() -> None:
    x = correlated()
    scaler = HalfWhitenedPca.fit(x, 1.0)
    assert scaler.length == 8
    np.testing.assert_allclose(scaler.inverse(scaler.forward(x)), x, atol=1e-9)
    # also rows that were not fitted, as long as they lie in the same subspace
    np.testing.assert_allclose(scaler.inverse(scaler.forward(x[:5] * 2 - x[5:10])), x[:5] * 2 - x[5:10], atol=1e-9)


def test_as_many_components_as_the_variance_asks_for() -> None:
    x = correlated()
    lost = []
    for variance in (0.8, 0.95, 0.999):
        scaler = HalfWhitenedPca.fit(x, variance)
        residual = x - scaler.inverse(scaler.forward(x))
        lost.append((residual**2).sum() / ((x - x.mean(0)) ** 2).sum())
        assert lost[-1] <= 1 - variance
        assert scaler.kept == pytest.approx(1 - lost[-1])
        one_fewer = np.var(x @ scaler.components[:-1].T, axis=0).sum() / np.var(x, axis=0).sum()
        assert one_fewer < variance
    assert lost[0] > lost[1] > lost[2]


def test_whitening_is_half_and_the_block_has_unit_variance() -> None:
    x = correlated()
    z = HalfWhitenedPca.fit(x, 1.0).forward(x)
    sigma = np.sqrt(np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1][:8])
    ratio = z.std(0) / np.sqrt(sigma)  # sigma / sqrt(sigma_1 sigma) is proportional to sqrt(sigma)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    assert (z**2).mean() == pytest.approx(1)


def test_units_do_not_matter_where_dimensions_are_standardised() -> None:
    x = correlated(dims=6, rank=6)
    units = 10.0 ** np.arange(6)
    a = HalfWhitenedPca.fit(x, 1.0, same_unit=False)
    b = HalfWhitenedPca.fit(x * units, 1.0, same_unit=False)
    np.testing.assert_allclose(np.abs(a.forward(x)), np.abs(b.forward(x * units)), rtol=1e-6, atol=1e-8)
    dead = np.concatenate([x, np.full((len(x), 1), 7.0)], axis=1)
    c = HalfWhitenedPca.fit(dead, 1.0, same_unit=False)
    np.testing.assert_allclose(c.inverse(c.forward(dead)), dead, atol=1e-9)


def test_signs_do_not_depend_on_the_order_of_the_rows() -> None:
    x = correlated()
    a = HalfWhitenedPca.fit(x, 0.999)
    b = HalfWhitenedPca.fit(x[::-1], 0.999)
    np.testing.assert_allclose(a.components, b.components, atol=1e-8)
    assert (a.components[np.arange(a.length), np.abs(a.components).argmax(1)] > 0).all()


@pytest.mark.parametrize("rows", [1, 5])
def test_structures_that_are_all_alike(rows: int) -> None:
    x = np.tile(np.arange(4.0), (rows, 1))
    scaler = HalfWhitenedPca.fit(x, 0.999)
    assert scaler.forward(x).tolist() == [[0.0]] * rows
    np.testing.assert_allclose(scaler.inverse(scaler.forward(x)), x)


def test_state_loads_with_weights_only(tmp_path: Path) -> None:
    x = correlated()
    for scaler in (Standard.fit(x, 0.1), HalfWhitenedPca.fit(x, 0.99, same_unit=False)):
        torch.save(scaler.state(), tmp_path / "state.pt")
        restored = type(scaler).from_state(torch.load(tmp_path / "state.pt", weights_only=True))
        assert (restored.forward(x) == scaler.forward(x)).all()
        assert (restored.inverse(scaler.forward(x)) == scaler.inverse(scaler.forward(x))).all()
        as_lists = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in scaler.state().items()}
        assert (type(scaler).from_state(as_lists).forward(x) == scaler.forward(x)).all()
