"""Stage sample: checkpoint.pt -> samples.h5."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import make_id, seed_of
from hpcgen.stages.context import Balance, Context

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hpcgen.config import SampleConfig
    from hpcgen.diffusion.samplers import Estimate
    from hpcgen.diffusion.schedules import Schedule

log = logging.getLogger("hpcgen")


def run(ctx: Context) -> Balance:
    """Draw `sample.n` samples from the trained model and write samples.h5.

    Model, diffusion and family are those that the checkpoint holds; only the section `sample` and the seed are read
    from the configuration. Sample i is the same for any n: its noise comes from its own stream, and its place in a
    micro-batch of fixed size is i modulo that size.

    Raises:
        CheckpointError: if there is no checkpoint of this configuration, or it is damaged.
        ConfigError: if more denoising steps are asked for than the model was trained with.
        LaunchError: if the device is not there.
    """

    from hpcgen import diffusion, models, provenance, store
    from hpcgen.config import loads
    from hpcgen.family import get_family
    from hpcgen.train import checkpoint
    from hpcgen.train.ddp import pick_device

    config, settings = ctx.config, ctx.config.sample
    path = ctx.path("checkpoint.pt")
    trained = checkpoint.load(path, family=config.train.family, config_digest=config.digest())
    if not trained.finished:
        log.warning("sample: checkpoint.pt stops at step %d of %d", trained.step, trained.steps)
    original = loads(trained.config, str(path))
    schedule = diffusion.Schedule.of(original.diffusion.schedule, original.diffusion.steps)
    if settings.sampler == "ddim" and settings.steps > schedule.steps:
        raise ConfigError(
            f"sample.steps is {settings.steps}, and the model was trained with {schedule.steps} noise levels",
            expected=f"at most {schedule.steps}",
        )
    device = pick_device(settings.device)
    shape = tuple(trained.shape)
    model = models.build(original.model, shape)
    model.load_state_dict(trained.ema)
    model.to(device).eval()
    bounds = trained.lower.to(device), trained.upper.to(device)
    estimate = diffusion.denoiser(model, schedule, diffusion.OBJECTIVES[original.diffusion.objective], bounds)

    family = get_family(trained.family).from_state(trained.family_state)
    ids = [make_id(config.identity("sample"), "sample", i) for i in range(settings.n)]
    x = draw(estimate, schedule, shape, settings, ids, config.seed, device)
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    failures = [
        Failure(id_, "sample", "not-finite", "the network returned values that are not finite numbers")
        for id_, good in zip(ids, finite, strict=True)
        if not good
    ]
    records = family.to_samples([id_ for id_, good in zip(ids, finite, strict=True) if good], x[finite])
    balance = Balance.of("sample", settings.n, len(records), failures)
    store.write(
        ctx.path("samples.h5"),
        family.sample_type,
        records,
        failures=failures,
        header=provenance.header(config, {"checkpoint.pt": _weights_digest(trained.ema)}),
        attrs={**family.sample_attrs(), "family": family.name, "balance": balance.to_json()},
    )
    log.info("%s", balance)
    return balance


def draw(
    estimate: Estimate,
    schedule: Schedule,
    shape: tuple[int, ...],
    settings: SampleConfig,
    ids: Sequence[str],
    seed: int,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """One generated array for each id, (M, *shape) float32.

    All noise of a sample, first and later, comes from a generator on the CPU seeded by (seed, its id). The last
    micro-batch is padded with zeros, because a matrix product may round differently for another number of rows.
    """
    import torch
    from tqdm import tqdm

    from hpcgen import diffusion

    size = settings.micro_batch
    out: list[Tensor] = []
    steps = schedule.steps if settings.sampler == "ddpm" else settings.steps
    with tqdm(total=-(-len(ids) // size) * steps, desc="sample", unit="step", disable=None) as bar:

        def progress(times: Sequence[int]) -> Iterator[int]:
            for t in times:
                yield t
                bar.update()

        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            generators = [torch.Generator().manual_seed(seed_of(seed, id_, "noise")) for id_ in part]

            def noise(generators: list[torch.Generator] = generators) -> Tensor:
                drawn = torch.zeros(size, *shape)
                for row, generator in zip(drawn, generators, strict=False):
                    row.normal_(generator=generator)
                return drawn.to(device)

            if settings.sampler == "ddpm":
                x = diffusion.ddpm(estimate, noise(), schedule, noise, progress)
            else:
                x = diffusion.ddim(estimate, noise(), schedule, settings.steps, progress)
            out.append(x[: len(part)].cpu())
    return torch.cat(out).numpy()


def _weights_digest(weights: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
