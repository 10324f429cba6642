"""The compiled gated MLP against torch's: values and gradients, every shape of it that CHGNet has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcgen.relax.gated import WIDTH, Gated, Messages
from hpcgen.relax.gated_kernels import multiply, sigmoid


@pytest.fixture(scope="module")
def layers() -> dict[str, Gated]:
    functions = pytest.importorskip("chgnet.model.functions")
    torch.manual_seed(0)
    made = {}
    for name, parts, hidden in (("atom", 3, WIDTH), ("bond", 4, WIDTH), ("angle", 4, 0)):
        layer = functions.GatedMLP(parts * WIDTH, WIDTH, hidden_dim=hidden, norm="layer").requires_grad_(False)
        for norm in (layer.bn1, layer.bn2):  # other than 1 and 0, which hide mistakes
            norm.weight.copy_(1 + 0.3 * torch.randn(WIDTH))
            norm.bias.copy_(0.3 * torch.randn(WIDTH))
        made[name] = Gated(layer)
    return made


@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("name", ["atom", "bond", "angle"])
def test_compiled_equals_torch(layers: dict[str, Gated], name: str, count: int) -> None:
    gated = layers[name]
    torch.manual_seed(1)
    shared = [torch.randn(n, 2 * WIDTH) for n in (5, 6, 7)]
    own = None if name == "atom" else torch.randn(count, 2 * WIDTH)
    weight = None if name == "angle" else torch.randn(9, WIDTH)
    messages = Messages(*(torch.randint(0, n, (count,)) for n in (5, 6, 7, 9, 4)), 4)
    results = []
    for compute in (gated, gated.by_torch):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (own, *shared, weight)]
        out = compute(messages, *leaves)
        given = [t for t in leaves if t is not None]
        torch.manual_seed(2)
        results.append([out.detach(), *torch.autograd.grad((out * torch.randn_like(out)).sum(), given)])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("terms", "width"), [(31, 2 * WIDTH), (31, WIDTH), (64, 2 * WIDTH), (128, WIDTH), (3, 5)])
def test_rows_of_a_product_do_not_depend_on_one_another(terms: int, width: int) -> None:
    """To the last bit, from a single row on: MKL's do, below two or four rows."""
    rng = np.random.default_rng(5)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((70, terms), (terms, width)))

    def product(rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), width), np.nan, np.float32)
        multiply(np.ascontiguousarray(rows), weight, out)
        return out

    whole = product(x)
    np.testing.assert_allclose(whole, x.astype(np.float64) @ weight, atol=1e-4)
    for count in (*range(10), 33, 64, 69):
        for first in (0, 1):
            np.testing.assert_array_equal(product(x[first : first + count]), whole[first : first + count])


def test_sigmoid_is_good_to_single_precision() -> None:
    x = np.linspace(-30, 30, 20001, dtype=np.float32)
    mine = np.array([sigmoid(value) for value in x])
    np.testing.assert_allclose(mine, 1 / (1 + np.exp(-x.astype(np.float64))), atol=3e-7)
    assert np.isfinite(mine).all()


def test_what_is_not_a_number_stays_none(layers: dict[str, Gated]) -> None:
    """Else a crystal whose energy is no number would get one."""
    bad = torch.full((1, 2 * WIDTH), float("nan"))
    good = torch.zeros(1, 2 * WIDTH)
    zero = torch.zeros(1, dtype=torch.int64)
    out = layers["angle"](Messages(zero, zero, zero, zero, zero, 1), None, bad, good, good, None)
    assert out.isnan().all()
