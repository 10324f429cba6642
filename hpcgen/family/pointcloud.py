"""The family `pointcloud` (PCCD, iScience 28, 111659): a crystal as a cloud of points, all of it by one network.

    x (3, P, W) = positions ‖ which of the given elements each point is ‖ angles and lengths of the cell

Encoding and decoding stand in `hpcgen.pointcloud`. What the network is told is the list of elements, so the elements of
a sample are given by construction, and how many atoms of each there are is drawn with everything else.

The points of an atom lie side by side, and atoms in an order of their own: of the slots, then of their coordinates. An
array then has one meaning, and numbers of atoms show as the places where one atom ends and the next begins, which a
network reads under far more noise than it could find clusters in (docs/pointcloud.md says how much).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcgen.config import Config, SampleConfig
from hpcgen.crystal import Crystal
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.errors import DataError
from hpcgen.family.conditions import Conditions, SlotElements, known_of
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.pointcloud_generator import CloudGenerator
from hpcgen.family.pointcloud_rebuild import PointCloudReconstructor
from hpcgen.family.pointcloud_samples import CloudSample, cloud_attrs
from hpcgen.family.request import Request
from hpcgen.flow import Entry
from hpcgen.pointcloud.cloud import CloudCodec, CloudScales
from hpcgen.represent.composition import order_elements

if TYPE_CHECKING:
    from torch import Tensor

    from hpcgen.family.denoising import Denoised

NAME = "pointcloud"
CLOUD = "cloud"
NEAR_ONE = 0.02  # coordinates within this below 1 count as negative: an atom on a face must not jump across the cell


@dataclass(frozen=True, eq=False)
class PointCloudFamily:
    """A `hpcgen.family.Family` of one part, `cloud`.

    Attributes:
        codec: sizes and scales.
        elements: atomic numbers of the training split, in (electronegativity, Z) order, as slots are.
        sets: element sets of the training split, each in the order of its slots, the most frequent first.
        counts: training structures of each set.
        conditions: what samples can be asked for: elements, always given, and columns of the data.
    """

    codec: CloudCodec
    elements: tuple[int, ...]
    sets: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    conditions: Conditions

    name = NAME
    sample_type = CloudSample
    always_told = True  # its elements

    @classmethod
    def fit(
        cls, crystals: Sequence[Crystal], config: Config, values: Sequence[Mapping[str, Any]] | None = None
    ) -> PointCloudFamily:
        """Elements, element sets, lattice statistics and conditions from the training split alone.

        Args:
            crystals: of the training split; those beyond the limits of the section `pointcloud` are left out.
            config: sections `pointcloud` and `conditions`.
            values: what is known of each crystal in the columns of `conditions`, as `Entry.values`; None: nothing.

        Raises:
            DataError: if no crystal is within the limits, or nothing is known in a column.
        """
        sizes = config.pointcloud
        limits = CloudCodec(CloudScales(points=sizes.points, elements=sizes.max_elements, max_sites=sizes.max_sites))
        good = [i for i, crystal in enumerate(crystals) if not limits.misfit(crystal)]
        if not good:
            raise DataError(
                f"none of the {len(crystals)} training structures is a point cloud of at most {sizes.max_elements} "
                f"elements and {sizes.max_sites} sites",
                remedy="raise pointcloud.max_elements or pointcloud.max_sites, or give other data",
            )
        fitting = [crystals[i] for i in good]
        elements = order_elements(z for c in fitting for z in np.unique(c.numbers).tolist())
        sets = Counter(order_elements(c.numbers.tolist()) for c in fitting)
        ordered = sorted(sets.items(), key=lambda item: (-item[1], item[0]))
        known = [known_of(crystals[i], values[i] if values else {}) for i in good]
        others = Conditions.fit(known, elements, config.conditions.model_copy(update={"elements": False}))
        return cls(
            codec=CloudCodec(
                CloudScales.fit(fitting, points=sizes.points, elements=sizes.max_elements, max_sites=sizes.max_sites)
            ),
            elements=elements,
            sets=tuple(s for s, _ in ordered),
            counts=tuple(n for _, n in ordered),
            conditions=Conditions((SlotElements(elements, sizes.max_elements), *others.fields)),
        )

    def state(self) -> dict[str, Any]:
        """Text, numbers and lists."""
        return {
            "scales": self.codec.scales.state(),
            "elements": list(self.elements),
            "sets": [list(s) for s in self.sets],
            "counts": list(self.counts),
            "conditions": self.conditions.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PointCloudFamily:
        """The family as `state` saved it."""
        return cls(
            codec=CloudCodec(CloudScales.from_state(state["scales"])),
            elements=tuple(int(z) for z in state["elements"]),
            sets=tuple(tuple(int(z) for z in s) for s in state["sets"]),
            counts=tuple(int(n) for n in state["counts"]),
            conditions=Conditions.from_state(state["conditions"]),
        )

    def misfits(self, crystals: Sequence[Crystal]) -> list[tuple[int, str]]:
        """(index, reason) of the crystals that the family cannot encode: too many sites or elements, or a new one."""
        return [(i, reason) for i, crystal in enumerate(crystals) if (reason := self._misfit(crystal))]

    def _misfit(self, crystal: Crystal) -> str:
        from ase.data import chemical_symbols

        if reason := self.codec.misfit(crystal):
            return reason
        strangers = sorted(set(crystal.numbers.tolist()) - set(self.elements))
        return f"{', '.join(chemical_symbols[z] for z in strangers)} not in the training data" if strangers else ""

    def encode(self, crystals: Sequence[Crystal]) -> NDArray[np.float32]:
        """(M, 3, P, W) float32 of crystals that fit the family.

        Raises:
            ValueError: if one does not.
        """
        out = np.zeros((len(crystals), *self.codec.shape), dtype=np.float32)
        for row, crystal in zip(out, crystals, strict=True):
            ordered = in_order(crystal)
            cloud = self.codec.encode(ordered, order_elements(ordered.numbers.tolist()))
            row[:] = self.codec.forward(cloud._replace(position=_around_zero(cloud.position)))
        return out

    def parts(self, config: Config) -> list[DiffusionPart]:
        """The one network that is trained, `cloud`."""
        return [DiffusionPart(CLOUD, config.model, config.diffusion, self.codec.shape, self.conditions.layout())]

    def training_tensors(self, entries: Sequence[Entry], config: Config) -> dict[str, dict[str, Tensor]]:
        """`x` (M, 3, P, W) and `c` (M, Dc) float32 of the part `cloud`; entries of `misfits` are left out."""
        bad = {i for i, _ in self.misfits([e.crystal for e in entries])}
        good = [e for i, e in enumerate(entries) if i not in bad]
        c = self.conditions.encode([known_of(e.crystal, e.values) for e in good])
        return {CLOUD: {"x": torch.from_numpy(self.encode([e.crystal for e in good])), "c": torch.from_numpy(c)}}

    def generator(
        self,
        models: Mapping[str, Trained],
        *,
        seed: int,
        settings: SampleConfig,
        device: torch.device | str = "cpu",
        conditions: Mapping[str, Any] | None = None,
    ) -> CloudGenerator:
        """What draws samples from the trained part: a function of at most `settings.micro_batch` ids.

        Args:
            models: the part `cloud`, with its weights.
            seed: of the run; with its id it decides all random numbers of a sample, its elements among them.
            settings: sampler, steps, guidance and micro-batch.
            device: where the network is.
            conditions: `elements` and columns, see `hpcgen.family.request.Request`.

        Raises:
            ConfigError: if the model does not know what is asked for, or cannot be asked for it.
        """
        return CloudGenerator(self, models[CLOUD], Draw(seed, settings, device), Request.of(conditions or {}))

    def score(
        self,
        models: Mapping[str, Trained],
        part: str,
        real: Sequence[Crystal],
        config: Config,
        device: torch.device | str = "cpu",
    ) -> dict[str, float]:
        """How good a small sample is while the part is in training, see `hpcgen.family.pointcloud_scores.score`."""
        from hpcgen.family.pointcloud_scores import score

        return score(self, models, real, config, device)

    def denoise(
        self,
        models: Mapping[str, Trained],
        entries: Sequence[Entry],
        starts: Sequence[int],
        config: Config,
        device: torch.device | str = "cpu",
    ) -> Iterator[Denoised]:
        """Real structures under noise, denoised and compared, see `hpcgen.family.denoising.denoise`."""
        from hpcgen.family.denoising import denoise

        return denoise(self, models[CLOUD], entries, starts, config, device)

    def sample_attrs(self) -> dict[str, Any]:
        """What samples.h5 needs to be read without the model."""
        return cloud_attrs(self.codec.scales)

    @classmethod
    def reconstructor(cls, attrs: dict[str, Any], config: Config) -> PointCloudReconstructor:
        """The decoder for samples of a file with these attributes."""
        return PointCloudReconstructor(attrs, config)


def in_order(crystal: Crystal) -> Crystal:
    """The same crystal with its atoms ordered by their coordinates, those just below 1 as those at 0."""
    x, y, z = _around_zero(crystal.frac).round(3).T
    order = np.lexsort((z, y, x))
    return Crystal(crystal.lattice, crystal.frac[order], crystal.numbers[order])


def _around_zero(frac: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fractional coordinates in [-NEAR_ONE, 1 - NEAR_ONE)."""
    return np.where(frac >= 1 - NEAR_ONE, frac - 1, frac)
