"""Samples of a part: each is the same whatever is drawn beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hpcgen.config import DiffusionConfig, ModelConfig, SampleConfig
from hpcgen.diffusion import ConditionLayout, DiffusionPart
from hpcgen.diffusion.sampling import BLOCK, PartSampler

IDS = [f"{i:016x}" for i in range(9)]
DIFFUSION = DiffusionConfig(steps=50)


def sampler(settings: SampleConfig, seed: int = 1, layout: ConditionLayout | None = None) -> PartSampler:
    """Of an untrained network whose last layer is not zero."""
    model = ModelConfig(name="unet1d", width=16, attention_dim=32)
    part = DiffusionPart("joint", model, DIFFUSION, (37,), layout)
    torch.manual_seed(0)
    network = part.network().eval()
    torch.nn.init.normal_(network.last.weight)
    return PartSampler(part, network, settings, seed)


def drawn(one: PartSampler, ids: list[str], c: torch.Tensor | None = None) -> torch.Tensor:
    """All ids, a micro-batch at a time."""
    size = one._settings.micro_batch
    parts = [
        one.draw(ids[i : i + size], None if c is None else c[i : i + size])[: len(ids[i : i + size])]
        for i in range(0, len(ids), size)
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++"])
def test_a_sample_depends_on_its_id_alone(name):
    settings = SampleConfig(sampler=name, steps=10, micro_batch=4)
    one = sampler(settings)
    nine = drawn(one, IDS)
    assert nine.isfinite().all()
    assert torch.equal(drawn(one, IDS[:5]), nine[:5])  # another n
    assert torch.equal(drawn(one, [IDS[0], *IDS[4:7]])[0], nine[0])  # other neighbours
    torch.testing.assert_close(drawn(one, IDS[::-1]).flip(0), nine, atol=2e-4, rtol=0)  # other places: but for rounding
    assert not torch.allclose(drawn(sampler(settings, seed=2), IDS), nine, atol=0.1)


def test_later_noise_is_the_samples_own_and_never_the_same():
    # an estimate of zero leaves a sum of all the noise: with one stream for the batch, neighbours would show
    one = sampler(SampleConfig(sampler="ddpm", micro_batch=4))
    seen: list[torch.Tensor] = []

    def silent(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return 0 * x

    one._network = silent  # type: ignore[assignment]
    alone = one.draw([IDS[6]])[0]
    assert len(seen) == DIFFUSION.steps > 2 * BLOCK  # more than one block of noise
    steps = torch.stack([b[0] - a[0] for a, b in pairwise(seen)])
    likeness = torch.corrcoef(steps) - torch.eye(len(steps))
    assert likeness.abs().max() < 0.75  # 37 numbers each; a stream that repeats would give 1
    assert all((x[1:] == 0).all() for x in seen)  # padding stays zero
    assert torch.equal(one.draw(IDS[4:8])[2], alone)


def test_parts_have_streams_of_their_own():
    settings = SampleConfig(sampler="ddim", steps=2, micro_batch=4)
    one, other = sampler(settings), sampler(settings)
    other.part.name = "lattice"
    assert not torch.allclose(one.draw(IDS[:2])[:2], other.draw(IDS[:2])[:2], atol=0.1)


def test_conditions_and_guidance_reach_the_network():
    layout = ConditionLayout(3, (slice(0, 2),))
    c = torch.tensor([[0.5, 1.0, 1.0], [-2.0, 1.0, 1.0]])
    plain = SampleConfig(sampler="dpm++", steps=5, micro_batch=4)
    given = drawn(sampler(plain, layout=layout), IDS[:2], c)
    assert torch.equal(drawn(sampler(plain, layout=layout), IDS[:2], c), given)
    swapped = drawn(sampler(plain, layout=layout), IDS[:2], c.flip(0))
    led = drawn(sampler(plain.model_copy(update={"guidance": 2.0}), layout=layout), IDS[:2], c)
    for other in (swapped, led):
        assert other.isfinite().all()
        assert not torch.allclose(other, given, atol=1e-3)


def test_what_is_demanded_of_estimates_holds_for_the_samples():
    one = sampler(SampleConfig(sampler="dpm++", steps=6, micro_batch=4))

    def first_is_given(x0: torch.Tensor) -> torch.Tensor:
        assert x0.shape == (4, 37)
        x0 = x0.clone()
        x0[:, 0] = 0.25
        return x0

    free, held = one.draw(IDS[:2]), one.draw(IDS[:2], project=first_is_given)
    assert (held[:, 0] == 0.25).all()
    assert not (free[:2, 0] == 0.25).any()
    assert not torch.allclose(free[:2, 1:], held[:2, 1:], atol=1e-3)  # the rest follows what is given


def test_what_does_not_fit_is_refused():
    settings = SampleConfig(sampler="ddim", steps=10, micro_batch=4)
    with pytest.raises(ValueError, match="51 steps of a model with 50"):
        sampler(settings.model_copy(update={"steps": 51}))
    one = sampler(settings)
    with pytest.raises(ValueError, match="5 ids for a micro-batch of 4"):
        one.draw(IDS[:5])
    with pytest.raises(ValueError, match="takes no conditions"):
        one.draw(IDS[:2], torch.zeros(2, 3))
    with pytest.raises(ValueError, match="needs conditions"):
        sampler(settings, layout=ConditionLayout(3)).draw(IDS[:2])
