"""Samples of several runs and families in one campaign: the union, id by id, and books of each file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config, loads
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, StoreError
from hpcgen.family.pointcloud import PointCloudFamily
from hpcgen.family.pointcloud_generator import to_samples
from hpcgen.family.pointcloud_samples import CloudSample
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.family.samples import of_vectors
from hpcgen.flow import Candidate, content
from hpcgen.represent.composition import order_elements
from hpcgen.stages import reconstruct, screen
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.sample_files import SampleFiles

DRIVER = """
import sys
from pathlib import Path
from hpcgen.config import loads
from hpcgen.stages import reconstruct
from hpcgen.stages.context import Context
folder = Path(sys.argv[1])
balance = reconstruct.run(Context(loads((folder / "mixed.yaml").read_text()), folder / "own", folder))
if balance is not None:
    print(balance)
"""
MIXED = """
pointcloud: {points: 32, max_elements: 3, max_sites: 6}
representation: {pair_spectrum: {rdf_bins: 12}}
reconstruct: {anneal: {starts: 1, sweeps: 8}, more_samples: [clouds/samples.h5, vectors/samples.h5]}
"""
FRAC = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
CRYSTALS = [
    Crystal(np.diag([length, length, stretch * length]), FRAC, [a, b, 8, 8, 8])
    for a, b, length in ((38, 22, 3.9), (56, 22, 4.0), (56, 40, 4.2))
    for stretch in (1.0, 1.05)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Samples of three runs: vectors in `own` and `vectors`, whose descriptors differ, and clouds; one of each bad."""
    rng = np.random.default_rng(0)
    config = loads(MIXED)
    (tmp_path / "mixed.yaml").write_text(MIXED)
    for name, first, settings in (("own", 0, config), ("vectors", 100, Config())):
        family = RepresentationFamily.fit(CRYSTALS, settings)
        x, _ = family.encode(CRYSTALS[:4])
        x = x + 0.03 * rng.standard_normal(x.shape).astype(np.float32)
        x[2] = np.nan
        (tmp_path / name).mkdir()
        samples = of_vectors(family, [f"{first + i:016x}" for i in range(len(x))], x)
        attrs = {**family.sample_attrs(), "family": family.name}
        store.write(tmp_path / name / "samples.h5", RepresentationSample, samples, attrs=attrs)
    clouds = PointCloudFamily.fit(CRYSTALS, config)
    x = clouds.encode(CRYSTALS)
    x = x + 0.05 * rng.standard_normal(x.shape).astype(np.float32)
    x[4, 2] = -60.0  # negative angles
    ids = [f"{200 + i:016x}" for i in range(len(x))]
    slots = [order_elements(c.numbers.tolist()) for c in CRYSTALS]
    (tmp_path / "clouds").mkdir()
    attrs = {**clouds.sample_attrs(), "family": clouds.name}
    store.write(tmp_path / "clouds" / "samples.h5", CloudSample, to_samples(clouds, ids, slots, x), attrs=attrs)
    return tmp_path


def context(folder: Path, *overrides: str) -> Context:
    return Context(loads(MIXED, overrides=overrides), folder / "own", folder)


def candidates(path: Path) -> dict[str, Candidate]:
    """By the sample that each was built from."""
    with store.open(path, Candidate) as file:
        file.verify()
        return {c.sample_id: c for c in file}


def differing(a: Candidate, b: Candidate, *but: str) -> list[str]:
    """Columns in which two candidates differ; NaN equals NaN."""
    one, other = content(a), content(b)
    return [key for key in one if key not in but and not _equal(one[key], other[key])]


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")


