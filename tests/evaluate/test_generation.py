from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from hpcgen.crystal import Crystal, from_atoms
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.coverage import Thresholds
from hpcgen.evaluate.generation import Settings, apart, average, ceiling, compare_sets, uniqueness_and_novelty
from hpcgen.evaluate.measured import Measured

SETTINGS = Settings({"near": Thresholds(0.5, 0.5)}, draws=3, seed=0)
SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
CSCL = from_atoms(bulk("NaCl", "cesiumchloride", a=3.4))
COPPER = from_atoms(bulk("Cu"))
LOST = Failure("row:1", "evaluate", "broken-cif", "no text")


def made(places, valid=None, composition=None, formula=None, density=None) -> Measured:
    """Crystals at places on a line, their composition all at 0."""
    n = len(places)
    fingerprint = np.array(places, dtype=float)[:, None]
    whole = np.ones(n, dtype=bool)
    return Measured(
        structure_valid=np.array(valid, dtype=bool) if valid is not None else whole,
        own_images_valid=np.array(valid, dtype=bool) if valid is not None else whole,
        composition_valid=np.array(composition, dtype=bool) if composition is not None else whole,
        density=np.array(density, dtype=float) if density is not None else np.ones(n),
        n_elements=np.full(n, 2),
        formula=formula or ["NaCl"] * n,
        structure=fingerprint,
        composition=np.where(np.isnan(fingerprint), np.nan, 0.0),
    )


def test_shares_are_of_everything():
    numbers = compare_sets(
        made([0, 1, np.nan, 9], valid=[1, 1, 0, 1], composition=[1, 0, 0, 1], density=[2, 100, np.nan, 4]),
        made([0, 1, 2], density=[1, 1, 1]),
        SETTINGS,
    )
    assert (numbers["n"], numbers["n_valid"], numbers["fingerprint_failed"]) == (4, 2, 1)
    assert (numbers["validity_structure"], numbers["validity_composition"], numbers["validity"]) == (0.75, 0.5, 0.5)
    near = numbers["coverage"]["near"]
    assert (near["cov_r"], near["cov_p"], near["thresholds"]) == (pytest.approx(2 / 3), 0.5, "0.5, 0.5")
    # of valid crystals alone: densities 2 and 4 against 1
    assert numbers["emd_density"] == pytest.approx(2.0)
    assert numbers["emd_elements"] == 0


def test_without_a_fingerprint_a_crystal_is_invalid():
    assert compare_sets(made([0, np.nan]), made([0]), SETTINGS)["validity"] == 0.5


def test_a_broken_reference_row_is_no_row_of_the_distributions():
    reference = made([0, np.nan], valid=[1, 0], density=[1, np.nan], formula=["NaCl", ""])
    reference.n_elements[1] = 0
    numbers = compare_sets(made([0]), reference, SETTINGS)
    assert numbers["emd_elements"] == numbers["emd_density"] == 0


def test_the_ceiling_has_the_size_of_what_was_made():
    real = made(list(range(100)))
    numbers = ceiling(real, made(list(range(0, 100, 2))), 10, SETTINGS)
    assert numbers["n"] == 10
    assert numbers["coverage"]["near"]["cov_r"] < 0.2
    assert numbers["coverage"]["near"]["cov_p_spread"] > 0
    assert numbers == ceiling(real, made(list(range(0, 100, 2))), 10, SETTINGS)
    whole = ceiling(real, made(list(range(0, 100, 2))), 1000, SETTINGS)
    assert (whole["n"], whole["coverage"]["near"]["cov_r"]) == (100, 1.0)
    with pytest.raises(DataError, match="no real crystals"):
        ceiling(made([]), made([1]), 10, SETTINGS)


def test_average_of_seeds():
    found = average(
        [{"x": 1.0, "deep": {"y": 2}, "t": "4, 0.2", "x_spread": 9}, {"x": 3.0, "deep": {"y": 2}, "t": "4"}]
    )
    assert found == {"x": 2.0, "x_spread": pytest.approx(2**0.5), "deep": {"y": 2.0, "y_spread": 0.0}, "t": "4, 0.2"}


def test_unique_and_novel_are_of_everything_and_of_valid_crystals():
    items: list[Crystal | Failure] = [SALT, LOST, SALT, CSCL, COPPER]
    numbers, chosen = uniqueness_and_novelty(items, made([0, 0, 0, 0, 0], valid=[1, 0, 1, 1, 0]), [CSCL])
    assert numbers["unique"] == 2 / 5  # salt and its other structure; copper is invalid here
    assert numbers["novel"] == 2 / 5  # salt twice
    assert numbers["unique_and_novel"] == 1 / 5
    assert numbers["known_formula"] == 1.0
    assert chosen == [True, False, False, False, False]
    assert "novel" not in uniqueness_and_novelty(items, made([0] * 5), [])[0]


def test_reference_rows_of_known_formula_are_apart():
    reference = made([0, 5, np.nan, 6], formula=["NaCl", "NaCl", "NaCl", "MgO"])
    found = apart(made([0, 6]), reference, {"NaCl"}, SETTINGS)
    assert found["formula_in_training"] == {"reference_rows": 2, "cov_r_near": 0.5}
    assert found["formula_new"] == {"reference_rows": 1, "cov_r_near": 1.0}
    assert apart(made([0]), made([0]), {"NaCl"}, SETTINGS)["formula_new"] == {"reference_rows": 0, "cov_r_near": None}
