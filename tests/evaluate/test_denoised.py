"""Errors and distances between real and denoised crystals."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.evaluate.denoised import ANOTHER_ELEMENT, NAMES, Distances, bonds, graph_edit, medians, superpose
from hpcgen.family.denoising import Denoised, paired
from hpcgen.family.parity import PAPER, parity

CELL = np.array([[4.1, 0, 0], [0.7, 4.6, 0], [-0.9, 0.3, 5.3]])
FRAC = np.array([[0, 0, 0], [0.45, 0.5, 0.1], [0.5, 0.1, 0.6], [0.98, 0.6, 0.5], [0.3, 0.99, 0.8]])
CRYSTAL = Crystal(CELL, FRAC, [38, 22, 8, 8, 8])


def row(real: Crystal, ours: Crystal) -> Denoised:
    same = sorted(real.numbers.tolist()) == sorted(ours.numbers.tolist())
    return Denoised("a", 1, "X", len(real), atoms_right=len(real) == len(ours), composition_right=same,
                    pair=(real, ours))  # fmt: skip


def test_pairing_finds_atoms_through_faces_and_in_any_order() -> None:
    rng = np.random.default_rng(0)
    shift = 0.02 * rng.standard_normal(FRAC.shape)
    order = np.array([0, 1, 4, 2, 3])
    partner, away = paired(CRYSTAL, Crystal(CELL, (FRAC + shift)[order], CRYSTAL.numbers[order]))
    np.testing.assert_array_equal(order[partner], np.arange(5))
    np.testing.assert_allclose(away, shift, atol=1e-12)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired(CRYSTAL, Crystal(CELL, FRAC, [38, 22, 8, 8, 22]))


def test_superposition_undoes_rotation_translation_and_scale() -> None:
    from scipy.spatial.transform import Rotation

    turned = CELL @ Rotation.random(random_state=1).as_matrix() * 1.07
    assert superpose(CRYSTAL, Crystal(turned, FRAC + np.array([0.01, -0.02, 0.015]), CRYSTAL.numbers)) < 1e-10
    mirrored = superpose(CRYSTAL, Crystal(CELL * [1, 1, -1], FRAC, CRYSTAL.numbers))
    assert mirrored > 0.3  # a reflection is none of them
    rng = np.random.default_rng(3)
    step = 0.1 * rng.standard_normal((5, 3))
    moved = Crystal(turned, FRAC + step @ np.linalg.inv(CELL), CRYSTAL.numbers)
    assert 0 < superpose(CRYSTAL, moved) <= np.sqrt((step**2).sum(1).mean())


def test_graph_edit_distance_bounds_the_exact_one() -> None:
    assert graph_edit(CRYSTAL, CRYSTAL) == 0
    assert graph_edit(CRYSTAL, Crystal(CELL, FRAC, [38, 22, 8, 8, 9])) == 1  # one element, by one
    assert graph_edit(CRYSTAL, Crystal(CELL, FRAC, [38, 22, 8, 8, 16])) == ANOTHER_ELEMENT
    rng = np.random.default_rng(1)
    for _ in range(4):
        a, b = (Crystal(CELL * 0.8, rng.random((4, 3)), rng.choice([8, 9, 20], 4)) for _ in range(2))
        # of one size, no node need be removed where another element costs no more than that
        exact = min(
            sum(min(abs(int(a.numbers[i]) - int(b.numbers[p[i]])), ANOTHER_ELEMENT) for i in range(4))
            + (bonds(a) != bonds(b)[np.ix_(p, p)]).sum() / 2
            for p in permutations(range(4))
        )
        assert exact <= graph_edit(a, b) <= 4 * ANOTHER_ELEMENT + 6
        assert graph_edit(a, b) == pytest.approx(graph_edit(b, a), abs=6)
    smaller = Crystal(CELL, FRAC[:4], [38, 22, 8, 8])
    degree = bonds(CRYSTAL)[4].sum()
    assert graph_edit(CRYSTAL, smaller) >= 1 + degree - bonds(CRYSTAL)[:4, :4].sum()


def test_table_1_counts_within_the_papers_limits_and_its_own_whiskers() -> None:
    longer = CELL * np.array([[1.03], [1.04], [0.94]])  # a within the paper's limits, b and c beyond
    rows = [row(CRYSTAL, Crystal(longer, FRAC + np.array([0.06, 0.06, 0.0]), CRYSTAL.numbers))] * 3
    rows.append(row(CRYSTAL, Crystal(CELL, FRAC, CRYSTAL.numbers)))
    rows.append(row(CRYSTAL, Crystal(CELL, FRAC[:4], CRYSTAL.numbers[:4])))  # another number of atoms: not counted
    found = parity(rows)
    assert set(found) == set(PAPER)
    assert [found[k]["within_paper"] for k in "abcxyz"] == [1.0, 0.25, 0.25, 1.0, 0.25, 1.0]
    assert found["a"]["upper"] == pytest.approx(0.03)
    assert math.isnan(parity([])["x"]["within"])


@pytest.mark.slow
def test_all_distances_vanish_for_one_crystal_and_grow_with_displacement() -> None:
    pytest.importorskip("matminer")
    pytest.importorskip("chgnet")
    between = Distances(RelaxConfig(device="cpu"))
    rng = np.random.default_rng(0)
    rows = [row(CRYSTAL, CRYSTAL)]
    same, count = medians(between, rows)
    assert same == pytest.approx(dict.fromkeys(NAMES, 0.0), abs=1e-4)
    assert count == dict.fromkeys(NAMES, 1)
    apart = between.of("a", CRYSTAL, Crystal(CELL, FRAC + 0.05 * rng.standard_normal((5, 3)), CRYSTAL.numbers))
    assert all(apart[name] > 1e-3 for name in NAMES if name != "graph_edit")
    collapsed = between.of("a", CRYSTAL, Crystal(CELL, np.zeros((5, 3)), CRYSTAL.numbers))
    assert set(collapsed) == set(NAMES)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from hpcgen.errors import DependencyError

    monkeypatch.setitem(sys.modules, "matminer.featurizers.site", None)
    with pytest.raises(DependencyError, match=r"hpcgen\[evaluate\]"):
        Distances(RelaxConfig(device="cpu"))
