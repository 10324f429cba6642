"""Estimated costs of samples: only the order of the schedule depends on them, but every sample needs one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal, lattice_parameters
from hpcgen.family.rebuild import cell_volumes
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.flow import make_id


def sample(index: int, n_atoms: float, lattice: list[float]) -> RepresentationSample:
    return RepresentationSample(
        make_id("cost", "sample", index),
        np.float32(n_atoms),
        np.ones(2, np.float32),
        np.array(lattice, np.float32),
        np.zeros(3, np.float32),
        1.0,
        "",
    )


@pytest.fixture(params=["pair-spectrum", "ead"])
def costs(request: pytest.FixtureRequest, tmp_path: Path):
    config = Config.model_validate({"representation": {"descriptor": request.param}})
    crystals = [Crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [12, 8])]
    attrs = RepresentationFamily.fit(crystals, config).sample_attrs()

    def estimate(samples: list[tuple[float, list[float]]]) -> np.ndarray:
        path = tmp_path / "samples.h5"
        records = [sample(i, *s) for i, s in enumerate(samples)]
        store.write(path, RepresentationSample, records, attrs=attrs)
        with store.open(path) as f:
            return RepresentationFamily.reconstructor(f.attrs, config).costs(f)

    estimate.descriptor = request.param
    return estimate


def cube(edge: float) -> list[float]:
    return [edge, edge, edge, 90, 90, 90]


def test_more_atoms_cost_more(costs) -> None:
    found = costs([(n, cube(2.5 * n ** (1 / 3))) for n in (1, 2, 5, 10, 20)])
    assert found.shape == (5,)
    assert (np.diff(found) > 0).all()


def test_dense_cells_have_more_images_within_a_radius(costs) -> None:
    loose, dense = costs([(8, cube(6.0)), (8, cube(4.0))])
    if costs.descriptor == "ead":
        assert loose < dense < loose * (6 / 4) ** 3
    else:  # its cells are scaled to one volume per atom
        assert dense == loose


def test_impossible_samples_have_a_small_finite_cost(costs) -> None:
    usual = costs([(5, cube(4.0))])[0]
    nan = float("nan")
    odd = [(nan, cube(4.0)), (-3, cube(4.0)), (1e9, cube(4.0)), (5, [nan] * 6), (5, [4, 4, 4, 170, 170, 170])]
    odd += [(5, [1e30] * 6), (5, [0] * 6), (5, cube(1e-9))]
    found = costs(odd)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found < 20 * usual).all()
    assert costs([]).shape == (0,)


def test_volumes_of_cells() -> None:
    lattices = np.random.default_rng(0).normal(size=(20, 3, 3)) + 4 * np.eye(3)
    volumes = np.abs(np.linalg.det(lattices))
    np.testing.assert_allclose(cell_volumes(lattice_parameters(lattices)), volumes, rtol=1e-9)
