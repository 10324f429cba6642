"""Samples of the point-cloud family from its trained network, as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpcgen.errors import ConfigError, Failure
from hpcgen.family.conditions import ELEMENTS, N_ATOMS
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.pointcloud_samples import CloudSample
from hpcgen.flow import seed_of
from hpcgen.represent.composition import order_elements

if TYPE_CHECKING:
    from hpcgen.family.pointcloud import PointCloudFamily
    from hpcgen.family.request import Request


class CloudGenerator:
    """Draws clouds for one request.

    The elements are given: those asked for, or for each sample a set of the training split, as often as it occurs
    there; with `among`, one of the sets within these elements. Everything else that is asked for is a condition, which
    holds as far as the network has learnt it.

    Raises:
        ConfigError: if the model does not know what is asked for, or cannot be asked for it.
    """

    def __init__(self, family: PointCloudFamily, trained: Trained, how: Draw, request: Request) -> None:
        for key, given in (("formula", request.counts), ("lattice", request.lattice)):
            if given:
                raise ConfigError(
                    f"samples are asked for by `{key}`, and a point cloud is generated as a whole",
                    expected="`elements`, or what the section `conditions` of the training names",
                    remedy="use train.family: representation, which can hold it",
                )
        if how.settings.attempts > 1:
            raise ConfigError(
                f"sample.attempts is {how.settings.attempts}, and a point cloud is generated as a whole",
                expected="1, or train.family: representation",
            )
        self.family, self.trained, self.how = family, trained, how
        self._elements = None if request.elements is None else order_elements(request.elements)
        self._wanted: dict[str, Any] = dict(request.columns)
        if request.n_atoms is not None:
            self._wanted[N_ATOMS] = request.n_atoms
        family.conditions.ask({**self._wanted, ELEMENTS: self._elements or family.sets[0]})  # raises what is unknown
        palette = set(family.elements) if request.among is None else set(request.among)
        within = [i for i, z in enumerate(family.sets) if palette.issuperset(z)]
        if not within:
            raise ConfigError(
                f"no element set of the training data lies within the {len(palette)} elements of `among`",
                expected="elements of which some occur together in the training data",
                remedy="name more of them, or ask for `elements`",
            )
        self._sets = [family.sets[i] for i in within]
        self._ends = np.cumsum([family.counts[i] for i in within])

    def slots(self, id_: str) -> tuple[int, ...]:
        """The atomic numbers of a sample's slots: those asked for, or an element set drawn by the sample's id."""
        if self._elements is not None:
            return self._elements
        draw = seed_of(self.how.seed, id_, "elements") % int(self._ends[-1])
        return self._sets[int(np.searchsorted(self._ends, draw, side="right"))]

    def __call__(self, ids: Sequence[str]) -> list[CloudSample | Failure]:
        """A sample for each of at most `sample.micro_batch` ids; a failure where a number is not finite."""
        slots = [self.slots(id_) for id_ in ids]
        c = np.stack([self.family.conditions.ask({**self._wanted, ELEMENTS: z}) for z in slots])
        x = self.how.arrays(self.trained, ids, torch.from_numpy(c)).numpy()[: len(ids)]
        return to_samples(self.family, ids, slots, x)


def to_samples(
    family: PointCloudFamily, ids: Sequence[str], slots: Sequence[Sequence[int]], x: np.ndarray
) -> list[CloudSample | Failure]:
    """Arrays (M, 3, P, W) of the network as samples; a failure `not-finite` where one is not.

    Args:
        family: with the scales.
        ids: of the samples.
        slots: atomic numbers of the slots of each.
        x: what was drawn.
    """
    finite = np.isfinite(x).all((1, 2, 3))
    cloud = family.codec.inverse(np.where(finite[:, None, None, None], x, 0.0))
    empty = [0] * family.codec.scales.elements
    out: list[CloudSample | Failure] = []
    for i, (id_, z) in enumerate(zip(ids, slots, strict=True)):
        if not finite[i]:
            why = "the network returned values that are not finite numbers"
            out.append(Failure(id_, "sample", "not-finite", why))
            continue
        position = cloud.position[i].astype(np.float32)
        position[position >= 1] = 0.0  # what rounds up to 1 in single precision
        out.append(
            CloudSample(
                id=id_,
                position=position,
                element=cloud.element[i].astype(np.float32),
                lattice=cloud.lattice[i].astype(np.float32),
                elements=np.array([*z, *empty][: len(empty)], dtype=np.uint8),
            )
        )
    return out
