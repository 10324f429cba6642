"""Drawing from the logits of an autoregressive model, as those of compositions and of cells do."""

from __future__ import annotations

import torch
from torch import Tensor


def guided_logits(asked: Tensor, free: Tensor | None, guidance: float) -> Tensor:
    """(B, K) float64 logits, led away from those without conditions; what is excluded (-inf) stays so.

    Args:
        asked: (B, K) logits under the conditions.
        free: (B, K) logits without any; None: nothing is led away from.
        guidance: w; log p is (1 + w) log p(x | c) - w log p(x), not normalised.
    """
    p = asked.double().log_softmax(1)
    if free is None:
        return p
    return torch.where(p > -torch.inf, (1 + guidance) * p - guidance * free.double().log_softmax(1), p)


def choose(logits: Tensor, number: Tensor) -> Tensor:
    """(B,) int64 categories that numbers (B,) in [0, 1) decide, of float64 logits (B, K)."""
    cumulative = logits.softmax(1).cumsum(1)
    chosen = torch.searchsorted(cumulative, number[:, None].double() * cumulative[:, -1:], right=True)[:, 0]
    last = (logits > -torch.inf).long().cumsum(1).argmax(1)  # rounding may lead beyond the last that is possible
    return torch.minimum(chosen, last)
