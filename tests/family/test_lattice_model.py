"""Cells as tokens: there and back, what is given, and what a small model learns of them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from hpcgen.crystal import Crystal, lattice_from_parameters
from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.family.lattice_model import Cells, LatticePart
from hpcgen.represent.lattice_tokens import (
    VOLUME_FIRST,
    VOLUME_LAST,
    LatticeTokens,
    given_value,
    parameters_of,
    values_of,
)

RIGHT, TRIGONAL = [4.0, 4.0, 6.0, 90.0, 90.0, 90.0], [5.0, 5.0, 5.0, 60.0, 60.0, 60.0]
FREE = np.full(6, np.nan)


def crystal(parameters: list[float] | np.ndarray) -> Crystal:
    return Crystal(lattice_from_parameters(np.asarray(parameters)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])


def random_cells(count: int, seed: int = 0) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    return [crystal(np.r_[rng.uniform(3, 9, 3), rng.uniform(70, 110, 3)]) for _ in range(count)]


def test_special_cells_come_back_as_they_are():
    cells = [crystal(RIGHT)] * 5 + [crystal(TRIGONAL)] * 5 + random_cells(20)
    tokens = LatticeTokens.fit(cells)
    values = values_of(cells)
    found = tokens.tokens(values)
    places = [tokens.order.index(k) for k in range(6)]
    back = np.stack([tokens.value(k, found[:, 2 * p], found[:, 2 * p + 1]) for k, p in enumerate(places)], axis=1)
    parameters = parameters_of(back, np.full(len(cells), 2))
    np.testing.assert_allclose(parameters[:5], [RIGHT] * 5, rtol=1e-12)
    np.testing.assert_allclose(parameters[5:10], [TRIGONAL] * 5, rtol=1e-12)
    np.testing.assert_allclose(parameters, [c.parameters for c in cells], rtol=5e-3)
    again = LatticeTokens.from_state(tokens.state())
    assert (again.tokens(values) == found).all()
    assert (again.medians == tokens.medians).all()


def test_the_volume_is_drawn_first_of_one_element_alone():
    cells = random_cells(20)
    salts = LatticeTokens.fit(cells)
    carbons = LatticeTokens.fit([Crystal(c.lattice, c.frac, [6, 6]) for c in cells])
    assert (salts.order, carbons.order) == (VOLUME_LAST, VOLUME_FIRST)
    values = values_of(cells)
    np.testing.assert_array_equal(np.roll(carbons.tokens(values), -2, axis=1), salts.tokens(values))
    # as in checkpoints of before, whose arrays are in the order of drawing
    before = {name: array[list(VOLUME_LAST)] for name, array in salts.state().items() if name != "order"}
    np.testing.assert_array_equal(LatticeTokens.from_state(before).tokens(values), salts.tokens(values))


def test_cells_outside_the_range_have_tokens_at_its_ends():
    tokens = LatticeTokens.fit([crystal(RIGHT)])  # one cell alone has a range, too
    found = tokens.tokens(values_of([crystal([4.0, 2.0, 60.0, 60.0, 120.0, 90.0])]))[0]
    assert found.min() == 0
    assert found.max() == 31


def test_angles_that_are_no_cell_become_one():
    values = values_of([crystal(RIGHT)])
    values[0, 1:4] = np.cos(np.radians([60.0, 60.0, 150.0]))
    alpha, beta, gamma = parameters_of(values, np.array([2]))[0, 3:]
    assert (alpha, beta) == pytest.approx((60.0, 60.0))
    assert 119 < gamma < 120


@pytest.mark.parametrize("order", [VOLUME_FIRST, VOLUME_LAST])
@pytest.mark.parametrize("count", range(1, 7))
def test_what_is_given_of_a_cell_decides_the_values(count, order):
    """With the true values before, every value that follows from what is given is the true one.

    Of given lengths the volume follows from the angles, which come after it where it is first.
    """
    cells = random_cells(4)
    true, n_atoms = values_of(cells), np.full(len(cells), 2)
    for names, row in itertools.product(itertools.combinations(range(6), count), range(len(cells))):
        fixed = np.where(np.isin(np.arange(6), names), cells[row].parameters, np.nan)
        values, found = np.full((1, 6), np.nan), 0
        for number in order:
            given = given_value(number, values, fixed, n_atoms[[row]])
            if given is not None:
                found += 1
                assert given == pytest.approx(true[row, number], abs=1e-9)
            values[0, number] = true[row, number]
        late = {0, 1, 2} <= set(names) and count < 6 and order == VOLUME_FIRST
        assert found == count - late
        if late:
            assert given_value(0, values, fixed, n_atoms[[row]]) == pytest.approx(true[row, 0], abs=1e-9)


def test_a_token_depends_on_those_before_it_alone():
    torch.manual_seed(0)
    network = LatticePart(ConditionLayout(3), 16, 1, 0.1, 0.1).network().eval()
    torch.nn.init.normal_(network.blocks[0].outer.weight)  # else the block is still the identity
    one = torch.randint(32, (1, 12), generator=torch.Generator().manual_seed(1))
    embedded = network.condition(torch.randn(1, 3))
    for place, changed in itertools.product(range(12), range(12)):
        other = one.clone()
        other[0, changed] = (other[0, changed] + 7) % 32
        at = torch.tensor([place])
        same = torch.equal(network.logits(one, at, embedded), network.logits(other, at, embedded))
        assert same == (changed >= place), (place, changed)


@pytest.fixture(scope="module", params=[VOLUME_FIRST, VOLUME_LAST], ids=["volume-first", "volume-last"])
def learned(request: pytest.FixtureRequest) -> Cells:
    """Two kinds of cells, told apart by nothing, and a third that the condition names."""
    third = [3.0, 5.0, 8.0, 80.0, 85.0, 95.0]
    cells = [crystal(p) for p in (RIGHT, TRIGONAL, third)] * 8
    tokens = dataclasses.replace(LatticeTokens.fit(cells), order=request.param)
    c = torch.tensor([[0.0], [0.0], [1.0]] * 8)
    part = LatticePart(ConditionLayout(1), 32, 1, 0.0, 0.0)
    torch.manual_seed(0)
    network, generator = part.network(), torch.Generator().manual_seed(0)
    x = torch.from_numpy(tokens.tokens(values_of(cells)).astype(np.float32))
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(200):
        losses = part.losses(network, {"x": x, "c": c}, part.draw(len(x), generator))
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
    return Cells(network.eval(), part.layout, tokens, 0.0)


def test_units_are_dropped_in_training_alone():
    part = LatticePart(ConditionLayout(1), 64, 2, 0.5, 0.0)
    torch.manual_seed(0)
    network, generator = part.network(), torch.Generator().manual_seed(0)
    rows = {"x": torch.zeros(20, 12), "c": torch.ones(20, 1)}
    one, two = (part.draw(20, generator) for _ in range(2))
    two |= {name: one[name] for name in ("places", "kept")}
    assert 0.4 < one["units"].float().mean() < 0.6
    assert not torch.equal(part.losses(network, rows, one), part.losses(network, rows, two))
    network.eval()
    assert torch.equal(part.losses(network, rows, one), part.losses(network, rows, two))


def drawn(cells: Cells, c: float, fixed: np.ndarray, count: int = 60) -> np.ndarray:
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    n_atoms = np.full(count, 2)
    return parameters_of(cells.draw(torch.full((count, 1), c), n_atoms, fixed, generators), n_atoms)


def share(found: np.ndarray, parameters: list[float]) -> float:
    return float(np.isclose(found, parameters, rtol=1e-6).all(1).mean())


def test_cells_are_drawn_as_often_as_they_occur(learned):
    free = drawn(learned, 0.0, FREE)
    assert share(free, RIGHT) + share(free, TRIGONAL) > 0.9
    assert 0.3 <= share(free, RIGHT) <= 0.7
    third = drawn(learned, 1.0, FREE)
    assert share(third, [3.0, 5.0, 8.0, 80.0, 85.0, 95.0]) > 0.9


def test_what_is_given_last_decides_what_is_drawn_first(learned):
    """A length is the last of the values, and yet the angles must be those of the cells that have it."""
    for length, kind in ((4.0, RIGHT), (5.0, TRIGONAL)):
        found = drawn(learned, 0.0, np.array([length, *FREE[:5]]))
        np.testing.assert_allclose(found[:, 0], length, rtol=1e-9)
        assert share(found, kind) > 0.85
    for given, kind in (
        ([*FREE[:3], 60.0, np.nan, np.nan], TRIGONAL),
        ([4.0, np.nan, 6.0, *FREE[:3]], RIGHT),
        ([4.0, 4.0, 6.0, *FREE[:3]], RIGHT),  # the volume, drawn first, is one that the angles must give
        ([5.0, 5.0, 5.0, *FREE[:3]], TRIGONAL),
        ([5.0, 5.0, 5.0, 60.0, np.nan, 60.0], TRIGONAL),
    ):
        assert share(drawn(learned, 0.0, np.array(given)), kind) > 0.85, given
    assert share(drawn(learned, 0.0, np.array(TRIGONAL)), TRIGONAL) == 1


def test_a_network_without_finite_output_gives_no_cell(learned):
    broken = LatticePart(ConditionLayout(1), 32, 1, 0.0, 0.0).network().eval()
    torch.nn.init.constant_(broken.out.bias, float("nan"))
    assert np.isnan(drawn(Cells(broken, learned.layout, learned.tokens, 0.0), 0.0, FREE)).all()
