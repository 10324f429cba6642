"""Compositions as a categorical model: tokens, training and drawing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.family.composition_model import CompositionPart, CompositionTokens, draw_tokens
from hpcgen.models.composition import ABSENT

NUMBERS = [[38, 22, 8, 8, 8], [22, 8, 8], [12, 8], [8, 12], [29]]
ELEMENTS = (38, 12, 22, 29, 8)  # in (electronegativity, Z) order
LAYOUT = ConditionLayout(6, (slice(0, 6),))


@pytest.fixture(scope="module")
def tokens() -> CompositionTokens:
    return CompositionTokens.fit(NUMBERS, ELEMENTS, 3)


def awake(part: CompositionPart) -> torch.nn.Module:
    torch.manual_seed(3)
    network = part.network().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def draw(network: torch.nn.Module, rows: int, c: Tensor | None = None, **keys) -> Tensor:
    uniform = torch.rand(rows, 4, generator=torch.Generator().manual_seed(5))
    asked = torch.zeros(rows, 6) if c is None else c.expand(rows, -1)
    settings = {"guidance": 0.0, "patterns": torch.ones(4, dtype=torch.bool), "wanted": ()} | keys
    return draw_tokens(network, LAYOUT, asked, uniform, **settings)


def test_tokens_hold_the_composition(tokens: CompositionTokens) -> None:
    assert tokens.patterns == ((1, 1, 0), (1, 0, 0), (1, 1, 3), (1, 2, 0))  # the most frequent first
    counts, elements = tokens.encode(NUMBERS)
    assert counts.tolist() == [[1, 1, 3], [1, 2, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert elements.tolist() == [[0, 2, 4], [2, 4, -1], [1, 4, -1], [1, 4, -1], [3, -1, -1]]
    x, known = tokens.tokens(counts, elements)
    assert known.all()
    assert x[:, 0].tolist() == [2, 3, 0, 0, 1]
    assert not tokens.tokens(np.array([[2, 2, 0]]), elements[1:2])[1].any()
    with pytest.raises(ValueError, match="79"):
        tokens.encode([[79, 8]])
    with pytest.raises(ValueError, match="4 elements"):
        tokens.encode([[12, 22, 38, 8]])


def test_draws_follow_the_probabilities(tokens: CompositionTokens) -> None:
    part = CompositionPart(tokens, LAYOUT, 16, 0.1)
    network = awake(part)
    rows = []
    for pattern, counts in enumerate(tokens.patterns):
        used = sum(n > 0 for n in counts)
        rows += [(pattern, *chosen, *[ABSENT] * (3 - used)) for chosen in combinations(range(5), used)]
    c = torch.randn(1, 6)
    with torch.no_grad():
        p = torch.exp(-network(torch.tensor(rows).float(), c.expand(len(rows), -1))).numpy()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    total = 20_000
    index = {row: i for i, row in enumerate(rows)}
    drawn = [index[tuple(row)] for row in draw(network, total, c).tolist()]
    frequency = np.bincount(drawn, minlength=len(rows)) / total
    assert np.abs(frequency - p).max() < 5 * np.sqrt(p.max() / total)


def test_guidance_leads_towards_the_condition(tokens: CompositionTokens) -> None:
    network = awake(CompositionPart(tokens, LAYOUT, 16, 0.1))
    c = torch.randn(1, 6, generator=torch.Generator().manual_seed(1)) * 0.5

    def gain(drawn: Tensor) -> float:  # log p(x | c) - log p(x)
        x = drawn.float()
        with torch.no_grad():
            return float((network(x, torch.zeros(len(x), 6)) - network(x, c.expand(len(x), -1))).mean())

    plain, guided = draw(network, 2000, c), draw(network, 2000, c, guidance=2.0)
    assert gain(guided) > gain(plain) + 0.1
    free = draw(network, 500, guidance=2.0)
    assert torch.equal(free, draw(network, 500))  # nothing asked, nothing to be led towards


def test_patterns_and_elements_can_be_demanded(tokens: CompositionTokens) -> None:
    network = awake(CompositionPart(tokens, LAYOUT, 16, 0.1))
    allowed = torch.tensor([True, False, False, True])
    drawn = draw(network, 500, patterns=allowed)
    assert set(drawn[:, 0].tolist()) == {0, 3}
    drawn = draw(network, 100, patterns=allowed, wanted=(1, 4))
    assert (drawn[:, 1:] == torch.tensor([1, 4, ABSENT])).all()


def test_training_lowers_the_loss_and_a_draw_ignores_its_neighbours(tokens: CompositionTokens) -> None:
    part = CompositionPart(tokens, LAYOUT, 16, 0.1)
    torch.manual_seed(0)
    network = part.network().train()
    x = torch.from_numpy(tokens.tokens(*tokens.encode(NUMBERS))[0])
    rows = {"x": x, "c": torch.eye(5, 6)}
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    first = last = 0.0
    for step in range(60):
        losses = part.losses(network, rows, part.draw(5, generator))
        assert losses.shape == (5,)
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
        first, last = (losses.mean().item() if step == 0 else first), losses.mean().item()
    assert last < 0.6 * first
    network.eval()
    drawn = draw(network, 64)
    real = {tuple(row) for row in x.long().tolist()}
    assert np.mean([tuple(row) in real for row in drawn.tolist()]) > 0.5
    assert part.levels(part.draw(2, generator)) is None


def test_what_is_drawn_for_a_batch_says_which_conditions_are_kept(tokens: CompositionTokens) -> None:
    part = CompositionPart(tokens, LAYOUT, 16, 0.25)
    drawn = part.draw(4000, torch.Generator().manual_seed(0))
    assert drawn["units"].float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert 0.2 < drawn["conditions"].float().mean().item() < 0.5
    again = part.draw(4000, torch.Generator().manual_seed(0))
    assert all(torch.equal(drawn[k], again[k]) for k in drawn)
