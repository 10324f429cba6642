from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from hpcgen import config as configuration
from hpcgen import flow, provenance, store
from hpcgen.crystal import Crystal, from_atoms, to_structure
from hpcgen.stages import screen
from hpcgen.stages.context import Balance, Context

SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
MAGNESIA = from_atoms(bulk("MgO", "rocksalt", a=4.2))
FLUORIDE = from_atoms(bulk("LiF", "rocksalt", a=4.0))
CLOSE = Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([11, 17]))
FLAT = Crystal(np.diag([0.4, 5, 5]), np.zeros((1, 3)), np.array([29]))
TINY = Crystal(np.eye(3) * 0.4, np.zeros((1, 3)), np.array([29]))
UNBALANCED = Crystal(np.eye(3) * 4, np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]]), np.array([11, 11, 17]))


def candidate(index: int, crystal: Crystal, residual: float = 0.01) -> flow.Candidate:
    return flow.Candidate(
        id=flow.make_id("x", "reconstruct", index),
        crystal=crystal,
        sample_id=flow.make_id("x", "sample", index),
        family="f",
        residual=residual,
        iterations=1,
        stop_reason="converged",
        confidence=1.0,
        repair="",
        cell_strain=0.0,
        symmetry="",
        match_probability=0.9,
        residual_blocks=np.array([0.01, 0.0]),
        seconds=0.1,
    )


CASES = [
    (SALT, 0.01, ""),
    (CLOSE, 0.01, "atoms-too-close"),
    (FLAT, 0.01, "atoms-too-close"),
    (TINY, 0.01, "cell-collapsed"),
    (UNBALANCED, 0.01, "composition-invalid"),
    (UNBALANCED, 0.9, "residual-too-high"),  # the first reason that applies
    (SALT, 0.02, "duplicate"),
    (MAGNESIA, 0.9, "residual-too-high"),
    (MAGNESIA, 0.02, ""),  # a bad copy before it does not make it a duplicate
    (FLUORIDE, float("nan"), "residual-too-high"),
    (FLUORIDE, 0.01, "not-novel"),
    (FLUORIDE, 0.01, "duplicate"),
]
STRICT = ["screen.max_residual=0.5", "screen.require_novel=true"]


@pytest.fixture
def ctx(tmp_path):
    """A run folder with the cases as candidates, and one training, one validation structure."""
    config = configuration.loads("{name: t}", overrides=STRICT)
    header = provenance.header(config, {})
    candidates = [candidate(i, crystal, residual) for i, (crystal, residual, _) in enumerate(CASES)]
    store.write(tmp_path / "candidates.h5", flow.Candidate, candidates, header=header)
    entries = [
        flow.Entry(id=flow.make_id("x", "data", 0), crystal=FLUORIDE, source="row:0", split="train"),
        flow.Entry(id=flow.make_id("x", "data", 1), crystal=SALT, source="row:1", split="validation"),
    ]
    store.write(tmp_path / "dataset.h5", flow.Entry, entries, header=header)
    return Context(config, tmp_path)


def test_first_reason_in_order(ctx):
    screen.run(ctx)
    with store.open(ctx.path("survivors.h5"), flow.Survivor) as f:
        found = list(f)
    assert [s.reason for s in found] == [reason for _, _, reason in CASES]
    assert [s.kept for s in found] == [not reason for _, _, reason in CASES]


def test_balance_is_printed_stored_and_complete(ctx):
    balance = screen.run(ctx)
    assert (balance.entered, balance.left) == (len(CASES), 2)
    assert balance.failures == {
        "residual-too-high": 3,
        "atoms-too-close": 2,
        "duplicate": 2,
        "cell-collapsed": 1,
        "composition-invalid": 1,
        "not-novel": 1,
    }
    with store.open(ctx.path("survivors.h5")) as f:
        assert Balance.from_json(f.attrs["balance"]) == balance
        assert len(f) == balance.entered
        assert "candidates.h5" in f.attrs["inputs"]


def test_columns(ctx):
    screen.run(ctx)
    with store.open(ctx.path("candidates.h5")) as f:
        candidate_ids = f.ids
    with store.open(ctx.path("survivors.h5"), flow.Survivor) as f:
        found = list(f)
    assert [s.candidate_id for s in found] == candidate_ids
    assert found[6].duplicate_of == candidate_ids[0]
    assert found[11].duplicate_of == candidate_ids[10]
    assert found[0].spacegroup == 225
    assert found[0].novel  # only the validation split has it
    assert not found[10].novel
    assert not found[4].composition_valid
    assert found[2].smallest_distance == pytest.approx(0.4)
    assert found[0].density == pytest.approx(SALT.density)


def test_two_runs_agree(ctx):
    screen.run(ctx)
    first = store.content_digest(ctx.path("survivors.h5"))
    ctx.path("survivors.h5").unlink()
    screen.run(ctx)
    assert store.content_digest(ctx.path("survivors.h5")) == first


def test_rules_can_be_switched_off():
    config = configuration.loads(
        "{}",
        overrides=["screen.require_unique=false", "screen.require_valid_composition=false", "screen.min_distance=0.1"],
    ).screen
    candidates = [candidate(i, crystal, residual) for i, (crystal, residual, _) in enumerate(CASES)]
    found = screen.judge(candidates, [FLUORIDE], config, "x")
    assert [s.reason for s in found] == ["cell-collapsed" if c is TINY else "" for c, _, _ in CASES]
    assert found[6].duplicate_of == candidates[0].id  # still said
    assert not found[10].novel


def test_further_known_structures(ctx, tmp_path):
    """The first candidate is novel to the training data, and in a folder of CIFs."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    to_structure(SALT).to(filename=str(folder / "salt.cif"))
    config = configuration.loads("{name: t}", overrides=[*STRICT, f"screen.known=[{folder}]"])
    screen.run(Context(config, ctx.folder))
    with store.open(ctx.path("survivors.h5"), flow.Survivor) as f:
        found, attrs = list(f), f.attrs
    assert (found[0].novel, found[0].reason) == (False, "not-novel")
    assert attrs["known"] == "1 training structures and 1 of cifs"
    assert "cifs" in attrs["inputs"]
    assert "comparisons instead of" in attrs["novelty"]


def test_no_candidates(ctx):
    ctx.path("candidates.h5").unlink()
    store.write(ctx.path("candidates.h5"), flow.Candidate, [], header=provenance.header(ctx.config, {}))
    assert screen.run(ctx) == Balance("screen", 0, 0, {})
