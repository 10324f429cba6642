"""The stage relax: kept survivors only, the same relaxations on any number of ranks, and books that balance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.errors import StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor, content, make_id
from hpcgen.stages import relax
from hpcgen.stages.context import Balance, Context

pytest.importorskip("chgnet")

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
CONFIG = Config.model_validate({"relax": {"device": "cpu", "batch": 2}, "screen": {"min_distance": 0.1}})
DRIVER = """
import sys
from pathlib import Path
from hpcgen.config import Config
from hpcgen.stages import relax
from hpcgen.stages.context import Context
config = Config.model_validate({"relax": {"device": "cpu", "batch": 2}, "screen": {"min_distance": 0.1}})
balance = relax.run(Context(config, Path(sys.argv[1])))
if balance is not None:
    print(balance)
"""


def rocksalt(a: float, cation: int, anion: int) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.48, 0.5, 0.5]]), np.array([cation, anion]))


def candidate(index: int, crystal: Crystal) -> Candidate:
    return Candidate(
        make_id("t", "c", index),
        crystal,
        make_id("t", "s", index),
        "representation",
        0.01,
        1,
        "converged",
        1.0,
        "",
        0.0,
        "",
        0.9,
        np.array([0.01, 0.0]),
        0.1,
    )


def survivor(index: int, of: Candidate, kept: bool) -> Survivor:
    return Survivor(
        make_id("t", "v", index),
        of.id,
        kept,
        "" if kept else "duplicate",
        of.crystal.formula,
        225,
        2.0,
        3.0,
        True,
        "",
        True,
    )


def fill(folder: Path) -> list[Candidate]:
    """Five candidates: the second is dropped by the screening, the fourth cannot be relaxed."""
    crystals = [
        rocksalt(5.8, 11, 17),
        rocksalt(5.8, 11, 17),
        rocksalt(4.3, 12, 8),
        Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.05, 0, 0]]), np.array([11, 17])),
        Crystal(3.7 * FCC, np.zeros((1, 3)), np.array([29])),
    ]
    candidates = [candidate(i, c) for i, c in enumerate(crystals)]
    survivors = [survivor(i, c, i != 1) for i, c in enumerate(candidates)]
    store.write(folder / "candidates.h5", Candidate, candidates)
    store.write(folder / "survivors.h5", Survivor, survivors)
    return candidates


def test_relaxes_what_was_kept(tmp_path: Path) -> None:
    candidates = fill(tmp_path)
    balance = relax.run(Context(CONFIG, tmp_path))
    assert str(balance) == "relax: 4 in = 3 out + 1 atoms-too-close"
    with store.open(tmp_path / "relaxed-mlip.h5", Relaxation) as f:
        records, failures, attrs = list(f), f.failures, f.attrs
    assert [r.candidate_id for r in records] == [candidates[i].id for i in (0, 2, 4)]
    assert [r.id for r in records] == [make_id(CONFIG.identity("relax"), "relax", i) for i in (0, 2, 4)]
    assert [f.id for f in failures] == [candidates[3].id]
    assert Balance.from_json(attrs["balance"]) == balance
    assert (attrs["scale"], attrs["calculator"]) == ("chgnet-mp2020", "CHGNet 0.3.0")
    for r in records:
        assert r.converged
        assert r.energy <= r.energy_initial
        assert r.max_force <= CONFIG.relax.max_force
        assert r.forces.shape == (len(r.crystal), 3)
    assert not (tmp_path / relax.SHARDS).exists()


@pytest.mark.mpi
def test_ranks_do_not_change_the_result(tmp_path: Path, mpiexec: Callable) -> None:
    contents = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        fill(folder)
        result = mpiexec(ranks, "-c", DRIVER, str(folder))
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == "relax: 4 in = 3 out + 1 atoms-too-close"
        with store.open(folder / "relaxed-mlip.h5", Relaxation) as f:
            contents.append([content(r) for r in f])
    for one, two in zip(*contents, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_nothing_kept(tmp_path: Path) -> None:
    one = candidate(0, rocksalt(5.8, 11, 17))
    store.write(tmp_path / "candidates.h5", Candidate, [one])
    store.write(tmp_path / "survivors.h5", Survivor, [survivor(0, one, False)])
    assert str(relax.run(Context(CONFIG, tmp_path))) == "relax: 0 in = 0 out"
    with store.open(tmp_path / "relaxed-mlip.h5", Relaxation) as f:
        assert len(f) == 0
        assert f.attrs["scale"] == "chgnet-mp2020"


def test_files_of_two_runs(tmp_path: Path) -> None:
    fill(tmp_path)
    store.write(tmp_path / "candidates.h5", Candidate, [candidate(77, rocksalt(5.8, 11, 17))])
    with pytest.raises(StoreError, match="names 4 candidates"):
        relax.run(Context(CONFIG, tmp_path))
