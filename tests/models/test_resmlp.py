"""The residual MLP."""

from __future__ import annotations

import pytest
import torch

from hpcgen import models
from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError

SMALL = ModelConfig(name="resmlp", width=16, resnet_blocks=2)


def test_starts_at_zero_and_every_parameter_learns() -> None:
    model = models.build(SMALL, (21,))
    x, t = torch.randn(8, 21), torch.arange(8) * 100
    assert model(x, t).abs().max() == 0
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model(x, t).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_each_dimension_sees_all_others_and_the_time() -> None:
    model = models.build(SMALL, (5,))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, torch.tensor([7])), torch.randn(1, 5))
    assert (jacobian.abs() > 1e-6).all()
    x = torch.randn(1, 5)
    assert not torch.allclose(model(x, torch.tensor([10])), model(x, torch.tensor([500])))


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes vectors"):
        models.build(SMALL, (3, 4))
    with pytest.raises(ValueError, match=r"\(B, 5\)"):
        models.build(SMALL, (5,))(torch.zeros(1, 6), torch.zeros(1))


def test_width_and_blocks_make_another_network() -> None:
    sizes = {
        sum(p.numel() for p in models.build(SMALL.model_copy(update=change), (5,)).parameters())
        for change in ({}, {"width": 32}, {"resnet_blocks": 3})
    }
    assert len(sizes) == 3
