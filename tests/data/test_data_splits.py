"""Splits depend on seed and row alone."""

from __future__ import annotations

import random

import pytest

from hpcgen.data import SPLITS, splits

LABELS = [f"row:{i}" for i in range(5000)]


def test_shares_are_the_fractions() -> None:
    got = splits(LABELS, 7, 0.1, 0.2)
    shares = {s: got.count(s) / len(got) for s in SPLITS}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.025)  # 4 sigma


def test_a_row_keeps_its_split_whatever_the_others_are() -> None:
    whole = dict(zip(LABELS, splits(LABELS, 7, 0.1, 0.2), strict=True))
    some = random.Random(0).sample(LABELS, 500)
    assert splits(some, 7, 0.1, 0.2) == [whole[label] for label in some]


def test_another_seed_is_another_split() -> None:
    assert splits(LABELS, 1, 0.1, 0.1) != splits(LABELS, 2, 0.1, 0.1)


@pytest.mark.parametrize("seed", range(40))
def test_there_is_always_a_training_structure(seed: int) -> None:
    assert splits(["row:1"], seed, 0.5, 0.49) == ["train"]
    few = splits(["row:1", "row:2"], seed, 0.49, 0.5)
    assert "train" in few
    assert splits(["row:2", "row:1"], seed, 0.49, 0.5) == few[::-1]


def test_fractions_of_zero() -> None:
    assert set(splits(LABELS, 3, 0.0, 0.0)) == {"train"}
    assert splits([], 3, 0.1, 0.1) == []


def test_every_fifth_row_is_test_whatever_its_label() -> None:
    numbers = [*range(0, 5000, 2), *range(1, 5000, 2)]  # as if half the rows came later
    got = dict(zip(numbers, splits(LABELS, 7, 0.1, 0.9, numbers=numbers, test_every=5), strict=True))
    assert {n for n, split in got.items() if split == "test"} == set(range(4, 5000, 5))
    assert list(got.values()).count("validation") == pytest.approx(400, abs=80)
