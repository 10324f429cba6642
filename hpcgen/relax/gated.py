"""Gated MLPs over messages: linear layers, what comes between them, and the sum over the messages of each owner.

`Gated` is one of CHGNet's, whose first layer acts on concatenated features and is split by what it acts on. On a CPU
the elementwise rest is compiled (`gated_kernels.py`), on a GPU it is torch's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hpcgen.relax import gated_kernels as kernels

WIDTH = kernels.WIDTH


class Product(torch.autograd.Function):
    """x @ weight, with the transposed weight at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transposed: Tensor) -> Tensor:
        ctx.save_for_backward(transposed)
        return rows(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (transposed,) = ctx.saved_tensors
        return rows(gradients[0], transposed), None, None


def rows(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight; on a CPU the bits of a row depend on no other row, nor on how many there are."""
    if x.device.type != "cpu":
        return x @ weight
    out = x.new_empty(len(x), weight.shape[1])
    kernels.multiply(x.detach().contiguous().numpy(), weight.numpy(), out.numpy())
    return out


class Linear:
    """A linear layer without bias; `weight` (out, in) as torch keeps it."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.transposed = weight.T.contiguous(), weight.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return Product.apply(x, self.weight, self.transposed)


class Messages(NamedTuple):
    """Which rows M messages are made of, and where they go.

    Attributes:
        a, b, c: (M,) rows of the three shared parts.
        weight: (M,) rows of the weights.
        owner: (M,) rows of the sums.
        owners: how many.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    weight: Tensor
    owner: Tensor
    owners: int


class Gated:
    """A gated MLP: core and gate side by side, the first layer in `parts`, the second one not always there."""

    def __init__(self, layer: Any) -> None:
        core, gate = ([m for m in side.layers if hasattr(m, "weight")] for side in (layer.mlp_core, layer.mlp_gate))
        first = torch.cat([core[0].weight, gate[0].weight])  # (2 W, parts W)
        self.parts = [Linear(w) for w in first.split(WIDTH, dim=1)]
        self.bias = torch.cat([core[0].bias, gate[0].bias])
        self.second = [Linear(side[1].weight) for side in (core, gate) if len(side) > 1]
        norms = (layer.bn1, layer.bn2)
        last = [side[1].bias if self.second else torch.zeros_like(side[0].bias) for side in (core, gate)]
        columns = [t for b, norm in zip(last, norms, strict=True) for t in (b, norm.weight, norm.bias)]
        self.layer = torch.stack(columns)  # (6, W): bias, factor and shift of core and gate
        self.eps = layer.bn1.eps

    def __call__(
        self, messages: Messages, own: Tensor | None, a: Tensor, b: Tensor, c: Tensor, weight: Tensor | None
    ) -> Tensor:
        """(owners, W) sums of the messages.

        Args:
            messages: their indices.
            own: (M, 2 W) a part of each message's own, or None.
            a, b, c: (., 2 W) parts of the first layer that messages share.
            weight: (., W), or None.
        """
        if a.device.type == "cpu":
            return _Compiled.apply(self, messages, own, a, b, c, weight)
        return self.by_torch(messages, own, a, b, c, weight)

    def by_torch(
        self, messages: Messages, own: Tensor | None, a: Tensor, b: Tensor, c: Tensor, weight: Tensor | None
    ) -> Tensor:
        """The same on any device."""
        h = a[messages.a] + b[messages.b] + c[messages.c] + self.bias
        h = h if own is None else h + own
        core, gate = h[:, :WIDTH], h[:, WIDTH:]
        if self.second:
            core, gate = (linear(F.silu(side)) for linear, side in zip(self.second, (core, gate), strict=True))
        bc, fc, sc, bg, fg, sg = self.layer
        core = F.silu(F.layer_norm(core + bc, (WIDTH,), fc, sc, self.eps))
        out = core * torch.sigmoid(F.layer_norm(gate + bg, (WIDTH,), fg, sg, self.eps))
        out = out if weight is None else out * weight[messages.weight]
        return out.new_zeros(messages.owners, WIDTH).index_add(0, messages.owner, out)


class _Compiled(torch.autograd.Function):
    """`Gated` on a CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        gated: Gated,
        messages: Messages,
        own: Tensor | None,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        count = len(messages.a)
        h, (core, gate) = a.new_empty(count, 2 * WIDTH), a.new_empty(2, count, WIDTH)
        index = [i.numpy() for i in messages[:5]]
        shared = [t.detach().contiguous() for t in (a, b, c)]
        mine = h[:1] if own is None else own.detach().contiguous()
        weights = h[:1, :WIDTH].contiguous() if weight is None else weight.detach().contiguous()
        kernels.enter(
            mine.numpy(), own is not None, gated.bias.numpy(), shared[0].numpy(), index[0], shared[1].numpy(),
            index[1], shared[2].numpy(), index[2], bool(gated.second), h.numpy(), core.numpy(), gate.numpy(),
        )  # fmt: skip
        if gated.second:
            core, gate = (rows(x, linear.weight) for x, linear in zip((core, gate), gated.second, strict=True))
        total = a.new_zeros(messages.owners, WIDTH)
        kernels.leave(
            core.contiguous().numpy(), gate.contiguous().numpy(), gated.layer.numpy(), np.float32(gated.eps),
            weights.numpy(), weight is not None, index[3], index[4], total.numpy(),
        )  # fmt: skip
        ctx.saved = gated, messages, h, core.contiguous(), gate.contiguous(), weights
        ctx.given = own is not None, weight is not None, [t.shape for t in (a, b, c)]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gated, messages, h, core, gate, weights = ctx.saved
        owned, weighted, shapes = ctx.given
        index = [i.numpy() for i in messages[:5]]
        d_weight = torch.zeros_like(weights)
        kernels.leave_backwards(
            gradients[0].contiguous().numpy(), core.numpy(), gate.numpy(), gated.layer.numpy(),
            np.float32(gated.eps), weights.numpy(), weighted, index[3], index[4], d_weight.numpy(),
        )  # fmt: skip
        if gated.second:
            core, gate = (
                rows(x, linear.transposed).contiguous() for x, linear in zip((core, gate), gated.second, strict=True)
            )
        shared = [h.new_zeros(shape) for shape in shapes]
        da, db, dc = (t.numpy() for t in shared)
        kernels.enter_backwards(
            core.numpy(), gate.numpy(), bool(gated.second), h.numpy(), index[0], index[1], index[2], da, db, dc
        )
        del ctx.saved
        return None, None, h if owned else None, *shared, d_weight if weighted else None
