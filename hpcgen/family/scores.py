"""What a small sample is worth while a part is being trained: drawn, decoded and compared with real crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config
from hpcgen.crystal import Crystal, composition_of
from hpcgen.errors import Failure
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.generator import Staged, make_generator
from hpcgen.family.parts import COMPOSITION, DESCRIPTOR, JOINT
from hpcgen.family.request import Request
from hpcgen.flow import Candidate, seed_of
from hpcgen.represent.lattice import squared_share
from hpcgen.screen.validity import composition_valid, structure_valid

if TYPE_CHECKING:
    import torch

    from hpcgen.family.representation import RepresentationFamily, RepresentationSample

DRAWN, REBUILT = 64, 16
"""Samples that are drawn, and of these how many are rebuilt into crystals, which takes longer."""
GRAMS = 1.66053907  # g/cm3 in one atomic mass unit per cubic angstrom


def score(
    family: RepresentationFamily,
    models: Mapping[str, Trained],
    part: str,
    real: Sequence[Crystal],
    config: Config,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Scores of a part in training, by name.

    `valid_composition` and `unique_composition`: shares of the drawn. `density_distance` and `nearest_distance`: how
    far the distributions of density (g/cm3) and of the smallest distance (angstrom) are from those of real crystals
    (Wasserstein). `rebuilt`, `valid_structure`: shares of the samples that reconstruction finds a crystal for with a
    short search, and that are valid; `residual`: median of what is left.

    Args:
        family: as fitted.
        models: the part and those before it.
        part: its name.
        real: crystals to compare with.
        config: sections sample and reconstruct, and the seed.
        device: of the networks.
    """
    how = Draw(config.seed, config.sample.model_copy(update={"guidance": 0.0}), device)
    draw = make_generator(family, models, how, Request())
    size = config.sample.micro_batch
    ids = [f"score-{i}" for i in range(min(DRAWN, size))]
    if part in (JOINT, DESCRIPTOR):
        return _of_samples(family, [s for s in draw(ids) if not isinstance(s, Failure)], real, config)
    assert isinstance(draw, Staged)
    counts, elements = draw.compositions(ids)
    numbers = [
        np.repeat(np.array(family.codec.elements)[e[c > 0]], c[c > 0]) for c, e in zip(counts, elements, strict=True)
    ]
    if part == COMPOSITION:
        return of_compositions(numbers)
    parameters = draw.parameters(draw.cells(ids, counts, elements), counts.sum(1))
    return {"density_distance": _density_distance(numbers, parameters, real)}


def of_compositions(numbers: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Shares of compositions, (n,) atomic numbers each, that SMACT balances and that differ from the others."""
    different = {tuple(sorted(z.tolist())) for z in numbers}
    return {
        "valid_composition": float(np.mean([composition_valid(z) for z in numbers])),
        "unique_composition": len(different) / len(numbers),
    }


def _of_samples(
    family: RepresentationFamily, samples: Sequence[RepresentationSample], real: Sequence[Crystal], config: Config
) -> dict[str, float]:
    """Rebuilds some of the samples, each from one start, and scores what comes out."""
    if not samples:
        return {"rebuilt": 0.0, "valid_structure": 0.0}
    one = config.reconstruct.model_copy(update={"anneal": config.reconstruct.anneal.model_copy(update={"starts": 1})})
    rebuild = family.reconstructor(family.sample_attrs(), config.model_copy(update={"reconstruct": one}))
    tried = [rebuild.reconstruct(s, s.id, seed_of(config.seed, s.id, "score")) for s in samples[:REBUILT]]
    built = [c for c in tried if isinstance(c, Candidate)]
    out = {
        "rebuilt": len(built) / len(tried),
        "valid_structure": sum(structure_valid(c.crystal) for c in built) / len(tried),
    }
    if not built:
        return out
    return {
        **out,
        **of_compositions([c.crystal.numbers for c in built]),
        "residual": float(np.median([c.residual for c in built])),
        "density_distance": distance([c.crystal.density for c in built], [c.density for c in real]),
        "nearest_distance": distance(
            [c.crystal.smallest_distance() for c in built], [c.smallest_distance() for c in real]
        ),
    }


def _density_distance(
    numbers: Sequence[NDArray[Any]], parameters: NDArray[np.float64], real: Sequence[Crystal]
) -> float:
    mass = np.array([composition_of(z).weight for z in numbers])
    a, b, c = parameters[:, :3].T
    volume = a * b * c * np.sqrt(np.maximum(squared_share(parameters[:, 3:]), 1e-6))
    return distance((GRAMS * mass / volume).tolist(), [crystal.density for crystal in real])


def distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Wasserstein distance between two distributions, in their unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(ours, theirs))
