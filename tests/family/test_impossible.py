"""Impossible samples of every descriptor are failures of their kind; `test_rebuild` has more for the default one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.family.rebuild import RepresentationReconstructor
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.family.samples import of_vectors
from hpcgen.flow import Candidate

FRAC = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
CRYSTALS = [Crystal(a * np.eye(3), FRAC, np.array([z, 22, 8, 8, 8])) for a, z in ((3.9, 38), (4.0, 56))]


@pytest.fixture(scope="module", params=["pair-spectrum", "pair-spectrum+3body", "ead"])
def given(request: pytest.FixtureRequest) -> tuple[RepresentationReconstructor, RepresentationSample]:
    ead = {"cutoff": 6.0, "eta": [1.0, 20.0], "centres": 30}
    quick = {"anneal": {"starts": 1}, "basin_hopping": {"trials": 2, "hops": 1, "iterations": 30}}
    config = Config.model_validate(
        {"representation": {"descriptor": request.param, "ead": ead, "variance": 1.0}, "reconstruct": quick}
    )
    family = RepresentationFamily.fit(CRYSTALS, config)
    [good] = of_vectors(family, ["a" * 16], family.encode(CRYSTALS[:1])[0])
    return RepresentationReconstructor(family.sample_attrs(), config), good


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda s: {"descriptor": -np.abs(s.descriptor)}, "impossible-target"),
        (lambda s: {"descriptor": 0 * s.descriptor}, "impossible-target"),
        (lambda s: {"descriptor": s.descriptor[1:]}, "wrong-length"),
        (lambda s: {"descriptor": np.full_like(s.descriptor, np.nan)}, "not-finite"),
        (lambda s: {"descriptor": np.append(s.descriptor[:-1], np.float32(np.inf))}, "not-finite"),
        (lambda s: {"composition": s.composition * np.float32(np.nan)}, "not-finite"),
        (lambda s: {"composition": 0 * s.composition}, "empty-composition"),
        (lambda s: {"n_atoms": np.float32(0)}, "empty-composition"),
        (lambda s: {"lattice": np.array([4, 4, 4, 90, 90, 180], np.float32)}, "impossible-cell"),
        (lambda s: {"lattice": np.array([4, 4, 0, 90, 90, 90], np.float32)}, "impossible-cell"),
        (lambda s: {"lattice": np.full(6, np.nan, np.float32)}, "impossible-cell"),
    ],
    ids=[
        "negative",
        "zero",
        "short",
        "nan",
        "infinity",
        "nan count",
        "no atoms",
        "n = 0",
        "flat",
        "no height",
        "nan cell",
    ],
)
def test_every_impossible_sample_is_a_failure_of_its_kind(given, change, kind: str) -> None:
    reconstructor, good = given
    result = reconstructor.reconstruct(replace(good, **change(good)), "b" * 16, seed=1)
    assert isinstance(result, Failure)
    assert (result.id, result.stage, result.kind) == (good.id, "reconstruct", kind)
    assert len(result.message) > 10


def test_the_sample_that_was_changed_is_possible(given) -> None:
    reconstructor, good = given
    result = reconstructor.reconstruct(good, "b" * 16, seed=1)
    assert isinstance(result, Candidate)
    assert result.crystal.formula == "SrTiO3"
    assert np.isfinite(result.residual)