def test_a_mixed_campaign_is_the_union_of_its_files(folder: Path) -> None:
    balance = reconstruct.run(context(folder))
    assert balance == Balance("reconstruct", 14, 11, {"not-finite": 2, "impossible-cell": 1})
    mixed = candidates(folder / "own/candidates.h5")
    with store.open(folder / "own/candidates.h5", Candidate) as file:
        names, ids, attrs, lost = file.attrs["names_residual_blocks"], file.ids, file.attrs, file.failures
    assert attrs["family"] == "representation, pointcloud"
    assert len(set(ids)) == 11
    assert {f.id for f in lost} | set(mixed) == {f"{i:016x}" for i in (*range(4), *range(100, 104), *range(200, 206))}
    assert {Balance(**b).left for b in json.loads(attrs["balance_by_file"]).values()} == {3, 5}
    assert {int(id_, 16) // 100: c.family for id_, c in mixed.items()} == {
        0: "representation",
        1: "representation",
        2: "pointcloud",
    }
    assert {c.crystal.formula for c in mixed.values()} == {"SrTiO3", "BaTiO3", "BaZrO3"}

    reconstruct.run(context(folder, "reconstruct.more_samples=[]"))
    own = candidates(folder / "own/candidates.h5")
    assert set(own) == {f"{i:016x}" for i in (0, 1, 3)}
    for id_, candidate in own.items():  # ids and seeds too: what else is rebuilt changes nothing
        assert differing(candidate, mixed[id_], "residual_blocks") == []
        blocks = candidate.residual_blocks
        assert np.array_equal(mixed[id_].residual_blocks[: len(blocks)], blocks)

    cloud = mixed[f"{200:016x}"]
    assert cloud.residual_blocks[names.index("position")] == 1
    assert np.isnan(cloud.residual_blocks).sum() == len(names) - 1


def test_other_files_beside_it_do_not_change_the_candidates_of_a_file(folder: Path) -> None:
    reconstruct.run(context(folder, "reconstruct.more_samples=[clouds/samples.h5]"))
    two = candidates(folder / "own/candidates.h5")
    reconstruct.run(context(folder))
    three = candidates(folder / "own/candidates.h5")
    assert (len(two), len(three)) == (8, 11)
    assert [differing(c, three[id_], "residual_blocks") for id_, c in two.items()] == [[]] * 8


@pytest.mark.mpi
def test_one_and_three_ranks_give_the_same_candidates(folder: Path, mpiexec: Callable) -> None:
    reconstruct.run(context(folder))
    with store.open(folder / "own/candidates.h5", Candidate) as file:
        alone, digest = list(file), file.content_digest
    (folder / "own/candidates.h5").unlink()
    result = mpiexec(3, "-c", DRIVER, str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("reconstruct: 14 in = 11 out + 2 not-finite + 1 impossible-cell") == 1
    with store.open(folder / "own/candidates.h5", Candidate) as file:
        together, other = list(file), file.content_digest
    assert [differing(one, three) for one, three in zip(alone, together, strict=True)] == [[]] * 11
    assert other == digest


def test_screening_judges_all_families_together(folder: Path) -> None:
    reconstruct.run(context(folder))
    found = list(candidates(folder / "own/candidates.h5").values())
    verdicts = screen.judge(found, [], loads(MIXED).screen, "run")
    family = {c.id: c.family for c in found}
    assert len({v.id for v in verdicts}) == len(found)
    across = {(family[v.candidate_id], family[v.duplicate_of]) for v in verdicts if v.duplicate_of}
    assert ("pointcloud", "representation") in across

    strict = loads(MIXED, overrides=["screen.max_residual={pointcloud: 1e-4, representation: 1e9}"]).screen
    dropped = {
        family[v.candidate_id] for v in screen.judge(found, [], strict, "run") if v.reason == "residual-too-high"
    }
    assert dropped == {"pointcloud"}
    with pytest.raises(ConfigError, match="pointclouds"):
        screen.run(context(folder, "screen.max_residual={pointclouds: 1e-4}"))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ("[clouds/samples.h5, ./clouds/samples.h5]", ConfigError, "6 samples occur twice"),
        ("[clouds/samples.h5, clouds/samples.h5]", ConfigError, "names clouds/samples.h5 twice"),
        ("[own/samples.h5]", ConfigError, "4 samples occur twice"),
        ("[nowhere/samples.h5]", StoreError, "nowhere"),
    ],
)
def test_impossible_mixtures_are_refused(folder: Path, more: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SampleFiles(context(folder, f"reconstruct.more_samples={more}"), verify=True)
