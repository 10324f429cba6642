"""Targets that no crystal can have, told from targets that a network only missed a little."""

from __future__ import annotations

import numpy as np
import pytest

from hpcgen.config import RepresentationConfig
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.target import HOPELESS, least_residual, never_negative
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import make_descriptor

RNG = np.random.default_rng(0)
CRYSTALS = [
    Crystal(
        (4 + n / 3) * np.eye(3) + 0.5 * RNG.random((3, 3)),
        RNG.random((n, 3)),
        np.array([3, 22, 8])[np.arange(n) % 3].astype(np.uint8),
    )
    for n in (3, 4, 6, 9)
]


@pytest.fixture(params=["pair-spectrum", "pair-spectrum+3body", "ead"])
def descriptor(request: pytest.FixtureRequest):
    ead = {"cutoff": 6.0, "eta": [1.0, 20.0], "centres": 30}
    return make_descriptor(RepresentationConfig.model_validate({"descriptor": request.param, "ead": ead}))


def targets(descriptor) -> list[np.ndarray]:
    return [descriptor.encode(c, species_channels(c.numbers)[0], 3) for c in CRYSTALS]


def test_what_is_called_never_negative_is_so_in_crystals(descriptor) -> None:
    mask = never_negative(descriptor, 3)
    values = np.array(targets(descriptor))
    assert mask.shape == values.shape[1:]
    assert (values[:, mask] >= 0).all()
    if descriptor.name != "ead":  # and cross terms of the structure factor do fall below zero
        assert (values[:, ~mask] < 0).any()


def test_a_little_below_zero_is_only_noise(descriptor) -> None:
    for target in targets(descriptor):
        assert least_residual(descriptor, target, 3) == 0
        norm = np.linalg.norm(target) / np.sqrt(len(target))
        disturbed = target + 0.2 * norm * np.random.default_rng(1).standard_normal(len(target))
        assert 0 < least_residual(descriptor, disturbed, 3) < HOPELESS / 2


def test_the_bound_holds_for_every_crystal(descriptor) -> None:
    impossible = -targets(descriptor)[0]
    least = least_residual(descriptor, impossible, 3)
    assert least > HOPELESS
    for values in targets(descriptor):
        assert np.linalg.norm(values - impossible) / np.linalg.norm(impossible) >= least


def test_zeros_are_hopeless(descriptor) -> None:
    assert least_residual(descriptor, np.zeros(descriptor.length(3)), 3) == 1
