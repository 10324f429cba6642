"""Which structures train, validate and test: by a hash of the seed and the row, or by the row's place."""

from __future__ import annotations

from collections.abc import Sequence

from hpcgen.flow import seed_of

SPLITS = ("train", "validation", "test")


def draw(seed: int, label: str) -> float:
    """A number in [0, 1) that belongs to a row, whatever other rows there are."""
    return seed_of(seed, label, "split") / 2.0**63


def splits(
    labels: Sequence[str],
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    *,
    numbers: Sequence[int] = (),
    test_every: int | None = None,
) -> list[str]:
    """The split of each label, in their order.

    A row keeps its split when other rows come, go or change places. The one exception: if no row at all fell
    into `train`, the row with the largest draw goes there, for a model needs something to learn from.

    Args:
        labels: unique labels of the usable rows.
        seed: the seed of the run.
        validation_fraction: expected share of `validation`.
        test_fraction: expected share of `test`.
        numbers: place of each row in its source, from 0; used with `test_every`.
        test_every: instead of a share, the last row of every so many is `test`; None: by `test_fraction`.
    """
    held_out = [False] * len(labels)
    if test_every is not None:
        held_out, test_fraction = [number % test_every == test_every - 1 for number in numbers], 0.0
    draws = [min(draw(seed, label), 1 - 2.0**-53) for label in labels]  # 63 bits may round up to 1.0
    out = [
        "test" if held or u < test_fraction else "validation" if u < test_fraction + validation_fraction else "train"
        for u, held in zip(draws, held_out, strict=True)
    ]
    if out and "train" not in out:
        out[max(range(len(out)), key=lambda i: (draws[i], labels[i]))] = "train"
    return out
