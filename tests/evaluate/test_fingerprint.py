from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from hpcgen.crystal import Crystal, from_atoms, to_structure
from hpcgen.errors import Failure
from hpcgen.evaluate import measured
from hpcgen.evaluate.cache import Cache
from hpcgen.evaluate.fingerprint import (
    COMPOSITION_SIZE,
    STRUCTURE_SIZE,
    composition_fingerprinter,
    definition,
    structure_fingerprinter,
)
from hpcgen.evaluate.measured import measure

pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")

SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
DIAMOND = from_atoms(bulk("C", "diamond", a=3.57))
# the two atoms lie apart, but each lies 0.4 angstrom from its own images
THIN = Crystal(np.diag([0.4, 5.0, 5.0]), [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([11, 17]))
CLOSE = Crystal(np.eye(3) * 4, [[0, 0, 0], [0.1, 0, 0]], np.array([11, 17]))
LOST = Failure("row:9", "evaluate", "broken-cif", "no text")


def test_structure_is_the_mean_of_matminers_sites():
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint
    from matminer.featurizers.structure import SiteStatsFingerprint

    found = structure_fingerprinter().of(SALT)
    assert found.shape == (STRUCTURE_SIZE,)
    sites = SiteStatsFingerprint(CrystalNNFingerprint.from_preset("ops"), stats=("mean",))
    np.testing.assert_allclose(found, sites.featurize(to_structure(SALT)), atol=1e-12)
    labels = CrystalNNFingerprint.from_preset("ops").feature_labels()
    assert found[labels.index("octahedral CN_6")] == pytest.approx(1, abs=0.02)
    assert structure_fingerprinter().of(DIAMOND)[labels.index("tetrahedral CN_4")] == pytest.approx(1, abs=0.02)


def test_composition_is_magpie_on_cdvaes_scale():
    from matminer.featurizers.composition.composite import ElementProperty

    labels = ElementProperty.from_preset("magpie").feature_labels()
    assert len(labels) == COMPOSITION_SIZE
    fingerprinter = composition_fingerprinter()
    raw = fingerprinter.of(SALT) * fingerprinter._deviation + fingerprinter._mean
    value = dict(zip(labels, raw, strict=True))
    assert value["MagpieData minimum Number"] == pytest.approx(11)
    assert value["MagpieData maximum Number"] == pytest.approx(17)
    assert value["MagpieData range Number"] == pytest.approx(6)
    assert value["MagpieData mean Number"] == pytest.approx(14)
    assert value["MagpieData avg_dev Number"] == pytest.approx(3)
    assert value["MagpieData mean Electronegativity"] == pytest.approx((0.93 + 3.16) / 2)
    # a supercell has the same composition
    double = from_atoms(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    np.testing.assert_array_equal(fingerprinter.of(double), fingerprinter.of(SALT))


def test_the_scale_fits_its_features():
    """CDVAE's means are of all kinds of elements: that of a minimum lies below that of a maximum."""
    f = composition_fingerprinter()
    mean = f._mean.reshape(-1, 6)
    assert (f._deviation > 0).all()
    assert (mean[:, 0] <= mean[:, 3]).all()
    assert (mean[:, 3] <= mean[:, 1]).all()
    np.testing.assert_allclose(mean[:, 2], mean[:, 1] - mean[:, 0], atol=1e-6)


def test_what_has_no_fingerprint_is_nan():
    dense = Crystal(np.eye(3) * 0.5, [[0, 0, 0], [0.5, 0.5, 0.5]], np.array([11, 17]))
    assert np.isnan(structure_fingerprinter().of(dense)).all()
    beyond = Crystal(SALT.lattice, SALT.frac, np.array([118, 17]))
    assert np.isnan(composition_fingerprinter().of(beyond)).all()


def test_measured_by_hand():
    found = measure([SALT, LOST, THIN, CLOSE, SALT], processes=1, cache=Cache(None, definition(), STRUCTURE_SIZE))
    assert found.structure_valid.tolist() == [True, False, True, False, True]
    assert found.own_images_valid.tolist() == [True, False, False, False, True]
    assert found.composition_valid.tolist() == [True, False, True, True, True]
    assert found.formula == ["NaCl", "", "NaCl", "NaCl", "NaCl"]
    assert found.n_elements.tolist() == [2, 0, 2, 2, 2]
    assert found.has_fingerprint[[0, 1]].tolist() == [True, False]
    assert found.density[0] == pytest.approx(58.44 * 1.66054 / SALT.volume, rel=1e-3)
    assert found.take([4, 1]).valid.tolist() == [True, False]


def test_cached_fingerprints_are_not_computed_again(tmp_path, monkeypatch):
    first = measure([SALT, DIAMOND], processes=1, cache=Cache(tmp_path, definition(), STRUCTURE_SIZE))

    def fail(crystal: Crystal) -> None:
        raise AssertionError(f"{crystal.formula} is computed again")

    monkeypatch.setattr(measured, "structure_fingerprint", fail)
    again = measure([DIAMOND, SALT, SALT], processes=1, cache=Cache(tmp_path, definition(), STRUCTURE_SIZE))
    np.testing.assert_array_equal(again.structure, first.structure[[1, 0, 0]])


@pytest.mark.slow
def test_processes_do_not_change_fingerprints():
    rng = np.random.default_rng(0)
    crystals = [Crystal(SALT.lattice, SALT.frac + 0.02 * rng.standard_normal((2, 3)), SALT.numbers) for _ in range(20)]
    one = measure(crystals, processes=1, cache=Cache(None, definition(), STRUCTURE_SIZE))
    two = measure(crystals, processes=2, cache=Cache(None, definition(), STRUCTURE_SIZE))
    np.testing.assert_array_equal(one.structure, two.structure)
