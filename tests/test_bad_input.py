"""What a user can get wrong, through the command line: one clear message, its exit code, nothing overwritten."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcgen import cli, errors, store
from hpcgen.crystal import Crystal, to_structure
from hpcgen.flow import Candidate
from hpcgen.train import checkpoint

ROCKSALT = Crystal(
    2.1 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([12, 8])
)


@pytest.fixture
def campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`campaign(command, *sets)` runs a stage in tmp_path/run and returns (exit code, message)."""
    (tmp_path / "c.yaml").write_text("name: c\ndata: {max_atoms: 8, elements: [Mg, O, Cl, Na]}\n")

    def run(command: str, *sets: str) -> tuple[int, str]:
        overrides = [part for s in sets for part in ("--set", s)]
        code = cli.main([command, str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run"), *overrides])
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return code, message

    return run


def cif(crystal: Crystal) -> str:
    return to_structure(crystal).to(fmt="cif")


def write_csv(path: Path, rows: list[str], column: str = "cif") -> Path:
    with path.open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["material_id", column])
        writer.writerows((i, text) for i, text in enumerate(rows))
    return path


def test_missing_data_file(campaign, tmp_path: Path) -> None:
    code, message = campaign("data", f"data.source={tmp_path / 'nowhere.csv'}")
    assert code == errors.DataError.exit_code
    assert "nowhere.csv" in message
    assert not (tmp_path / "run/dataset.h5").exists()


def test_empty_data_file(campaign, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    code, message = campaign("data", f"data.source={tmp_path / 'empty.csv'}")
    assert code == errors.DataError.exit_code
    assert "empty" in message


def test_csv_without_cif(campaign, tmp_path: Path) -> None:
    code, message = campaign("data", f"data.source={write_csv(tmp_path / 'a.csv', ['x'], 'structure')}")
    assert code == errors.DataError.exit_code
    assert "cif" in message
    assert "structure" in message


def test_bad_rows_among_good_ones_are_stored_failures(campaign, tmp_path: Path) -> None:
    good = [cif(replace(ROCKSALT, lattice=ROCKSALT.lattice * (1 + 0.01 * i))) for i in range(6)]
    partial = re.sub(r"(  Mg0 .*)  1(\.0)?$", r"\1  0.5", cif(ROCKSALT), flags=re.MULTILINE)
    assert partial != cif(ROCKSALT)
    big = Crystal(np.eye(3) * 9, np.random.default_rng(0).random((9, 3)), np.full(9, 12))
    foreign = Crystal(ROCKSALT.lattice, ROCKSALT.frac, np.array([26, 8]))
    rows = [*good, "data_broken\nloop_\n_cell", partial, cif(big), cif(foreign)]
    code, message = campaign("data", f"data.source={write_csv(tmp_path / 'a.csv', rows)}")
    assert code == 0, message
    with store.open(tmp_path / "run/dataset.h5") as f:
        assert len(f) == 6
        assert {x.id: x.kind for x in f.failures} == {
            "row:7": "broken-cif",
            "row:8": "partial-occupancy",
            "row:9": "too-many-atoms",
            "row:10": "element-not-allowed",
        }


def test_a_run_folder_of_another_configuration(campaign, tmp_path: Path) -> None:
    source = f"data.source={write_csv(tmp_path / 'a.csv', [cif(ROCKSALT)] * 8)}"
    assert campaign("data", source)[0] == 0
    before = (tmp_path / "run/dataset.h5").read_bytes()
    code, message = campaign("data", source, "seed=5")
    assert code == errors.RunFolderError.exit_code
    assert "seed is 0 there and 5 here" in message
    assert (tmp_path / "run/dataset.h5").read_bytes() == before


def candidates(path: Path) -> None:
    record = Candidate(
        id="0" * 16,
        crystal=ROCKSALT,
        sample_id="1" * 16,
        family="representation",
        residual=0.01,
        iterations=3,
        stop_reason="converged",
        confidence=1.0,
        repair="",
        cell_strain=0.0,
        symmetry="",
        match_probability=0.9,
        residual_blocks=np.array([0.01, 0.0]),
        seconds=0.1,
    )
    store.write(path, Candidate, [record] * 3)


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as f:
        f.attrs["schema_version"] = 99


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def unchanged(path: Path) -> None:
    """Candidates where samples are expected."""


@pytest.mark.parametrize(
    ("damage", "words"),
    [(unchanged, ["hpcgen.candidates", "hpcgen.samples"]), (newer, ["99"]), (truncated, ["truncated"])],
    ids=("another schema", "newer version", "truncated"),
)
def test_an_hdf5_file_that_cannot_be_used(campaign, tmp_path: Path, damage, words: list[str]) -> None:
    source = f"data.source={write_csv(tmp_path / 'a.csv', [cif(ROCKSALT)] * 8)}"
    campaign("data", source)
    samples = tmp_path / "run/samples.h5"
    candidates(samples)
    damage(samples)
    before = samples.read_bytes()
    code, message = campaign("reconstruct", source)
    assert code == errors.StoreError.exit_code
    assert "remedy" in message or "expected" in message
    for word in words:
        assert word in message
    assert samples.read_bytes() == before
    assert not (tmp_path / "run/candidates.h5").exists()


def test_a_checkpoint_of_another_family(campaign, tmp_path: Path) -> None:
    source = f"data.source={write_csv(tmp_path / 'a.csv', [cif(ROCKSALT)] * 30)}"
    small = (source, "train.steps=2", "train.batch=4", "model.width=8", "train.validate_every=2")
    assert campaign("data", *small)[0] == 0
    assert campaign("train", *small)[0] == 0
    path = tmp_path / "run/checkpoint.pt"
    checkpoint.save(path, replace(checkpoint.load(path), family="pointcloud"))
    before = path.read_bytes()
    code, message = campaign("sample", *small)
    assert code == errors.CheckpointError.exit_code
    assert "'pointcloud'" in message
    assert "'representation'" in message
    assert path.read_bytes() == before
    assert not (tmp_path / "run/samples.h5").exists()
