"""Compositions as vectors and back."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hpcgen.represent.composition import CompositionCodec, order_elements, species_channels, whole_counts

ELEMENTS = order_elements([38, 22, 8, 29, 9, 56, 54])
CODEC = CompositionCodec(ELEMENTS, 4)
CRYSTALS = [[8] * 3 + [22, 38], [29], [54, 9, 9], [8, 9, 22, 56, 56], [38] * 2, [8] * 12 + [22] * 7]


def test_channels_are_ordered_by_electronegativity() -> None:
    species, elements = species_channels([8, 22, 8, 38])
    assert elements == (38, 22, 8)  # 0.95, 1.54, 3.44
    assert species.tolist() == [2, 1, 2, 0]
    assert order_elements([10, 2, 3, 9]) == (2, 10, 3, 9)  # no electronegativity: first


@pytest.mark.parametrize("numbers", CRYSTALS, ids=str)
def test_decode_inverts_encode(numbers: list[int]) -> None:
    vector = CODEC.encode(numbers)
    assert len(vector) == CODEC.length == len(CODEC.names())
    found = CODEC.decode(vector)
    assert {ELEMENTS[i]: n for i, n in enumerate(found.counts) if n > 0} == {z: numbers.count(z) for z in numbers}
    assert found.n_atoms == len(numbers)
    assert found.confidence == 1.0
    assert found.repair == ""
    assert found.mixing.tolist() == np.eye(len(set(numbers)), 4).tolist()


@pytest.mark.parametrize("numbers", CRYSTALS, ids=str)
def test_moderate_noise_does_not_change_the_composition(numbers: list[int]) -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).uniform(-0.24, 0.24, CODEC.length)
        found = CODEC.decode(CODEC.encode(numbers) + noise)
        present = found.counts > 0
        counts, _ = whole_counts(found.counts[present], found.n_atoms)
        decoded = dict(zip(np.array(ELEMENTS)[present], counts, strict=True))
        assert decoded == {z: numbers.count(z) for z in numbers}
        assert found.confidence < 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not occur in the training split"):
        CODEC.encode([8, 79])
    with pytest.raises(ValueError, match="5 elements, and there are 4 channels"):
        CODEC.encode([8, 9, 22, 56, 38])


def test_channels_of_one_element_are_merged_and_said() -> None:
    vector = CODEC.encode([8, 22, 38, 9])  # channels Sr, Ti, O, F
    bits = vector[: CODEC.bits].reshape(4, -1)
    bits[3] = bits[2]
    vector[CODEC.bits + 3] = 2.0
    found = CODEC.decode(vector)
    assert found.counts[ELEMENTS.index(8)] == 3.0
    assert found.mixing.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    assert found.repair == "channels of O merged"


def test_an_element_that_is_named_stays_and_empty_channels_go() -> None:
    vector = CODEC.encode([8, 22])
    vector[CODEC.bits] = -0.3
    found = CODEC.decode(vector)
    counts, note = whole_counts(found.counts[found.counts > 0], 2.0)
    assert counts.tolist() == [1, 1]
    assert note == "counts 0:1 -> 1:1"
    everything_empty = np.zeros(CODEC.length)
    everything_empty[: CODEC.bits].reshape(4, -1)[:, -1] = 1.0
    assert CODEC.decode(everything_empty).counts.sum() == 0


def test_whole_counts_are_the_least_squares_ones() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.uniform(0.0, 5.0, rng.integers(1, 4))
        n_atoms = counts.sum() + rng.normal() * 3
        found, _ = whole_counts(counts, n_atoms)

        def misfit(n: np.ndarray, counts: np.ndarray = counts, n_atoms: float = n_atoms) -> float:
            return float(((n - counts) ** 2).sum() + (n.sum() - n_atoms) ** 2)

        best = min(misfit(np.array(n)) for n in product(range(1, 11), repeat=len(counts)))
        assert misfit(found) == pytest.approx(best)


@pytest.mark.parametrize(("counts", "n_atoms"), [([np.nan], 1.0), ([1.0], np.inf), ([1e30], 5.0), ([1.0], 1e300)])
def test_absurd_numbers_of_atoms_are_refused(counts: list[float], n_atoms: float) -> None:
    with pytest.raises(ValueError, match="no numbers of atoms"):
        whole_counts(np.array(counts), n_atoms)
