"""The family `representation` (StructRepDiff): one vector of composition, number of atoms, lattice and descriptor.

    x = bits (C (E+1)) ‖ counts (C) ‖ n_atoms (1) ‖ lattice (6) ‖ descriptor components (K)

Encode and decode stand here side by side; what the blocks mean is said in `hpcgen.represent`. Species channels are
the elements in (electronegativity, Z) order, in the vector, in samples.h5 and in the descriptor's pair blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import Config, RepresentationConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import DataError
from hpcgen.family.rebuild import RepresentationReconstructor
from hpcgen.flow import array, column
from hpcgen.represent import lattice as lattices
from hpcgen.represent.composition import (
    CompositionCodec,
    GeneratedComposition,
    order_elements,
    whole_counts,
)
from hpcgen.represent.descriptor import (
    descriptor_attrs,
    make_descriptor,
    relabel,
    representation_config,
    same_unit,
)
from hpcgen.represent.scaling import HalfWhitenedPca, Standard

NAME = "representation"
COUNT_FLOOR = 0.25  # atoms: a count that varies less is as good as fixed
LATTICE_FLOOR = 0.01  # about 1 %: lattice features that vary less are as good as fixed
_GROUP = "representation"


@dataclass(frozen=True, eq=False)
class RepresentationSample:
    """One generated representation in physical units, as samples.h5 holds it; usable without the model.

    Channel k of the descriptor is the k-th element with a composition above 0, in (electronegativity, Z) order.
    """

    id: str
    n_atoms: np.float32 = array("f4", "number of atoms, as generated: not rounded", shape=(), group=_GROUP)
    composition: NDArray[np.float32] = array(
        "f4", "atoms of each element of the attribute `elements`, as generated", shape=("E",), group=_GROUP
    )
    lattice: NDArray[np.float32] = array(
        "f4", "a, b, c in angstrom and alpha, beta, gamma in degrees", shape=(6,), group=_GROUP
    )
    descriptor: NDArray[np.float32] = array(
        "f4", "the descriptor; the attributes name it, its settings and its dimensions", shape=("D",), group=_GROUP
    )
    composition_confidence: float = column("f8", "smallest lead of a channel's element over the next", unit="1")
    repair: str = column("text", "what was odd in the generated composition; empty if nothing")


store.register(RepresentationSample, "hpcgen.samples")


@dataclass(frozen=True, eq=False)
class RepresentationFamily:
    """A `hpcgen.family.Family`.

    Attributes:
        settings: the descriptor's configuration.
        codec: elements and channels.
        max_atoms: the largest crystal that is meant.
        scalers: of the blocks `bits`, `counts` (with n_atoms), `lattice`, and `descriptor`.
    """

    settings: RepresentationConfig
    codec: CompositionCodec
    max_atoms: int
    bits: Standard
    counts: Standard
    lattice: Standard
    descriptor: HalfWhitenedPca

    name = NAME
    sample_type = RepresentationSample

    @classmethod
    def fit(cls, crystals: Sequence[Crystal], config: Config) -> RepresentationFamily:
        """Elements, channels and scalers from the training split alone.

        Raises:
            DataError: if there is no crystal.
        """
        if not crystals:
            raise DataError("the training split is empty", remedy="give more data, or smaller held-out fractions")
        elements = order_elements(z for c in crystals for z in np.unique(c.numbers).tolist())
        codec = CompositionCodec(elements, max(len(np.unique(c.numbers)) for c in crystals))
        settings = config.representation.resolved(codec.channels)
        compositions, cells, vectors = _physical(crystals, codec, settings)
        return cls(
            settings=settings,
            codec=codec,
            max_atoms=config.data.max_atoms,
            bits=Standard.fit_common(compositions[:, : codec.bits]),
            counts=Standard.fit(compositions[:, codec.bits :], COUNT_FLOOR),
            lattice=Standard.fit(cells, LATTICE_FLOOR),
            descriptor=HalfWhitenedPca.fit(vectors, settings.variance, same_unit=same_unit(settings)),
        )

    def state(self) -> dict[str, Any]:
        """Text, numbers, lists and torch tensors."""
        return {
            **descriptor_attrs(self.settings),
            "variance": self.settings.variance,
            "elements": list(self.codec.elements),
            "channels": self.codec.channels,
            "max_atoms": self.max_atoms,
            **{block: getattr(self, block).state() for block in ("bits", "counts", "lattice")},
            "pca": self.descriptor.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RepresentationFamily:
        """The family as `state` saved it."""
        settings = representation_config(state).model_copy(update={"variance": float(state["variance"])})
        return cls(
            settings=settings,
            codec=CompositionCodec(tuple(int(z) for z in state["elements"]), int(state["channels"])),
            max_atoms=int(state["max_atoms"]),
            bits=Standard.from_state(state["bits"]),
            counts=Standard.from_state(state["counts"]),
            lattice=Standard.from_state(state["lattice"]),
            descriptor=HalfWhitenedPca.from_state(state["pca"]),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(L,)."""
        return (sum(block.length for block in (self.bits, self.counts, self.lattice, self.descriptor)),)

    def encode(self, crystals: Sequence[Crystal]) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
        """(M', L) float32 of the crystals that fit the family, and (index, reason) of the others."""
        good: list[Crystal] = []
        bad: list[tuple[int, str]] = []
        for i, crystal in enumerate(crystals):
            reason = self._misfit(crystal)
            if reason:
                bad.append((i, reason))
            else:
                good.append(crystal)
        if not good:
            return np.zeros((0, *self.shape), dtype=np.float32), bad
        compositions, cells, vectors = _physical(good, self.codec, self.settings)
        blocks = [
            self.bits.forward(compositions[:, : self.codec.bits]),
            self.counts.forward(compositions[:, self.codec.bits :]),
            self.lattice.forward(cells),
            self.descriptor.forward(vectors),
        ]
        return np.concatenate(blocks, axis=1).astype(np.float32), bad

    def _misfit(self, crystal: Crystal) -> str:
        """Why the crystal cannot be encoded, or nothing."""
        if len(crystal) > self.max_atoms:
            return f"{len(crystal)} atoms, more than {self.max_atoms}"
        try:
            self.codec.encode(crystal.numbers)
        except ValueError as error:
            return str(error)
        return ""

    def to_samples(self, ids: Sequence[str], x: NDArray[np.float32]) -> list[RepresentationSample]:
        """Generated vectors (M, L) as samples, with elements named and descriptor channels in their order."""
        lengths = [block.length for block in (self.bits, self.counts, self.lattice, self.descriptor)]
        bits, counts, cells, vectors = np.split(np.asarray(x, dtype=np.float64), np.cumsum(lengths)[:-1], axis=1)
        compositions = np.concatenate([self.bits.inverse(bits), self.counts.inverse(counts)], axis=1)
        cells, vectors = self.lattice.inverse(cells), self.descriptor.inverse(vectors)
        samples = []
        for id_, composition, cell, vector in zip(ids, compositions, cells, vectors, strict=True):
            decoded = self.codec.decode(composition)
            # all channels are kept, those in use first: every sample of a file has the same length
            mixing = np.zeros((self.codec.channels, self.codec.channels))
            mixing[: len(decoded.mixing)] = decoded.mixing
            samples.append(
                RepresentationSample(
                    id=id_,
                    n_atoms=np.float32(decoded.n_atoms),
                    composition=decoded.counts.astype(np.float32),
                    lattice=lattices.decode_lattice(cell, self._atoms(decoded)).astype(np.float32),
                    descriptor=relabel(self.settings, vector, mixing).astype(np.float32),
                    composition_confidence=decoded.confidence,
                    repair=decoded.repair,
                )
            )
        return samples

    def _atoms(self, decoded: GeneratedComposition) -> float:
        """The whole number of atoms that volume per atom is meant for; as generated where no crystal is meant."""
        counts = decoded.counts[decoded.counts > 0]
        if not len(counts) or max(counts.sum(), decoded.n_atoms) > 2 * self.max_atoms:
            return decoded.n_atoms
        return float(whole_counts(counts, decoded.n_atoms)[0].sum())

    def sample_attrs(self) -> dict[str, Any]:
        """What samples.h5 needs to be read without the model."""
        from ase.data import chemical_symbols

        return {
            **descriptor_attrs(self.settings),
            "elements": [chemical_symbols[z] for z in self.codec.elements],
            "channels": self.codec.channels,
            "max_atoms": self.max_atoms,
            "names_lattice": list(lattices.PARAMETER_NAMES),
            "names_descriptor": make_descriptor(self.settings).names(self.codec.channels),
        }

    @classmethod
    def reconstructor(cls, attrs: dict[str, Any], config: Config) -> RepresentationReconstructor:
        """The solver for samples of a file with these attributes."""
        return RepresentationReconstructor(attrs, config)


def _physical(
    crystals: Sequence[Crystal], codec: CompositionCodec, settings: RepresentationConfig
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compositions (M, codec.length), lattice features (M, 6) and descriptors (M, D) in physical units."""
    descriptor = make_descriptor(settings)
    compositions = np.array([codec.encode(c.numbers) for c in crystals])
    cells = np.array([lattices.encode_lattice(c.lattice, len(c)) for c in crystals])
    return compositions, cells, descriptor.encode_batch(crystals, codec.channels)
