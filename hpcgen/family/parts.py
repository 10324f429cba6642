"""What is trained of the representation family: composition, lattice given that, and descriptor given both.

    p(x) = p(composition | asked) p(lattice | composition, asked) p(descriptor | composition, lattice, asked)

Elements and number of atoms reach lattice and descriptor as the composition itself; columns of the data reach all
three. The paper's joint vector is one part, `joint`. How they are drawn from is in `hpcgen.family.generator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcgen.config import Config
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.family.composition_model import CompositionPart
from hpcgen.family.conditions import known_of
from hpcgen.family.features import CompositionFeatures
from hpcgen.family.lattice_model import LatticePart
from hpcgen.flow import Entry
from hpcgen.represent.lattice_tokens import values_of

if TYPE_CHECKING:
    from hpcgen.diffusion.conditions import ConditionLayout
    from hpcgen.family.representation import RepresentationFamily
    from hpcgen.train.part import Part

Tensors = dict[str, Tensor]
COMPOSITION, LATTICE, DESCRIPTOR, JOINT = "composition", "lattice", "descriptor", "joint"


def make_parts(family: RepresentationFamily, config: Config) -> list[Part]:
    """What is trained, in the order of sampling."""
    model, diffusion = config.model, config.diffusion
    if model.stages == "joint":
        layout = family.conditions.layout()
        return [DiffusionPart(JOINT, model, diffusion, family.shape, layout if layout.width else None)]
    columns, known = family.conditions.columns(), features(family).width
    length = (family.descriptor.length,)
    return [
        CompositionPart(family.tokens, family.conditions.layout(), model.composition_width, model.composition_dropout),
        _lattice_part(family, config, columns.layout(known)),
        DiffusionPart(DESCRIPTOR, model, diffusion, length, columns.layout(known + family.lattice.length)),
    ]


def _lattice_part(family: RepresentationFamily, config: Config, layout: ConditionLayout) -> Part:
    model, diffusion = config.model, config.diffusion
    if in_tokens(family, config):
        return LatticePart(
            layout, model.lattice_width, model.lattice_blocks, model.lattice_dropout, diffusion.unconditional
        )
    small = model.model_copy(
        update={"name": "resmlp", "width": model.lattice_width, "resnet_blocks": model.lattice_blocks}
    )
    return DiffusionPart(LATTICE, small, diffusion, (family.lattice.length,), layout)


def in_tokens(family: RepresentationFamily, config: Config) -> bool:
    """Whether cells are drawn as tokens; they were not when checkpoints without `lattice_tokens` were made."""
    return config.model.lattice == "autoregressive" and family.lattice_tokens is not None


def training_tensors(family: RepresentationFamily, entries: Sequence[Entry], config: Config) -> dict[str, Tensors]:
    """The rows of each part, see `RepresentationFamily.training_tensors`."""
    bad = {i for i, _ in family.misfits([e.crystal for e in entries])}
    good = [e for i, e in enumerate(entries) if i not in bad]
    known = [known_of(e.crystal, e.values) for e in good]
    x, asked = family.encode([e.crystal for e in good])[0], family.conditions.encode(known)
    if config.model.stages == "joint":
        return {JOINT: _tensors(x=x, c=asked) if asked.shape[1] else _tensors(x=x)}
    cells, vectors = np.split(x[:, family.codec.length :], [family.lattice.length], axis=1)
    counts, elements = family.tokens.encode([e.crystal.numbers for e in good])
    tokens, usable = family.tokens.tokens(counts, elements)
    given = np.concatenate([family.conditions.columns().encode(known), features(family).encode(counts, elements)], 1)
    drawn: NDArray[Any] = cells
    if in_tokens(family, config):
        assert family.lattice_tokens is not None
        drawn = family.lattice_tokens.tokens(values_of([e.crystal for e in good]))
    return {
        COMPOSITION: _tensors(x=tokens, c=asked[usable]),
        LATTICE: _tensors(x=drawn, c=given),
        DESCRIPTOR: _tensors(x=vectors, c=np.concatenate([given, cells], 1)),
    }


def features(family: RepresentationFamily) -> CompositionFeatures:
    """Composition features for the networks of lattice and descriptor."""
    return CompositionFeatures(family.codec.elements, family.codec.channels, family.max_atoms)


def _tensors(**arrays: NDArray[Any]) -> Tensors:
    return {name: torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for name, a in arrays.items()}
