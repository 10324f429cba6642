"""Networks with a condition vector, and the vector's layout."""

from __future__ import annotations

import pytest
import torch

from hpcgen import models
from hpcgen.config import ModelConfig
from hpcgen.diffusion.conditions import ConditionLayout

NETWORKS = [
    ModelConfig(name="resmlp", width=16, resnet_blocks=2),
    ModelConfig(name="unet1d", width=8, attention_dim=16, attention_heads=2, resnet_blocks=1),
]


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: c.name)
def test_the_output_depends_on_the_conditions_of_each_row(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = models.build(config, (9,), condition_width=4).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, t, c = torch.randn(3, 9), torch.tensor([5, 5, 5]), torch.randn(3, 4)
    out = model(x, t, c)
    changed = model(x, t, c + torch.tensor([[0.0], [1.0], [0.0]]))
    assert torch.equal(out[[0, 2]], changed[[0, 2]])
    assert (out[1] - changed[1]).abs().max() > 1e-3
    out.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: c.name)
def test_conditions_that_are_missing_or_not_wanted_are_refused(config: ModelConfig) -> None:
    x, t = torch.zeros(2, 9), torch.zeros(2)
    with pytest.raises(ValueError, match="takes 4 conditions, not none"):
        models.build(config, (9,), 4)(x, t)
    with pytest.raises(ValueError, match="takes 4 conditions, not 3"):
        models.build(config, (9,), 4)(x, t, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="takes 0 conditions, not 3"):
        models.build(config, (9,))(x, t, torch.zeros(2, 3))


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: c.name)
def test_without_conditions_the_network_is_the_plain_one(config: ModelConfig) -> None:
    with_, without = models.build(config, (9,), 4), models.build(config, (9,))
    extra = set(with_.state_dict()) - set(without.state_dict())
    assert extra == {f"condition.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}


def test_dropping_zeroes_whole_groups_and_nothing_else() -> None:
    layout = ConditionLayout(7, (slice(0, 2), slice(2, 5)))
    c = torch.arange(1.0, 15).reshape(2, 7)
    kept = torch.tensor([[True, False], [False, True]])
    assert layout.drop(c, kept).tolist() == [[1, 2, 0, 0, 0, 6, 7], [0, 0, 10, 11, 12, 13, 14]]
    assert layout.without(c).tolist() == [[0, 0, 0, 0, 0, 6, 7], [0, 0, 0, 0, 0, 13, 14]]
    assert torch.equal(ConditionLayout(7).without(c), c)


@pytest.mark.parametrize("groups", [(slice(0, 8),), (slice(0, 3), slice(2, 4)), (slice(2, 2),), (slice(0, 4, 2),)])
def test_impossible_groups_are_refused(groups: tuple[slice, ...]) -> None:
    with pytest.raises(ValueError, match="does not follow"):
        ConditionLayout(7, groups)
