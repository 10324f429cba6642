"""The family `representation` (StructRepDiff): one vector of composition, number of atoms, lattice and descriptor.

    x = bits (C (E+1)) ‖ counts (C) ‖ n_atoms (1) ‖ lattice (6) ‖ descriptor components (K)

Encode and decode stand here side by side; what the blocks mean is said in `hpcgen.represent`. Species channels are
the elements in (electronegativity, Z) order, in the vector, in samples.h5 and in the descriptor's pair blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config, RepresentationConfig, SampleConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import DataError, Failure
from hpcgen.family.composition_model import CompositionTokens
from hpcgen.family.conditions import Conditions, known_of
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.generator import Generator, make_generator
from hpcgen.family.parts import Tensors, make_parts, training_tensors
from hpcgen.family.rebuild import RepresentationReconstructor
from hpcgen.family.request import Request
from hpcgen.family.samples import RepresentationSample
from hpcgen.flow import Entry
from hpcgen.represent import lattice as lattices
from hpcgen.represent.composition import CompositionCodec, order_elements
from hpcgen.represent.descriptor import (
    descriptor_attrs,
    make_descriptor,
    representation_config,
    same_unit,
)
from hpcgen.represent.lattice_tokens import LatticeTokens
from hpcgen.represent.scaling import HalfWhitenedPca, Standard

if TYPE_CHECKING:
    import torch

    from hpcgen.train.part import Part

NAME = "representation"
COUNT_FLOOR = 0.25  # atoms: a count that varies less is as good as fixed
LATTICE_FLOOR = 0.01  # about 1 %: lattice features that vary less are as good as fixed


@dataclass(frozen=True, eq=False)
class RepresentationFamily:
    """A `hpcgen.family.Family`.

    Attributes:
        settings: the descriptor's configuration.
        codec: elements and channels.
        max_atoms: the largest crystal that is meant.
        scalers: of the blocks `bits`, `counts` (with n_atoms), `lattice`, and `descriptor`.
        tokens: patterns of counts, for the model of compositions.
        lattice_tokens: for the model of cells; None in checkpoints of before there was one.
        conditions: what samples can be asked for.
    """

    settings: RepresentationConfig
    codec: CompositionCodec
    max_atoms: int
    bits: Standard
    counts: Standard
    lattice: Standard
    descriptor: HalfWhitenedPca
    tokens: CompositionTokens
    conditions: Conditions
    lattice_tokens: LatticeTokens | None = None

    name = NAME
    sample_type = RepresentationSample

    @classmethod
    def fit(
        cls, crystals: Sequence[Crystal], config: Config, values: Sequence[Mapping[str, Any]] | None = None
    ) -> RepresentationFamily:
        """Elements, channels, scalers and conditions from the training split alone.

        Args:
            crystals: of the training split.
            config: sections `representation`, `conditions` and `data`.
            values: what is known of each crystal in the columns of `conditions`, as `Entry.values`; None: nothing.

        Raises:
            DataError: if there is no crystal, or nothing is known in a column.
        """
        if not crystals:
            raise DataError("the training split is empty", remedy="give more data, or smaller held-out fractions")
        elements = order_elements(z for c in crystals for z in np.unique(c.numbers).tolist())
        codec = CompositionCodec(elements, max(len(np.unique(c.numbers)) for c in crystals))
        settings = config.representation.resolved(codec.channels)
        compositions, cells, vectors = _physical(crystals, codec, settings)
        known = [known_of(c, v) for c, v in zip(crystals, values or [{}] * len(crystals), strict=True)]
        return cls(
            settings=settings,
            codec=codec,
            max_atoms=config.data.max_atoms,
            bits=Standard.fit_common(compositions[:, : codec.bits]),
            counts=Standard.fit(compositions[:, codec.bits :], COUNT_FLOOR),
            lattice=Standard.fit(cells, LATTICE_FLOOR),
            descriptor=HalfWhitenedPca.fit(vectors, settings.variance, same_unit=same_unit(settings)),
            tokens=CompositionTokens.fit([c.numbers for c in crystals], elements, codec.channels),
            conditions=Conditions.fit(known, elements, config.conditions),
            lattice_tokens=LatticeTokens.fit(crystals),
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
            "patterns": [list(p) for p in self.tokens.patterns],
            "conditions": self.conditions.state(),
            **({"lattice_tokens": self.lattice_tokens.state()} if self.lattice_tokens is not None else {}),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RepresentationFamily:
        """The family as `state` saved it."""
        settings = representation_config(state).model_copy(update={"variance": float(state["variance"])})
        elements = tuple(int(z) for z in state["elements"])
        return cls(
            settings=settings,
            codec=CompositionCodec(elements, int(state["channels"])),
            max_atoms=int(state["max_atoms"]),
            bits=Standard.from_state(state["bits"]),
            counts=Standard.from_state(state["counts"]),
            lattice=Standard.from_state(state["lattice"]),
            descriptor=HalfWhitenedPca.from_state(state["pca"]),
            tokens=CompositionTokens(elements, tuple(tuple(int(n) for n in p) for p in state["patterns"])),
            conditions=Conditions.from_state(state["conditions"]),
            lattice_tokens=LatticeTokens.from_state(state["lattice_tokens"]) if "lattice_tokens" in state else None,
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

    def misfits(self, crystals: Sequence[Crystal]) -> list[tuple[int, str]]:
        """(index, reason) of the crystals that the family cannot encode."""
        return [(i, reason) for i, crystal in enumerate(crystals) if (reason := self._misfit(crystal))]

    def parts(self, config: Config) -> list[Part]:
        """What is trained, in the order of sampling: `composition`, `lattice`, `descriptor`; or `joint`."""
        return make_parts(self, config)

    def training_tensors(self, entries: Sequence[Entry], config: Config) -> dict[str, Tensors]:
        """The rows of each part, by its name: `x` (M, *shape) float32 and `c` (M, Dc) float32, its conditions.

        Entries of `misfits` are left out. So are, for the composition alone, those with a pattern of counts that does
        not occur in the training split: M differs between parts.
        """
        return training_tensors(self, entries, config)

    def generator(
        self,
        models: Mapping[str, Trained],
        *,
        seed: int,
        settings: SampleConfig,
        device: torch.device | str = "cpu",
        conditions: Mapping[str, Any] | None = None,
    ) -> Generator:
        """What draws samples from the trained parts: a function of at most `settings.micro_batch` ids.

        Args:
            models: each part of `parts` by its name, with its weights.
            seed: of the run; with its id it decides all random numbers of a sample.
            settings: sampler, steps, guidance and micro-batch.
            device: where the networks are.
            conditions: what is asked for, see `hpcgen.family.request.Request`.

        Raises:
            ConfigError: if the model does not know what is asked for, or no training composition is so.
        """
        return make_generator(self, models, Draw(seed, settings, device), Request.of(conditions or {}))

    def generate(
        self,
        models: Mapping[str, Trained],
        ids: Sequence[str],
        *,
        seed: int,
        settings: SampleConfig,
        device: torch.device | str = "cpu",
        conditions: Mapping[str, Any] | None = None,
    ) -> list[RepresentationSample | Failure]:
        """One sample for each id, see `generator`; the same for any choice and order of ids."""
        draw = self.generator(models, seed=seed, settings=settings, device=device, conditions=conditions)
        size = settings.micro_batch
        return [sample for start in range(0, len(ids), size) for sample in draw(ids[start : start + size])]

    def score(
        self,
        models: Mapping[str, Trained],
        part: str,
        real: Sequence[Crystal],
        config: Config,
        device: torch.device | str = "cpu",
    ) -> dict[str, float]:
        """How good a small sample of a part in training is, see `hpcgen.family.scores.score`."""
        from hpcgen.family.scores import score

        return score(self, models, part, real, config, device)

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
