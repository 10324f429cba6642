"""The 1-D U-Net."""

from __future__ import annotations

import pytest
import torch

from hpcgen import models
from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError
from hpcgen.models.unet1d import LinearAttention, WSConv1d


def small(**changes):
    return ModelConfig(name="unet1d", **({"width": 8, "attention_dim": 16, "attention_heads": 2} | changes))


def awake(model):
    """The network with a last layer that is not zero any more, as after some training."""
    torch.nn.init.normal_(model.last.weight)
    return model.eval()


@pytest.mark.parametrize("length", [1, 2, 7, 33, 64])
@pytest.mark.parametrize("patch", [1, 4])
def test_any_length_comes_back_as_it_went_in(length, patch):
    model = awake(models.build(small(patch=patch), (length,)))
    out = model(torch.randn(3, length), torch.tensor([0, 5, 999]))
    assert out.shape == (3, length)
    assert out.isfinite().all()
    assert out.std() > 0


@pytest.mark.parametrize(
    "changes", [{"multipliers": [1]}, {"multipliers": [1, 2, 4]}, {"width": 12}, {"resnet_blocks": 1}, {"width": 1}]
)
def test_every_key_of_the_configuration_makes_another_network(changes):
    def size(model):
        return sum(p.numel() for p in model.parameters())

    model = awake(models.build(small(**changes), (20,)))
    assert model(torch.randn(2, 20), torch.tensor([1, 2])).shape == (2, 20)
    assert size(model) != size(models.build(small(), (20,)))


def test_starts_at_zero_and_every_parameter_learns():
    model = models.build(small(), (21,))
    assert model(torch.randn(2, 21), torch.tensor([1, 2])).abs().max() == 0
    awake(model)(torch.randn(4, 21), torch.arange(4) * 100).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # a bias before a GroupNorm of one channel per group would be idle; here groups hold several
    assert idle == []


def test_depends_on_time_and_on_position():
    model = awake(models.build(small(), (16,)))
    x = torch.randn(1, 16)
    assert not torch.allclose(model(x, torch.tensor([10])), model(x, torch.tensor([500])))
    constant = model(torch.ones(1, 16), torch.tensor([10]))[0, 5:11]  # away from the ends
    assert constant.std() > 1e-4


def test_every_output_sees_every_input():
    model = awake(models.build(small(), (64,)))
    x = torch.randn(1, 64, requires_grad=True)
    model(x, torch.tensor([10]))[0, 0].backward()
    assert (x.grad[0] != 0).all()


def test_rows_do_not_see_each_other():
    model = awake(models.build(small(), (16,)))
    x, t = torch.randn(4, 16), torch.tensor([1, 20, 300, 900])
    other = x.clone()
    other[1:] += 1
    assert torch.equal(model(x, t)[0], model(other, t)[0])


def test_standardised_kernels_ignore_scale_and_offset():
    conv = WSConv1d(4, 6, 3)
    x = torch.randn(2, 4, 9)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(7.0).add_(0.5)
    torch.testing.assert_close(conv(x), before, atol=1e-3, rtol=1e-3)


def test_linear_attention_is_equivariant_under_permutation_of_positions():
    attention = LinearAttention(8, 2, 16)
    x, order = torch.randn(2, 8, 10), torch.randperm(10)
    torch.testing.assert_close(attention(x)[..., order], attention(x[..., order]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="takes vectors"):
        models.build(small(), (3, 128, 3))
    with pytest.raises(ConfigError, match=r"a multiple of model\.attention_heads, 3"):
        models.build(small(attention_heads=3), (10,))
    with pytest.raises(ValueError, match=r"takes \(B, 10\)"):
        models.build(small(), (10,))(torch.zeros(1, 11), torch.zeros(1))


def test_unknown_network_names_those_there_are():
    with pytest.raises(ConfigError, match=r"one of .*unet1d"):
        models.build(ModelConfig.model_construct(name="perceptron"), (10,))


def test_another_network_can_be_registered(monkeypatch):
    monkeypatch.setitem(models.MODELS, "line", lambda config, shape, width: torch.nn.Linear(shape[0], shape[0]))
    model = models.build(ModelConfig.model_construct(name="line"), (5,))
    assert model(torch.zeros(2, 5)).shape == (2, 5)
