"""One CHGNet for all tests of the session."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcgen.config import RelaxConfig
from hpcgen.relax.chgnet import ChgnetCalculator


@pytest.fixture(scope="session")
def chgnet() -> Callable[..., ChgnetCalculator]:
    """`chgnet(**relax_settings)`: a calculator; all of them share the loaded network."""
    pytest.importorskip("chgnet")
    first = ChgnetCalculator(RelaxConfig(device="cpu"))

    def make(**settings) -> ChgnetCalculator:
        calculator = ChgnetCalculator(RelaxConfig(**{"device": "cpu", **settings}))
        calculator.__dict__["_network"] = first._network
        return calculator

    return make
