from __future__ import annotations

import math

import numpy as np
import pytest

from hpcgen.evaluate.distributions import SAMPLES, Mean, earth_movers


def test_distance_by_hand():
    # half of the mass moves by 2, the other half stays
    assert earth_movers([1.0, 3.0], [1.0, 1.0]) == (1.0, 0.0)
    # a shift of everything is its distance, whatever the sizes
    assert earth_movers([2.0, 3.0, 2.0, 3.0], [0.0, 1.0]).value == pytest.approx(2.0)
    # numbers of elements: 60 % ternary against 100 % ternary, the rest binary
    assert earth_movers([3, 3, 3, 2, 2], [3]).value == pytest.approx(0.4)


def test_more_than_the_sample_is_drawn_and_repeated():
    x = np.arange(3 * SAMPLES, dtype=float)
    found = earth_movers(x, x, draws=7, seed=1)
    assert 0 < found.spread < found.value < 200  # a draw is not the whole
    assert found == earth_movers(x, x, draws=7, seed=1)
    assert found != earth_movers(x, x, draws=7, seed=2)


def test_nothing_has_no_distance():
    assert math.isnan(earth_movers([], [1.0]).value)
    assert math.isnan(earth_movers([1.0], []).value)


def test_mean_and_spread():
    assert Mean.of([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert Mean.of([5.0]) == (5.0, 0.0)
