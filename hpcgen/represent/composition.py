"""Composition of a crystal as numbers a network can generate, and back.

A crystal's elements, ordered by (Pauling electronegativity, Z), are its *species channels*: the anion comes last,
whatever it is. The vector is

    bits (C, E + 1) ‖ counts (C,) ‖ number of atoms (1,)

with C channels, E elements and one more column, `empty`, for channels that a crystal does not need. Bits are
one-hot (analog bits, arXiv 2208.04202): decoding takes the largest. Counts and their sum are both generated, so the
number of atoms can be recovered (which the paper's fractions alone do not allow) and one checks the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.crystal import FloatArray

MOST_ATOMS = 10_000  # in a cell; generated numbers beyond are noise


@cache
def channel_key(z: int) -> tuple[float, int]:
    """Sort key of element `z`: Pauling electronegativity (0 where there is none), then atomic number."""
    from pymatgen.core import Element

    element = Element.from_Z(z)
    has_one = element.data.get("X") is not None  # asking for X of a noble gas warns
    return (float(element.X) if has_one else 0.0, z)


def order_elements(numbers: Iterable[int]) -> tuple[int, ...]:
    """The different atomic numbers in the order of the channels."""
    return tuple(sorted({int(z) for z in numbers}, key=channel_key))


def species_channels(numbers: ArrayLike) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """(n,) channel of each atom, and the atomic number of each channel."""
    z = np.asarray(numbers).astype(np.int64)
    elements = order_elements(z.tolist())
    channel_of = {element: c for c, element in enumerate(elements)}
    return np.array([channel_of[int(v)] for v in z], dtype=np.int64), elements


@dataclass(frozen=True, eq=False)
class GeneratedComposition:
    """What a generated vector says about the composition, before anything is rounded.

    Attributes:
        counts: (E,) atoms of each element, as generated; 0 for elements that no channel names.
        n_atoms: number of atoms, as generated.
        mixing: (k, C) of zeros and ones, from the C generated channels to the k elements present in channel order;
            rows with two ones merge channels that name the same element.
        confidence: smallest lead of a channel's first choice over its second, 0-1.
        repair: what was odd, empty if nothing.
    """

    counts: FloatArray
    n_atoms: float
    mixing: FloatArray
    confidence: float
    repair: str


@dataclass(frozen=True)
class CompositionCodec:
    """Encodes and decodes compositions of the `elements` (E atomic numbers in channel order) in `channels` channels."""

    elements: tuple[int, ...]
    channels: int

    @property
    def bits(self) -> int:
        """Numbers of the one-hot block, C (E + 1)."""
        return self.channels * (len(self.elements) + 1)

    @property
    def length(self) -> int:
        """Numbers in all: bits, counts, and the number of atoms."""
        return self.bits + self.channels + 1

    def names(self) -> list[str]:
        """Names of the numbers, such as `bit:0:Ti`, `count:0`, `n_atoms`."""
        from ase.data import chemical_symbols

        columns = [*(chemical_symbols[z] for z in self.elements), "empty"]
        bits = [f"bit:{c}:{name}" for c in range(self.channels) for name in columns]
        return [*bits, *(f"count:{c}" for c in range(self.channels)), "n_atoms"]

    def encode(self, numbers: ArrayLike) -> FloatArray:
        """(length,) float64.

        Raises:
            ValueError: for an element outside `elements`, or more elements than channels.
        """
        species, present = species_channels(numbers)
        strangers = [z for z in present if z not in self.elements]
        if strangers:
            raise ValueError(f"elements {strangers} (Z) do not occur in the training split")
        if len(present) > self.channels:
            raise ValueError(f"{len(present)} elements, and there are {self.channels} channels")
        bits = np.zeros((self.channels, len(self.elements) + 1))
        for c in range(self.channels):
            bits[c, self.elements.index(present[c]) if c < len(present) else -1] = 1.0
        counts = np.bincount(species, minlength=self.channels)
        return np.concatenate([bits.ravel(), counts, [len(species)]])

    def decode(self, vector: FloatArray) -> GeneratedComposition:
        """What a (length,) vector names; nothing is rounded here.

        A channel named `empty` is dropped, which is told if it has atoms.
        """
        bits = vector[: self.bits].reshape(self.channels, -1)
        counts = vector[self.bits : self.bits + self.channels]
        choice = bits.argmax(1)
        empty = len(self.elements)
        ordered = np.sort(bits, axis=1)
        present = sorted({int(e) for e in choice if e != empty})
        mixing = np.array([[float(e == element) for e in choice] for element in present]).reshape(-1, self.channels)
        generated = np.zeros(len(self.elements))
        # an element that is named exists: a count of nought or less is the count that is wrong
        generated[present] = np.maximum(mixing @ np.maximum(counts, 0.0), 0.01)
        doubled = [self.elements[e] for e, row in zip(present, mixing, strict=True) if row.sum() > 1]
        notes = [f"channels of {_symbol(z)} merged" for z in doubled]
        notes += [
            f"{n:.1f} atoms of no element left out"
            for n, e in zip(counts, choice, strict=True)
            if e == empty and n >= 0.5
        ]
        return GeneratedComposition(
            counts=generated,
            n_atoms=float(vector[-1]),
            mixing=mixing,
            confidence=float(np.clip((ordered[:, -1] - ordered[:, -2]).min(), 0.0, 1.0)),
            repair="; ".join(notes),
        )


def whole_counts(counts: FloatArray, n_atoms: float) -> tuple[NDArray[np.int64], str]:
    """Whole numbers of atoms, each at least 1, nearest to generated counts and their generated sum.

    Counts (k,) and `n_atoms` are k + 1 measurements of k whole numbers, so the answer is the least-squares one:
    it minimises sum (n_c - counts_c)^2 + (sum n_c - n_atoms)^2.

    Returns:
        (k,) int64, and a note if the counts or `n_atoms` alone would have been rounded otherwise.

    Raises:
        ValueError: for numbers that no unit cell has, or that are not finite.
    """
    if not (np.abs(counts).max() < MOST_ATOMS and abs(n_atoms) < MOST_ATOMS):
        raise ValueError(f"{counts.sum():.3g} and {n_atoms:.3g} atoms are no numbers of atoms in a cell")
    rounded = np.rint(counts).astype(np.int64)
    best = np.maximum(rounded, 1)
    # the misfit is convex, and no exchange of two counts can lower it: single steps towards the sum find the minimum
    while (direction := int(np.sign(n_atoms - best.sum()))) != 0:
        stepped = best + direction
        change = (stepped - counts) ** 2 - (best - counts) ** 2
        change += (best.sum() + direction - n_atoms) ** 2 - (best.sum() - n_atoms) ** 2
        change[stepped < 1] = np.inf
        c = int(np.argmin(change))
        if change[c] >= 0:
            break
        best[c] = stepped[c]
    notes = []
    if (rounded != best).any():
        notes.append(f"counts {_list(rounded)} -> {_list(best)}")
    if round(n_atoms) != best.sum():
        notes.append(f"atoms {round(n_atoms)} -> {best.sum()}")
    return best, "; ".join(notes)


def _list(values: NDArray[np.int64]) -> str:
    return ":".join(str(v) for v in values)


def _symbol(z: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[z]
