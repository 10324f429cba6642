"""Samples of a trained part, each the same whatever is sampled beside it.

All noise of a sample comes from its own generator, and a network always sees micro-batches of one size: what is
missing is padded with zeros, because a matrix product may round differently for another number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hpcgen.diffusion.part import DiffusionPart
from hpcgen.diffusion.samplers import Estimate, denoise, denoiser, guided, sample
from hpcgen.flow import seed_of

if TYPE_CHECKING:
    from hpcgen.config import SampleConfig

BLOCK = 16  # arrays that a sample's generator draws at a time, after the first: a call costs as much as many numbers


class PartSampler:
    """Draws arrays from a trained diffusion part.

    Args:
        part: schedule, objective, shape and conditions.
        network: its trained network, on the device, in evaluation mode.
        settings: sampler, steps, guidance and the size of a micro-batch.
        seed: of the run.
        bounds: lowest and highest value of each dimension, (*shape) each, that estimates are kept within.
        device: of the network.

    Raises:
        ValueError: if the schedule has fewer steps than are asked for.
    """

    def __init__(
        self,
        part: DiffusionPart,
        network: nn.Module,
        settings: SampleConfig,
        seed: int,
        bounds: tuple[Tensor, Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if settings.sampler != "ddpm" and settings.steps > part.schedule.steps:
            raise ValueError(f"{settings.steps} steps of a model with {part.schedule.steps} noise levels")
        self.part, self._network, self._settings, self._seed = part, network, settings, seed
        self._device = torch.device(device)
        self._bounds = None if bounds is None else (bounds[0].to(self._device), bounds[1].to(self._device))

    def draw(
        self, ids: Sequence[str], c: Tensor | None = None, project: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """One array for each id, (micro_batch, *shape) on the device; rows beyond the ids are padding.

        Args:
            ids: at most `micro_batch` of them.
            c: (M, Dc) conditions of the samples, if the part has some.
            project: makes estimates of x0 (micro_batch, *shape) satisfy what is given, the last one too.

        Raises:
            ValueError: if there are more ids than fit, or conditions are missing or not wanted.
        """
        estimate, noise = self._prepared(ids, c, project)
        return sample(self._settings.sampler, estimate, self.part.schedule, self._settings.steps, noise)

    def redraw(self, ids: Sequence[str], x0: Tensor, start: int, c: Tensor | None = None) -> Tensor:
        """As `draw`, from arrays x0 (M, *shape) under the noise of time `start` instead of from noise alone.

        Of the steps asked for no more are taken than there are times up to `start`.

        Raises:
            ValueError: as `draw`, or for a time that the schedule does not have.
        """
        estimate, noise = self._prepared(ids, c, None)
        schedule = self.part.schedule
        alpha_bar = float(schedule.alpha_bar[start])
        padded = torch.zeros(self._settings.micro_batch, *self.part.shape)
        padded[: len(ids)] = x0
        x_t = alpha_bar**0.5 * padded.to(self._device) + (1 - alpha_bar) ** 0.5 * noise()
        steps = min(self._settings.steps, start + 1)
        return denoise(self._settings.sampler, estimate, x_t, schedule, steps, noise, start)

    def _prepared(
        self, ids: Sequence[str], c: Tensor | None, project: Callable[[Tensor], Tensor] | None
    ) -> tuple[Estimate, Callable[[], Tensor]]:
        """The estimate of x0 for these samples, and their noise."""
        size, layout = self._settings.micro_batch, self.part.condition
        if not 0 < len(ids) <= size:
            raise ValueError(f"{len(ids)} ids for a micro-batch of {size}")
        if (layout is None) != (c is None):
            wants = "takes no conditions" if layout is None else "needs conditions"
            raise ValueError(f"part {self.part.name} {wants}")
        network: Callable[..., Tensor] = self._network
        if layout is not None and c is not None:
            padded = torch.zeros(size, layout.width)
            padded[: len(ids)] = c
            network = guided(network, layout, padded.to(self._device), self._settings.guidance)
        estimate = denoiser(network, self.part.schedule, self.part.objective, self._bounds)
        if project is not None:
            estimate = _then(estimate, project)
        noise = _noise([seed_of(self._seed, id_, f"noise:{self.part.name}") for id_ in ids], size, self.part.shape)
        return estimate, lambda: next(noise).to(self._device)


def _then(estimate: Estimate, project: Callable[[Tensor], Tensor]) -> Estimate:
    return lambda x, t: project(estimate(x, t))


def _noise(seeds: Sequence[int], size: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Standard normal noise (size, *shape), row i from a generator of its own; rows without a seed are zero.

    Drawn on the CPU, so that a GPU samples from the same noise.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    many = 1
    while True:
        block = torch.zeros(size, many, *shape)
        for row, generator in zip(block, generators, strict=False):
            row.normal_(generator=generator)
        yield from block.transpose(0, 1).contiguous()
        many = BLOCK
