from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from hpcgen.crystal import Crystal, from_atoms
from hpcgen.errors import Failure
from hpcgen.evaluate.distances import NAMES, pair_distances, superpose

CUBE = from_atoms(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
# off the faces of the cell: sites are compared as they are written, as CSPBenchMetrics does
SALT = Crystal(CUBE.lattice, CUBE.frac + 0.25, CUBE.numbers)
LOST = Failure("row:1", "evaluate", "broken-cif", "no text")


def moved(crystal: Crystal, amplitude: float) -> Crystal:
    moves = amplitude * np.random.default_rng(0).standard_normal(crystal.frac.shape)
    return Crystal(crystal.lattice, crystal.frac + moves @ np.linalg.inv(crystal.lattice), crystal.numbers)


def test_superpose_is_blind_to_rotation_translation_and_scale():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(6, 3))
    b = 2.5 * a @ Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix() + [7.0, 0.0, -3.0]
    assert superpose(a, b) == pytest.approx(0, abs=1e-10)
    assert superpose(a, -b) > 0.1  # a mirror image is another crystal
    assert superpose(a, rng.normal(size=(6, 3))) > 0.1
    with pytest.raises(ValueError, match="5 sites"):
        superpose(a, b[:5])


def test_superpose_by_hand():
    # two pairs of points at right angles to each other's plane, 2 and 1 from the middle: scale 4/5, errors 0.6 and 1.2
    a = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])
    b = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    scale = (2 * 2 + 2 * 1) / 4
    expected = np.sqrt((2 * (2 - scale) ** 2 + 2 * (1 - scale) ** 2) / 4)
    assert superpose(a, b) == pytest.approx(expected)


def test_a_crystal_has_no_distance_from_itself():
    found = pair_distances((SALT, SALT))
    assert (
        {"superpose", "rms", "rms_anonymous", "xrd", "chamfer", "hausdorff", "graph_edit"} <= set(found) <= set(NAMES)
    )
    assert all(value == pytest.approx(0, abs=1e-6) for value in found.values())


def test_distances_grow_with_the_displacement():
    fluorite = from_atoms(bulk("CaF2", "fluorite", a=5.5))
    real = Crystal(fluorite.lattice, fluorite.frac + 0.1, fluorite.numbers)
    near, far = pair_distances((moved(real, 0.05), real)), pair_distances((moved(real, 0.2), real))
    for name in ("superpose", "rms", "chamfer", "hausdorff"):
        assert 0 < near[name] < far[name], name


def test_points_by_hand():
    cell = np.eye(3) * 10
    a = Crystal(cell, [[0, 0, 0], [0.3, 0, 0]], np.array([11, 17]))
    b = Crystal(cell, [[0, 0.1, 0], [0.3, 0.2, 0]], np.array([11, 17]))
    found = pair_distances((a, b))
    # there: 1 and 2 angstrom; back: 1 and 2
    assert found["hausdorff"] == pytest.approx(2)
    assert found["chamfer"] == pytest.approx(1.5 + 1.5)


def test_edits_by_hand():
    """NaCl to MgCl, and one bond that is 0.2 angstrom longer: 1 in atomic number and 0.2 in length."""
    cell = np.eye(3) * 12
    a = Crystal(cell, [[0, 0, 0], [2.0 / 12, 0, 0]], np.array([11, 17]))
    b = Crystal(cell, [[0, 0, 0], [2.2 / 12, 0, 0]], np.array([12, 17]))
    assert pair_distances((a, b))["graph_edit"] == pytest.approx(1 + 0.2)
    apart = Crystal(cell, [[0, 0, 0], [3.0 / 12, 0, 0]], np.array([11, 17]))
    assert pair_distances((a, apart))["graph_edit"] == pytest.approx(1)  # the bond is gone


def test_anonymous_matching_forgets_the_elements():
    oxide = Crystal(SALT.lattice, SALT.frac, np.where(SALT.numbers == 11, 12, 8))
    found = pair_distances((oxide, SALT))
    assert "rms" not in found
    assert found["rms_anonymous"] == pytest.approx(0, abs=1e-6)


def test_another_number_of_atoms_has_no_superposition():
    found = pair_distances((from_atoms(bulk("NaCl", "rocksalt", a=5.6)), SALT))
    assert "superpose" not in found
    assert found["rms"] == pytest.approx(0, abs=1e-6)
    assert pair_distances((LOST, SALT)) == {}


def test_fingerprints_are_matminers():
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    from matminer.featurizers.structure.matrix import OrbitalFieldMatrix

    from hpcgen.crystal import to_structure

    other = moved(SALT, 0.3)
    found = pair_distances((other, SALT))
    ofm = OrbitalFieldMatrix()
    expected = np.linalg.norm(ofm.featurize(to_structure(other)) - np.asarray(ofm.featurize(to_structure(SALT))))
    assert found["orbital_field_matrix"] == pytest.approx(expected)
    assert found["crystalnn"] > 0
