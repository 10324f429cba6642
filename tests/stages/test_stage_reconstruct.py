"""The stage reconstruct: the same candidates on any number of ranks, and books that balance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import StoreError
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.family.samples import of_vectors
from hpcgen.flow import Candidate, content
from hpcgen.stages import reconstruct
from hpcgen.stages.context import Balance, Context

DRIVER = """
import sys
from pathlib import Path
from hpcgen.config import Config
from hpcgen.stages import reconstruct
from hpcgen.stages.context import Context
balance = reconstruct.run(Context(Config(), Path(sys.argv[1])))
if balance is not None:
    print(balance)
"""


@pytest.fixture(scope="module")
def samples() -> tuple[list[RepresentationSample], dict]:
    """Generated-like samples: encoded crystals with noise, one of them broken."""
    rng = np.random.default_rng(0)
    crystals = []
    for a, b, length in ((38, 22, 3.9), (56, 22, 4.0), (56, 40, 4.2), (20, 22, 3.8)):
        frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
        crystals.append(Crystal(np.eye(3) * length, frac, [a, b, 8, 8, 8]))
        crystals.append(Crystal(np.diag([length, length, length * 1.05]), frac, [b, a, 8, 8, 8]))
    crystals.append(Crystal(np.eye(3) * 3.35, [[0, 0, 0]], [56]))
    family = RepresentationFamily.fit(crystals, Config())
    x, _ = family.encode(crystals)
    x = x + 0.05 * rng.standard_normal(x.shape).astype(np.float32)
    out = of_vectors(family, [f"{i:016x}" for i in range(len(x))], x)
    out[2] = replace(out[2], descriptor=np.full_like(out[2].descriptor, np.nan))
    return out, {**family.sample_attrs(), "family": family.name}


@pytest.fixture
def folder(tmp_path: Path, samples: tuple[list[RepresentationSample], dict]) -> Path:
    store.write(tmp_path / "samples.h5", RepresentationSample, samples[0], attrs=samples[1])
    return tmp_path


def test_writes_candidates_and_failures_that_balance(folder: Path) -> None:
    balance = reconstruct.run(Context(Config(), folder))
    assert str(balance) == "reconstruct: 9 in = 8 out + 1 not-finite"
    with store.open(folder / "candidates.h5", Candidate) as f:
        assert Balance.from_json(f.attrs["balance"]) == balance
        assert f.attrs["family"] == "representation"
        assert [x.id for x in f.failures] == ["0000000000000002"]
        assert list(f.column("sample_id")) == [f"{i:016x}" for i in range(9) if i != 2]
        assert {c.crystal.formula for c in f} >= {"SrTiO3", "BaTiO3", "Ba"}
        f.verify()
    assert sorted(p.name for p in folder.iterdir()) == ["candidates.h5", "samples.h5"]


def test_the_candidates_depend_on_the_seed_of_the_run(folder: Path) -> None:
    found = []
    for seed in (0, 1):
        reconstruct.run(Context(Config(seed=seed), folder))
        with store.open(folder / "candidates.h5", Candidate) as f:
            found.append((f.ids, f.crystals.frac))
    assert set(found[0][0]).isdisjoint(found[1][0])
    assert not np.array_equal(found[0][1], found[1][1])


@pytest.mark.mpi
def test_one_two_and_four_ranks_give_the_same_candidates(
    folder: Path, mpiexec: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reconstruct.run(Context(Config(), folder))
    with store.open(folder / "candidates.h5", Candidate) as f:
        alone, digest = [content(c) for c in f], f.content_digest
    for ranks in (1, 2, 4):
        other = tmp_path_factory.mktemp(f"ranks{ranks}")
        (other / "samples.h5").write_bytes((folder / "samples.h5").read_bytes())
        result = mpiexec(ranks, "-c", DRIVER, str(other))
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.count("reconstruct: 9 in = 8 out + 1 not-finite") == 1
        with store.open(other / "candidates.h5", Candidate) as f:
            together, other_digest = [content(c) for c in f], f.content_digest
        for a, b in zip(alone, together, strict=True):
            assert [(key, a[key], b[key]) for key in a if not np.array_equal(a[key], b[key])] == [], a["id"]
        assert other_digest == digest


def test_missing_samples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"samples\.h5"):
        reconstruct.run(Context(Config(), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_candidates_are_no_samples(folder: Path) -> None:
    reconstruct.run(Context(Config(), folder))
    (folder / "candidates.h5").rename(folder / "samples.h5")
    with pytest.raises(StoreError, match=r"hpcgen\.samples"):
        reconstruct.run(Context(Config(), folder))
