"""What a small sample of clouds is worth while the network is being trained: drawn, decoded and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.family.draw import Trained
from hpcgen.family.scores import distance, of_compositions
from hpcgen.flow import Candidate, seed_of
from hpcgen.screen.validity import structure_valid

if TYPE_CHECKING:
    import torch

    from hpcgen.family.pointcloud import PointCloudFamily

DRAWN = 64


def score(
    family: PointCloudFamily,
    models: Mapping[str, Trained],
    real: Sequence[Crystal],
    config: Config,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Scores of the network in training, by name; clouds of element sets as frequent as in the training split.

    `decoded`, `valid_structure`, `all_elements`: shares of the samples that decode, that are valid crystals, and that
    contain every element that was given. `valid_composition`, `unique_composition`: shares of the decoded.
    `atoms_distance`, `density_distance`, `nearest_distance`: how far the distributions of the number of atoms, density
    (g/cm3) and smallest distance (angstrom) are from those of real crystals (Wasserstein).

    Args:
        family: as fitted.
        models: the part `cloud`.
        real: crystals to compare with.
        config: sections sample and reconstruct, and the seed.
        device: of the network.
    """
    settings = config.sample.model_copy(update={"guidance": 0.0})
    draw = family.generator(models, seed=config.seed, settings=settings, device=device)
    samples = draw([f"score-{i}" for i in range(min(DRAWN, settings.micro_batch))])
    decoder = family.reconstructor(family.sample_attrs(), config)
    built, complete = [], 0
    for sample in samples:
        if isinstance(sample, Failure):
            continue
        candidate = decoder.reconstruct(sample, sample.id, seed_of(config.seed, sample.id, "score"))
        if isinstance(candidate, Candidate):
            built.append(candidate.crystal)
            complete += set(candidate.crystal.numbers.tolist()) == set(sample.elements[sample.elements > 0].tolist())
    n = len(samples)
    out = {
        "decoded": len(built) / n,
        "valid_structure": sum(structure_valid(c) for c in built) / n,
        "all_elements": complete / n,
    }
    if not built:
        return out
    return {
        **out,
        **of_compositions([np.asarray(c.numbers) for c in built]),
        "atoms_distance": distance([len(c) for c in built], [len(c) for c in real]),
        "density_distance": distance([c.density for c in built], [c.density for c in real]),
        "nearest_distance": distance([c.smallest_distance() for c in built], [c.smallest_distance() for c in real]),
    }
