"""A composition as numbers that the networks of lattice and descriptor are conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgen.family.element_properties import NAMES, element_properties


@dataclass(frozen=True)
class CompositionFeatures:
    """For each channel which element (one-hot and its properties) and how many atoms (one-hot, share, logarithm).

    And for the whole: mean and spread of the properties over the atoms, and the logarithm of the number of atoms. Of
    one-hot and properties the first tells elements apart, and the second carries over to those that are rare in the
    data.

    Attributes:
        elements: (E) atomic numbers in channel order.
        channels: C.
        max_atoms: the largest cell.
    """

    elements: tuple[int, ...]
    channels: int
    max_atoms: int

    @property
    def width(self) -> int:
        """Number of features."""
        return self.channels * (len(self.elements) + len(NAMES) + self.max_atoms + 2) + 2 * len(NAMES) + 1

    def encode(self, counts: NDArray[np.int64], elements: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, width) float32.

        Args:
            counts: (M, C) atoms of each channel.
            elements: (M, C) index of each channel's element; anything where the count is 0.
        """
        used = (counts > 0)[:, :, None]
        index = np.where(counts > 0, elements, 0)
        which = np.eye(len(self.elements))[index] * used
        properties = element_properties()[list(self.elements)][index] * used
        many = np.eye(self.max_atoms + 1)[np.minimum(counts, self.max_atoms)][:, :, 1:]
        total = np.maximum(counts.sum(1, keepdims=True), 1)
        share = counts / total
        sizes = np.stack([share, np.log1p(counts)], 2)
        mean = np.einsum("mc,mcq->mq", share, properties)
        spread = np.sqrt(np.einsum("mc,mcq->mq", share, (properties - mean[:, None]) ** 2))
        each = np.concatenate([which, properties, many, sizes], 2)
        flat = each.reshape(len(counts), self.channels * each.shape[2])
        return np.concatenate([flat, mean, spread, np.log(total)], 1).astype(np.float32)
