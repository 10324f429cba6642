"""Files that are missing, foreign, cut off, of another kind, too new or damaged: one clear message each."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from store_records import make

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation
from hpcgen.store.schema import CANDIDATE_VERSION


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    path = tmp_path / "candidates.h5"
    store.write(path, Candidate, make(Candidate, 30), failures=[Failure("x", "reconstruct", "budget", "a message")])
    return path


def refusal(path: Path, record_type: type | None = Candidate) -> str:
    with pytest.raises(StoreError) as error:
        store.open(path, record_type)
    assert str(path) in error.value.found
    return str(error.value)


def test_missing(tmp_path: Path) -> None:
    text = refusal(tmp_path / "candidates.h5")
    assert "there is no file" in text
    assert "`reconstruct`" in text
    assert "is a folder" in refusal(tmp_path)


def test_not_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "candidates.h5"
    path.write_text("material_id,cif\n1,data_x\n")
    assert "is not an HDF5 file" in refusal(path)


@pytest.mark.parametrize("keep", [0, 3, 8, 50, 100, 500, 0.3, 0.5, 0.9, 0.999])
def test_truncated(candidates: Path, keep: float) -> None:
    data = candidates.read_bytes()
    candidates.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    text = refusal(candidates)
    assert any(word in text for word in ("truncated", "cut off", "is empty"))
    assert "run its stage again" in text


def test_hdf5_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as f:
        f["x"] = np.arange(3)
    assert "without a schema" in refusal(path)
    assert "without a schema" in refusal(path, None)


def test_another_schema(candidates: Path) -> None:
    text = refusal(candidates, Relaxation)
    for part in ("hpcgen.candidates (Candidate)", "hpcgen.relaxed (Relaxation)", "`relax`", "relaxed-mlip.h5"):
        assert part in text


def test_a_newer_version(candidates: Path) -> None:
    with h5py.File(candidates, "r+") as f:
        f.attrs["schema_version"] = 7
        f.attrs["hpcgen_version"] = "9.0"
    for record_type in (Candidate, None):
        text = refusal(candidates, record_type)
        for part in ("version 7", "hpcgen 9.0", f"version {CANDIDATE_VERSION} or older", "upgrade hpcgen"):
            assert part in text


def test_an_unknown_kind(candidates: Path) -> None:
    with h5py.File(candidates, "r+") as f:
        f.attrs["schema"], f.attrs["record_type"] = "hpcgen.samples", "TensorSample"
    assert "hpcgen.samples (TensorSample), which this version" in refusal(candidates, None)


@pytest.mark.parametrize("dataset", ["id", "lattice", "atoms/frac", "table/residual", "failures/kind", "crc32"])
def test_wrong_counts_and_missing_columns(candidates: Path, dataset: str) -> None:
    with h5py.File(candidates, "r+") as f:
        data = f[dataset][:]
        del f[dataset]
        f[dataset] = data[:-1]
    assert f"/{dataset} has" in refusal(candidates)
    with h5py.File(candidates, "r+") as f:
        del f[dataset]
    assert "missing" in refusal(candidates)


def test_offsets_that_do_not_rise(candidates: Path) -> None:
    with h5py.File(candidates, "r+") as f:
        f["atoms/offset"][4] = 10**6
    assert "/atoms/offset does not rise" in refusal(candidates)


@pytest.mark.parametrize(
    "dataset", ["id", "lattice", "atoms/frac", "atoms/number", "table/residual", "table/sample_id"]
)
def test_verify_names_the_record_with_a_flipped_byte(candidates: Path, dataset: str) -> None:
    with store.open(candidates) as f:
        f.verify()
        position = f.crystals.offset[11] if dataset.startswith("atoms/") else 11
    with h5py.File(candidates) as f:
        raw = f[dataset]
        row = raw.dtype.itemsize * int(np.prod(raw.shape[1:], dtype=int))
        where = raw.id.get_offset() + int(position) * row
    _flip(candidates, where)
    message = r"1 of 30 records are damaged: .*\(number 11\)"
    with store.open(candidates) as f, pytest.raises(StoreError, match=message):
        f.verify()


def test_verify_finds_damaged_text_and_failures(candidates: Path) -> None:
    data = candidates.read_bytes()
    for text, message in ((b"Bindungsl", "records are damaged"), (b"a message", "content digest does not fit")):
        candidates.write_bytes(data)
        assert text in data
        _flip(candidates, data.index(text) + 2)
        with store.open(candidates) as f, pytest.raises(StoreError, match=message):
            f.verify()


def test_a_flipped_byte_anywhere_is_never_taken_for_another_content(candidates: Path) -> None:
    """Wherever a byte is damaged, the file is refused, or verify complains, or nothing that matters has changed."""
    data = candidates.read_bytes()
    with store.open(candidates) as f:
        true = f.ids, f.failures, f.column("residual").tobytes(), f.column("repair").tolist()
    rng = np.random.default_rng(0)
    found = 0
    for where in rng.choice(len(data), 250, replace=False):
        candidates.write_bytes(data)
        _flip(candidates, int(where))
        try:
            with store.open(candidates, Candidate) as f:
                f.verify()
                assert (f.ids, f.failures, f.column("residual").tobytes(), f.column("repair").tolist()) == true
        except StoreError:
            found += 1
    assert found > 50


def test_an_impossible_crystal_is_a_damaged_file(candidates: Path) -> None:
    with h5py.File(candidates, "r+") as f:
        f["lattice"][3] = 0.0
    with store.open(candidates) as f:
        name = f.ids[3]
        assert len(f[:3]) == 3
        with pytest.raises(StoreError, match=f"record {name}: the cell has no volume"):
            f[3]


def _flip(path: Path, where: int) -> None:
    with path.open("r+b") as f:
        f.seek(where)
        byte = f.read(1)[0]
        f.seek(where)
        f.write(bytes([byte ^ 0x10]))
