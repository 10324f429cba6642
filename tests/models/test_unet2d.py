"""The networks of point clouds: the 2-D U-Net and the transformer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcgen import models
from hpcgen.config import ModelConfig
from hpcgen.errors import ConfigError

SMALL = {
    "unet2d": ModelConfig(name="unet2d", width=8, multipliers=[1, 2], resnet_blocks=1, attention_dim=16),
    "transformer": ModelConfig(name="transformer", width=8, resnet_blocks=2, attention_heads=2, patch=4),
}
NAMES = sorted(SMALL)


def awake(model: nn.Module) -> nn.Module:
    """The network with no weight at zero any more, as after some training."""
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 16, 3), (3, 7, 5), (3, 2, 3), (3, 33, 3)])
def test_any_number_of_points_comes_back_as_it_went_in(name: str, shape: tuple[int, ...]) -> None:
    model = awake(models.build(SMALL[name], shape))
    out = model(torch.randn(2, *shape), torch.tensor([0, 999]))
    assert out.shape == (2, *shape)
    assert out.isfinite().all()
    assert out.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_starts_at_zero_and_every_parameter_learns(name: str) -> None:
    model = models.build(SMALL[name], (3, 12, 3), condition_width=4)
    x, t, c = torch.randn(4, 3, 12, 3), torch.arange(4) * 100, torch.randn(4, 4)
    assert model(x, t, c).abs().max() == 0
    awake(model)(x, t, c).square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


@pytest.mark.parametrize("name", NAMES)
def test_every_point_sees_all_others_the_time_and_the_condition(name: str) -> None:
    model = awake(models.build(SMALL[name], (3, 16, 3), condition_width=2))
    x, t, c = torch.randn(1, 3, 16, 3), torch.tensor([10]), torch.tensor([[1.0, 0.0]])
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v, t, c)[0].sum((0, 2)), x)[:, 0]
    assert (jacobian.abs().amax((1, 3)) > 0).all()
    assert not torch.allclose(model(x, t, c), model(x, torch.tensor([600]), c))
    assert not torch.allclose(model(x, t, c), model(x, t, torch.zeros(1, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_is_on_its_own(name: str) -> None:
    model = awake(models.build(SMALL[name], (3, 16, 3)))
    x, t = torch.randn(3, 3, 16, 3), torch.tensor([1, 500, 900])
    other = x.clone()
    other[1:] = 0
    torch.testing.assert_close(model(x, t)[0], model(other, t)[0])


@pytest.mark.parametrize("name", NAMES)
def test_other_inputs_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="three dimensions"):
        models.build(SMALL[name], (24,))
    model = models.build(SMALL[name], (3, 8, 3))
    with pytest.raises(ValueError, match=r"\(B, 3, 8, 3\)"):
        model(torch.zeros(1, 3, 9, 3), torch.zeros(1))
    with pytest.raises(ValueError, match="takes 0 conditions"):
        model(torch.zeros(1, 3, 8, 3), torch.zeros(1), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet2d", {"width": 16}),
        ("unet2d", {"multipliers": [1, 2, 4]}),
        ("unet2d", {"resnet_blocks": 2}),
        ("unet2d", {"attention_dim": 32}),
        ("transformer", {"width": 16}),
        ("transformer", {"resnet_blocks": 3}),
        ("transformer", {"patch": 8}),
    ],
)
def test_every_key_of_the_configuration_makes_another_network(name: str, change: dict[str, object]) -> None:
    sizes = {
        sum(p.numel() for p in models.build(config, (3, 16, 3)).parameters())
        for config in (SMALL[name], SMALL[name].model_copy(update=change))
    }
    assert len(sizes) == 2


def test_heads_that_do_not_divide_are_named() -> None:
    with pytest.raises(ConfigError, match="attention_dim"):
        models.build(SMALL["unet2d"].model_copy(update={"attention_dim": 18}), (3, 8, 3))
    with pytest.raises(ConfigError, match="width"):
        models.build(SMALL["transformer"].model_copy(update={"width": 9}), (3, 8, 3))


def test_the_papers_network_halves_the_points_alone() -> None:
    model = models.build(ModelConfig(name="unet2d", width=8, multipliers=[1, 2, 4, 8, 16]), (3, 128, 3))
    seen: list[tuple[int, ...]] = []
    model.middle1.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        model(torch.zeros(1, 3, 128, 3), torch.zeros(1, dtype=torch.long))
    assert seen == [(1, 128, 8, 3)]
