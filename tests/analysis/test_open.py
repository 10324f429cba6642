from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure

import hpcgen
from hpcgen import store
from hpcgen.errors import RunFolderError, StoreError, UsageError


@pytest.fixture
def run(run_folder):
    with hpcgen.open(run_folder) as run:
        yield run


def test_tables_are_the_columns_of_the_files(run, run_folder):
    assert {"dataset", "samples", "candidates", "survivors", "relaxed-mlip", "reference", "stability"} == set(
        run.tables
    )
    table = run.table("stability")
    with store.open(run_folder / "stability.h5") as f:
        assert table.index.tolist() == f.ids
        np.testing.assert_array_equal(table["e_hull"], f.column("e_hull"))
        assert table["formula"].tolist() == [r.formula for r in f]
    assert table["novel"].dtype == bool
    assert run.table("stability", ["e_hull"]).columns.tolist() == ["e_hull"]


def test_only_the_columns_asked_for_are_read(run, monkeypatch):
    read = []
    column = store.File.column
    monkeypatch.setattr(store.File, "column", lambda self, name: read.append(name) or column(self, name))
    run.table("candidates", ["residual", "family"])
    assert read == ["residual", "family"]


def test_no_file_is_opened_before_it_is_asked_for(run_folder, tmp_path):
    (tmp_path / "stability.h5").write_bytes((run_folder / "stability.h5").read_bytes())
    (tmp_path / "candidates.h5").write_bytes(b"damaged")
    with hpcgen.open(tmp_path) as run:
        assert len(run.table("stability")) == 13
        with pytest.raises(StoreError):
            run.table("candidates")


def test_joined_has_what_every_stage_knew(run):
    joined = run.joined()
    assert len(joined) == 13
    by_candidate = run.table("candidates")["residual"]
    assert (joined["residual"] == by_candidate.loc[joined["candidate_id"]].to_numpy()).all()
    assert joined["converged"].sum() == 12
    assert (joined["survivors.spacegroup"] == 1).all()  # before relaxation
    assert not (joined["spacegroup"] == 1).any()
    assert joined.columns.is_unique


def test_crystals_by_number_and_id_in_both_libraries(run, run_folder):
    crystals = run.crystals()
    with store.open(run_folder / "stability.h5") as f:
        first = f[0].crystal
        assert len(crystals) == len(f)
    assert isinstance(crystals.structure(0), Structure)
    np.testing.assert_allclose(crystals.structure(0).lattice.matrix, first.lattice)
    name = crystals.ids[4]
    np.testing.assert_allclose(crystals.atoms(name).cell.array, crystals[4].lattice)
    assert crystals.atoms(name).numbers.tolist() == crystals[4].numbers.tolist()
    assert [c.formula for c in crystals] == [s.reduced_formula for s in crystals.structures()]
    assert [len(a) for a in crystals.all_atoms()] == [len(c) for c in crystals[:]]
    with pytest.raises(KeyError):
        crystals["0" * 16]


def test_failures_and_balance(run):
    failures = run.failures()
    assert failures["kind"].value_counts().to_dict() == {"impossible-cell": 7, "broken-cif": 1}
    assert isinstance(failures, pd.DataFrame)
    assert run.balance().loc["train", "entered"] == 10
    assert run.config.seed == 7
    assert run.array("candidates", "residual_blocks").shape == (13, 2)


def test_steps_of_one_relaxation(run, run_folder, monkeypatch):
    with store.open(run_folder / "relaxed-mlip.h5") as f:
        record = f[5]
    monkeypatch.setattr(store.File, "__getitem__", None)  # no record is read
    for key in (5, record.id, record.candidate_id):
        steps = run.steps("relaxed-mlip", key)
        assert steps.columns.tolist() == ["step_energy", "step_max_force"]
        assert (steps.index.name, len(steps)) == ("step", 13)
        np.testing.assert_array_equal(steps["step_max_force"], record.step_max_force)
    assert run.steps("relaxed-mlip", 0).empty
    assert len(run.array("relaxed-mlip", "step_energy")) == 12 * 13
    with pytest.raises(UsageError, match="no relaxation 'x'"):
        run.steps("relaxed-mlip", "x")
    with pytest.raises(UsageError, match="holds no relaxations"):
        run.steps("stability", 0)


def test_what_is_not_there_says_what_is(run, tmp_path):
    with pytest.raises(UsageError, match="stability"):
        run.table("stabilty")
    with pytest.raises(UsageError, match="e_hull"):
        run.table("stability", ["ehull"])
    with pytest.raises(UsageError, match="residual_blocks"):
        run.array("candidates", "blocks")
    with pytest.raises(UsageError, match="no crystal"):
        run.crystals("survivors")
    with pytest.raises(RunFolderError, match="no HDF5"):
        hpcgen.open(tmp_path)
    with pytest.raises(RunFolderError, match="not there"):
        hpcgen.open(tmp_path / "nowhere")
