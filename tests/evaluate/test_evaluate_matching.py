from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from hpcgen.crystal import Crystal, from_atoms, to_structure
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.matching import (
    STOL,
    Matches,
    best_of,
    everyone_to_reference,
    match_pairs,
    matcher,
    metre,
    rms,
)

SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
CSCL = from_atoms(bulk("NaCl", "cesiumchloride", a=3.4))
OXIDE = from_atoms(bulk("MgO", "rocksalt", a=4.2))
LOST = Failure("row:1", "evaluate", "broken-cif", "no text")


def rattled(crystal: Crystal, amplitude: float, seed: int = 0) -> Crystal:
    moves = amplitude * np.random.default_rng(seed).standard_normal(crystal.frac.shape)
    return Crystal(crystal.lattice, crystal.frac + moves @ np.linalg.inv(crystal.lattice), crystal.numbers)


def test_rms_is_the_matchers():
    near = rattled(SALT, 0.2)
    expected = matcher().get_rms_dist(to_structure(near), to_structure(SALT))[0]
    assert 0.01 < expected < STOL
    assert rms((near, SALT)) == expected
    assert rms((SALT, SALT)) == pytest.approx(0, abs=1e-9)
    assert np.isnan(rms((OXIDE, SALT)))
    assert np.isnan(rms((LOST, SALT)))


def test_denominator_is_every_row_and_valid_only_is_a_condition_on_the_match():
    found = Matches(np.array([0.1, 0.3, np.nan, 0.2]), np.array([True, False, True, True]))
    assert found.rates() == {
        "rows": 4,
        "match_rate_all": 0.75,
        "rmse_all": pytest.approx(0.2),
        "match_rate_valid_only": 0.5,
        "rmse_valid_only": pytest.approx(0.15),
    }
    assert found.rates([False, False, True, False])["rmse_all"] is None
    assert found.rates([False] * 4)["match_rate_all"] is None


def test_pairs_and_failures():
    found = match_pairs([SALT, CSCL, LOST], [SALT, SALT, SALT], [True, True, False], processes=1)
    assert np.isfinite(found.rms).tolist() == [True, False, False]
    with pytest.raises(DataError, match="2 predictions for 1 reference"):
        match_pairs([SALT, SALT], [SALT], [True, True], processes=1)


def test_best_of_prefers_valid_predictions():
    a = Matches(np.array([0.1, np.nan, 0.3]), np.array([False, True, True]))
    b = Matches(np.array([0.4, 0.2, 0.1]), np.array([True, True, True]))
    best = best_of([a, b])
    assert best.rms.tolist() == [0.4, 0.2, 0.1]
    assert best.valid.all()


def test_everyone_to_reference_does_not_depend_on_the_order_of_predictions():
    predictions = [CSCL, rattled(SALT, 0.2, seed=1), LOST, SALT, OXIDE]
    there = everyone_to_reference(predictions, [SALT, CSCL, OXIDE], processes=1)
    back = everyone_to_reference(predictions[::-1], [SALT, CSCL, OXIDE], processes=1)
    np.testing.assert_array_equal(there, back)
    np.testing.assert_allclose(there, 0, atol=1e-9)  # the exact copy, not the rattled one


def test_metre_and_corrected_rmse_by_hand():
    assert metre(np.array([0.1, np.nan, 0.3, np.nan])) == {
        "metre": 0.5,
        "crmse": pytest.approx((0.1 + 0.3 + 2 * STOL) / 4),
    }


def test_a_generator_of_one_crystal_has_a_low_metre():
    """What METRe is for: one crystal that is predicted again and again matches one reference row."""
    smallest = everyone_to_reference([SALT] * 5, [SALT, CSCL, OXIDE, bulk_copper()], processes=1)
    assert metre(smallest)["metre"] == 0.25


def bulk_copper() -> Crystal:
    return from_atoms(bulk("Cu"))
