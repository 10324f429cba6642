"""Real structures under noise, denoised and compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgen import store
from hpcgen.cli import main
from hpcgen.config import Config, loads
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, Failure
from hpcgen.family.denoising import CONDITION_ALONE, compare, curve, denoise, displacements, summary_json
from hpcgen.family.draw import Trained
from hpcgen.family.pointcloud import PointCloudFamily
from hpcgen.flow import Candidate, Entry

CONFIG = """
name: tiny
pointcloud: {points: 48, max_elements: 3, max_sites: 8}
conditions: {n_atoms: false}
data:
  builtin: {cations: [Li, Na, K], anions: [O, Cl], max_structures: 24}
  max_atoms: 8
  max_elements: 3
  validation_fraction: 0.1
  test_fraction: 0.4
model: {name: transformer, width: 16, resnet_blocks: 1, attention_heads: 2, patch: 8}
diffusion: {steps: 50, objective: x0}
train: {family: pointcloud, steps: 8, batch: 8, validate_every: 4, checkpoint_every: 8, device: cpu}
sample: {n: 6, sampler: dpm++, steps: 6, micro_batch: 4, device: cpu}
"""
RUTILE = Crystal(
    np.diag([4.6, 4.6, 2.95]),
    np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]),
    np.array([22, 22, 8, 8, 8, 8]),
)
SALT = Crystal(2.8 * (np.ones((3, 3)) - np.eye(3)), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))


def entry(crystal: Crystal) -> Entry:
    return Entry(f"{len(crystal):016x}", crystal, "row:1", "test")


def candidate(crystal: Crystal) -> Candidate:
    fields = {"sample_id": "a", "family": "pointcloud", "residual": 0.0, "iterations": 0, "stop_reason": "decoded"}
    fields |= {"confidence": 1.0, "repair": "", "cell_strain": 0.0, "symmetry": "", "match_probability": math.nan}
    return Candidate(id="b", crystal=crystal, residual_blocks=np.ones(1), seconds=0.0, **fields)


class Oracle(torch.nn.Module):
    """The perfect denoiser of one structure: it knows what lies below the noise."""

    def __init__(self, x0: np.ndarray) -> None:
        super().__init__()
        self.x0 = torch.from_numpy(x0)

    def forward(self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.x0.expand_as(x).clone()


@pytest.fixture(scope="module")
def config() -> Config:
    return loads(CONFIG)


@pytest.fixture(scope="module")
def family(config: Config) -> PointCloudFamily:
    return PointCloudFamily.fit([RUTILE, SALT], config)


def oracle(family: PointCloudFamily, config: Config, crystal: Crystal) -> Trained:
    part = family.parts(config)[0]
    bound = torch.full(part.shape, 9.0)
    return Trained(part, Oracle(family.encode([crystal])), -bound, bound)


def test_a_perfect_denoiser_is_right_from_every_step(family: PointCloudFamily, config: Config) -> None:
    starts = (1, 25, 50, CONDITION_ALONE)
    rows = list(denoise(family, oracle(family, config, RUTILE), [entry(RUTILE)], starts, config))
    assert [r.start for r in rows] == list(starts)
    for row in rows:
        assert (row.atoms, row.found, row.lengths_right, row.reason) == (6, 6, 3, "")
        assert row.atoms_right
        assert row.composition_right
        assert row.elements_present
        assert row.matched
        assert row.displacement < 1e-3
    found = curve(rows)
    assert list(found) == [1, 25, 50, CONDITION_ALONE]
    assert all(found[s]["coordinates"] == 1 and found[s]["lengths"] == 1 for s in starts)
    assert json.loads(json.dumps(summary_json(found)))["condition_alone"]["atoms_right"] == 1


def test_another_structure_is_seen_to_be_another(family: PointCloudFamily, config: Config) -> None:
    row = next(denoise(family, oracle(family, config, SALT), [entry(RUTILE)], [25], config))
    assert (row.atoms, row.found, row.atoms_right, row.composition_right, row.matched) == (6, 2, False, False, False)
    assert math.isnan(row.displacement)
    assert math.isnan(curve([row])[25]["lengths"])  # counted only where the number of atoms is right


def test_what_is_compared_is_what_is_said() -> None:
    stretched = Crystal(SALT.lattice * 1.04, SALT.frac + np.array([[0.02, 0, 0], [0, 0, 0]]), SALT.numbers)
    row = compare(entry(SALT), 10, candidate(stretched))
    assert (row.lengths_right, row.matched) == (3, True)
    assert row.length_error == pytest.approx(0.04)
    moved = 0.02 * np.linalg.norm(SALT.lattice[0])
    assert row.displacement == pytest.approx(moved / np.sqrt(2))
    assert row.near == 1
    far = compare(entry(SALT), 10, candidate(Crystal(SALT.lattice * 1.06, SALT.frac, SALT.numbers)))
    assert far.lengths_right == 0
    lost = compare(entry(SALT), 10, Failure("a", "reconstruct", "impossible-cell", "no cell"))
    assert (lost.found, lost.reason, lost.atoms_right) == (0, "impossible-cell", False)
    mean = curve([row, lost])[10]
    assert (mean["n"], mean["decoded"], mean["atoms_right"], mean["lengths"]) == (2, 0.5, 0.5, 1.0)


def test_displacements_are_periodic_and_pair_atoms_of_an_element() -> None:
    swapped = Crystal(RUTILE.lattice, RUTILE.frac[[1, 0, 5, 4, 3, 2]] + [0.999, 0, 0], RUTILE.numbers)
    np.testing.assert_allclose(displacements(RUTILE, swapped), 0.001 * 4.6, rtol=1e-9)
    skew = np.array([[3.0, 0, 0], [2.9, 1.0, 0], [0, 0, 5.0]])  # the nearest image is not the nearest fraction
    a, b = (Crystal(skew, np.array([[x, y, 0.0]]), np.array([11])) for x, y in ((0, 0), (0.45, 0.5)))
    images = np.array([[i, j, k] for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2) for k in (-1, 0, 1)]) @ skew
    nearest = np.linalg.norm(b.cart - a.cart + images, axis=1).min()
    assert displacements(a, b)[0] == pytest.approx(nearest)


def test_a_step_that_the_model_does_not_have_is_said(family: PointCloudFamily, config: Config) -> None:
    with pytest.raises(ConfigError, match="no starting step 51"):
        next(denoise(family, oracle(family, config, SALT), [entry(SALT)], [51], config))


def test_a_campaign_of_point_clouds_and_its_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages and the command, none of which knows the family by name."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    for command in ("data", "train", "sample", "reconstruct", "screen"):
        assert main([command, str(path)]) == 0, command
    run = tmp_path / "runs/tiny"
    with store.open(run / "samples.h5") as samples, store.open(run / "candidates.h5", Candidate) as candidates:
        assert samples.attrs["family"] == "pointcloud"
        given = {s.id: set(s.elements.tolist()) - {0} for s in samples}
        assert len(given) == 6
        built = list(candidates)
        assert len(built) + len(candidates.failures) == 6
        for c in built:
            assert c.family == "pointcloud"
            assert set(c.crystal.numbers.tolist()) <= given[c.sample_id]
    capsys.readouterr()
    assert main(["evaluate", "denoising", str(path), "--n", "3", "--starts", "5,50"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["split"], result["n"]) == ("test", 3)
    assert list(result["curve"]) == ["5", "50", "condition_alone"]
    table = (run / "denoising-test.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 3 * 3
    assert table[0].startswith("id,start,formula,atoms,found,atoms_right")
    picture = (run / "denoising-test.svg").read_text(encoding="utf-8")
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "polyline" in picture

    # guidance towards the elements that each sample is given, though nothing is asked for
    guided = ["--run-dir", str(tmp_path / "runs/guided"), "--set", "sample.guidance=2"]
    guided += ["--set", f"train.checkpoint={run / 'checkpoint.pt'}"]
    for command in ("data", "train", "sample"):
        assert main([command, str(path), *guided]) == 0, command
    with store.open(run / "samples.h5") as plain, store.open(tmp_path / "runs/guided/samples.h5") as led:
        assert len(led) == len(plain)
        assert not np.array_equal(led.array("lattice")[:], plain.array("lattice")[:])

    assert main(["evaluate", "denoising", str(path), "--starts", "5,51"]) == 3
    assert main(["evaluate", "denoising", str(path), "--starts", "0"]) == 2
    assert main(["evaluate", "denoising", str(path), "--dry-run"]) == 0
