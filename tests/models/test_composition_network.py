"""The autoregressive model of compositions."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from hpcgen.models.composition import ABSENT, SITES, CompositionNetwork

PATTERNS = [[1, 1, 0], [1, 0, 0], [1, 1, 3], [2, 1, 0]]
ELEMENTS = 4


@pytest.fixture(params=[0, 5])
def network(request: pytest.FixtureRequest) -> CompositionNetwork:
    torch.manual_seed(1)
    net = CompositionNetwork(PATTERNS, torch.randn(ELEMENTS, 3), 16, request.param)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return net


def everything() -> torch.Tensor:
    """Every composition that there is: a pattern, and rising elements in its channels."""
    rows = []
    for index, pattern in enumerate(PATTERNS):
        used = sum(n > 0 for n in pattern)
        rows += [[index, *chosen, *[ABSENT] * (3 - used)] for chosen in combinations(range(ELEMENTS), used)]
    return torch.tensor(rows, dtype=torch.float32)


def conditions(network: CompositionNetwork, rows: int) -> torch.Tensor | None:
    return None if network.condition is None else torch.randn(1, 5).expand(rows, -1)


def test_the_probabilities_of_all_compositions_sum_to_one(network: CompositionNetwork) -> None:
    x = everything()
    assert len(x) == 6 + 4 + 4 + 6
    nll = network(x, conditions(network, len(x)))
    assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-5)
    assert nll.std() > 0.1


def test_every_parameter_learns(network: CompositionNetwork) -> None:
    x = everything()
    network(x, conditions(network, len(x))).sum().backward()
    idle = {n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert idle == set()


def test_rows_know_nothing_of_each_other(network: CompositionNetwork) -> None:
    x = everything()
    c = conditions(network, len(x))
    for some in ([3], [0, 7, 11]):
        alone = network(x[some], None if c is None else c[some])
        assert torch.allclose(alone, network(x, c)[some], atol=1e-6)


def test_an_element_depends_on_the_pattern_and_on_those_before_it_alone(network: CompositionNetwork) -> None:
    asked = network.embed(conditions(network, 1), 1)
    place, pattern = torch.tensor([1]), torch.tensor([2])

    def logits(elements: list[int], pattern: torch.Tensor = pattern) -> torch.Tensor:
        return network.of_element(place, pattern, torch.tensor([elements]), asked)[0, 0]

    base = logits([0, 1, 2])
    assert torch.equal(base, logits([0, 2, 3]))
    assert base.isinf().tolist() == [True, False, False, True]  # one more has to follow
    assert not torch.allclose(base[1:3], logits([0, 1, 2], torch.tensor([0]))[1:3])
    other = CompositionNetwork([[1, 1, 1, 1]], torch.randn(6, 3), 16, 0)
    torch.nn.init.normal_(other.before.weight)
    first, second = (
        other.of_element(torch.tensor([2]), torch.tensor([0]), torch.tensor([e]), other.embed(None, 1))[0, 0]
        for e in ([0, 2, 0, 0], [1, 2, 0, 0])
    )
    assert (first[3:5] - second[3:5]).abs().max() > 1e-4


def test_dropped_units_change_the_loss(network: CompositionNetwork) -> None:
    x = everything()
    c = conditions(network, len(x))
    kept = torch.ones(len(x), SITES, 16, dtype=torch.bool)
    assert torch.allclose(network(x, c, kept), network(x, c), atol=1e-6)
    kept[:, :, ::2] = False
    assert (network(x, c, kept) - network(x, c)).abs().max() > 1e-2
