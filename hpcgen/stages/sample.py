"""Stage sample: checkpoint.pt -> samples.h5, alone or over all MPI ranks.

A task is a sample, and the tasks of a micro-batch are done together: sample i always lies in micro-batch
i // sample.micro_batch. With the seeds of its noise, which follow from its id, it is so the same for any number of
samples, of ranks and of restarts.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpcgen import farm
from hpcgen.errors import CheckpointError, ConfigError
from hpcgen.flow import make_id
from hpcgen.stages.context import Balance, Context

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from hpcgen.config import Config
    from hpcgen.train.checkpoint import Checkpoint

log = logging.getLogger("hpcgen")

STAGE = "sample"
SECONDS_PER_WEIGHT = 1e-9  # of one row through a network on one core; the farm learns how long it takes really

Generate = Callable[[Sequence[str]], list[Any]]
"""Ids of at most one micro-batch -> a record of the family's `sample_type` or a `Failure` for each."""


def run(ctx: Context) -> Balance | None:
    """Draw `sample.n` samples from the trained model and write samples.h5. All ranks call it.

    Model, diffusion and family are those that the checkpoint holds; only the section `sample` and the seed are read
    from the configuration. Values that are not finite are failures of the kind `not-finite`.

    Returns:
        The balance on rank 0, None on the others.

    Raises:
        CheckpointError: if there is no checkpoint of this configuration, or it is damaged.
        ConfigError: if more denoising steps are asked for than the model was trained with, guidance towards nothing,
            or what the model cannot be asked for (`sample.conditions`).
        LaunchError: if the device is not there.
    """
    config, settings = ctx.config, ctx.config.sample
    farm.pin_device(config.farm, settings.device)  # before torch is imported

    from hpcgen import provenance
    from hpcgen.family import get_family
    from hpcgen.train import checkpoint
    from hpcgen.train.ddp import pick_device

    trained = checkpoint.load(ctx.path("checkpoint.pt"), family=config.train.family, config_digest=config.digest())
    family = get_family(trained.family).from_state(trained.family_state)
    digest = weights_digest(trained)
    ids = [make_id(config.identity(STAGE), STAGE, i) for i in range(settings.n)]
    size = settings.micro_batch
    groups = [range(start, min(start + size, settings.n)) for start in range(0, settings.n, size)]

    def deliver(result: farm.FarmResult) -> Balance:
        balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
        header = provenance.header(config, {"checkpoint.pt": digest})
        attrs = {**family.sample_attrs(), "family": family.name, "balance": balance.to_json()}
        result.write(ctx.path("samples.h5"), header=header, attrs=attrs)
        return balance

    device = pick_device(settings.device)
    with one_thread(device):
        generate = generator(trained, config, device)
        return farm.run(
            ids,
            seconds_per_sample(trained, config),
            lambda members: generate([ids[i] for i in members]),
            family.sample_type,
            shards=ctx.path(f"shards-{STAGE}-{digest[:16]}"),  # those of other weights are never taken for these
            config=config.farm,
            label=STAGE,
            groups=groups,
            deliver=deliver,
        )


def generator(trained: Checkpoint, config: Config, device: torch.device | str = "cpu") -> Generate:
    """What draws samples from a checkpoint, as `sample.conditions` asks for them.

    Raises:
        ConfigError: as `run`.
        CheckpointError: if the checkpoint lacks a part.
    """
    import torch

    from hpcgen.config import loads

    settings, original = config.sample, loads(trained.config, "checkpoint.pt")
    if settings.sampler != "ddpm" and settings.steps > original.diffusion.steps:
        raise ConfigError(
            f"sample.steps is {settings.steps}, and the model was trained with {original.diffusion.steps} noise levels",
            expected=f"at most {original.diffusion.steps}",
        )
    family, models = restored(trained, device)
    if settings.guidance and not settings.conditions and not getattr(family, "always_told", False):
        raise ConfigError(
            f"sample.guidance is {settings.guidance}, and nothing is asked for",
            expected="0, or something in sample.conditions to be guided towards",
        )
    draw = family.generator(models, seed=config.seed, settings=settings, device=device, conditions=settings.conditions)

    def generate(ids: Sequence[str]) -> list[Any]:
        with torch.inference_mode():
            return draw(ids)

    return generate


def restored(trained: Checkpoint, device: torch.device | str = "cpu") -> tuple[Any, dict[str, Any]]:
    """The family of a checkpoint, and its parts with the weights that sample, by name.

    Raises:
        CheckpointError: if the checkpoint lacks a part.
    """
    from hpcgen.config import loads
    from hpcgen.family import get_family
    from hpcgen.family.draw import Trained

    family = get_family(trained.family).from_state(trained.family_state)
    models = {}
    for part in family.parts(loads(trained.config, "checkpoint.pt")):
        if part.name not in trained.parts:
            raise CheckpointError(
                f"checkpoint.pt lacks the part {part.name}, it has {', '.join(trained.parts)}", remedy="train again"
            )
        state = trained.parts[part.name]
        network = part.network()
        network.load_state_dict(state.ema)
        network.to(device).eval()
        models[part.name] = Trained(part, network, state.lower, state.upper)
    return family, models


def seconds_per_sample(trained: Checkpoint, config: Config) -> float:
    """Rough cost of one sample on one core, for scheduling only."""
    from hpcgen.config import loads

    settings = config.sample
    steps = loads(trained.config, "checkpoint.pt").diffusion.steps if settings.sampler == "ddpm" else settings.steps
    weights = sum(tensor.numel() for part in trained.parts.values() for tensor in part.ema.values())
    return SECONDS_PER_WEIGHT * weights * steps


def weights_digest(trained: Checkpoint) -> str:
    """Digest of the weights that sample."""
    digest = hashlib.blake2b(digest_size=16)
    for name, part in trained.parts.items():
        for key in sorted(part.ema):
            digest.update(f"{name}/{key}".encode())
            digest.update(part.ema[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU, one thread for all linear algebra: its bits depend on how many there are. Ranks use the cores."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
