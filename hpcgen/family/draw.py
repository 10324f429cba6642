"""Drawing one micro-batch from the trained parts of a family.

Every sample has random numbers of its own, from generators on the CPU seeded by (seed, its id, the part). Batches are
padded to one size, because a matrix product may round differently for another number of rows. So a sample is the same
whatever is drawn beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcgen.config import SampleConfig
from hpcgen.crystal import FloatArray
from hpcgen.diffusion.objective import Objective
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.diffusion.sampling import PartSampler
from hpcgen.family.composition_model import CompositionPart, draw_tokens
from hpcgen.family.lattice_model import Cells, LatticePart
from hpcgen.flow import seed_of
from hpcgen.represent.lattice_tokens import LatticeTokens

Project = Callable[[Tensor], Tensor]
"""Estimates of the samples (M, *shape), made to satisfy what is given."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A part with the weights that sample.

    Attributes:
        part: as the family made it.
        network: in evaluation mode, on the device.
        lower: (*shape) lowest value of each dimension in the training rows; estimates are kept above it.
        upper: (*shape) highest, likewise.
    """

    part: Any
    network: nn.Module
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Draw:
    """How samples are drawn.

    Attributes:
        seed: of the run.
        settings: sampler, steps, guidance, and the size of a micro-batch.
        device: of the networks.
    """

    seed: int
    settings: SampleConfig
    device: torch.device | str = "cpu"

    def compositions(
        self, trained: Trained, ids: Sequence[str], c: Tensor, patterns: Tensor, wanted: Sequence[int]
    ) -> Tensor:
        """(M, 1 + C) int64 tokens on the CPU, from conditions (M, Dc); see `draw_tokens`."""
        part: CompositionPart = trained.part
        size = self.settings.micro_batch
        uniform, conditions = torch.zeros(size, 1 + part.tokens.channels), torch.zeros(size, c.shape[1])
        for row, id_ in zip(uniform, ids, strict=False):
            row.uniform_(generator=torch.Generator().manual_seed(seed_of(self.seed, id_, f"noise:{part.name}")))
        conditions[: len(ids)] = c
        tokens = draw_tokens(
            trained.network,
            part.layout,
            conditions.to(self.device),
            uniform.to(self.device),
            self.settings.guidance,
            patterns.to(self.device),
            wanted,
        )
        return tokens[: len(ids)].cpu()

    def cells(
        self,
        trained: Trained,
        ids: Sequence[str],
        c: Tensor,
        n_atoms: NDArray[np.int64],
        fixed: FloatArray,
        tokens: LatticeTokens,
    ) -> FloatArray:
        """(M, 6) values of cells from conditions (M, Dc); see `hpcgen.family.lattice_model.Cells`."""
        part: LatticePart = trained.part
        size = self.settings.micro_batch
        generators = [torch.Generator().manual_seed(seed_of(self.seed, id_, f"noise:{part.name}")) for id_ in ids]
        conditions, atoms = torch.zeros(size, c.shape[1]), np.ones(size, dtype=np.int64)
        conditions[: len(ids)], atoms[: len(ids)] = c, n_atoms
        draw = Cells(trained.network, part.layout, tokens, self.settings.guidance)
        return draw.draw(conditions.to(self.device), atoms, fixed, generators)[: len(ids)]

    def arrays(self, trained: Trained, ids: Sequence[str], c: Tensor | None, project: Project | None = None) -> Tensor:
        """(micro_batch, *shape) float32 of a diffusion part on the CPU; rows beyond the ids are padding.

        Args:
            trained: the part.
            ids: of the M samples.
            c: (M, Dc) condition vectors, None if the part has none.
            project: applied to every estimate of x0, the last included, so that what it demands holds exactly.
        """
        part: DiffusionPart = trained.part
        bounds = trained.lower.to(self.device), trained.upper.to(self.device)
        if project is None:
            return PartSampler(part, trained.network, self.settings, self.seed, bounds, self.device).draw(ids, c).cpu()
        given = copy.copy(part)
        given.objective = Projected(part.objective, project, len(ids), bounds)
        return PartSampler(given, trained.network, self.settings, self.seed, None, self.device).draw(ids, c).cpu()


@dataclass(frozen=True)
class Projected:
    """A `hpcgen.diffusion.objective.Objective` whose estimates of x0 are made to satisfy what is given.

    Attributes:
        objective: what the network was trained to predict.
        project: what makes estimates satisfy it.
        count: samples in the micro-batch; further rows are padding.
        bounds: lowest and highest value of each dimension, that estimates are kept within before.
    """

    objective: Objective
    project: Project
    count: int
    bounds: tuple[Tensor, Tensor]

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """As the objective's."""
        return self.objective.target(x0, eps, a, s)

    def per_x0(self, snr: Tensor) -> Tensor:
        """As the objective's."""
        return self.objective.per_x0(snr)

    def x0(self, output: Tensor, x_t: Tensor, a: float, s: float) -> Tensor:
        """The estimate of x0 that a network output means, projected."""
        x0 = torch.maximum(torch.minimum(self.objective.x0(output, x_t, a, s), self.bounds[1]), self.bounds[0])
        return torch.cat([self.project(x0[: self.count]), x0[self.count :]])
