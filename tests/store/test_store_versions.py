"""Files of older versions: what they lack has a default, or they are refused; newer columns are ragged by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_records import assert_same, make

from hpcgen import store
from hpcgen.errors import StoreError
from hpcgen.flow import DftRelaxation, Phonons, Relaxation, Stability
from hpcgen.store.table import Table
from hpcgen.store.writer import Extent, write_tables


def write_old(path: Path, record_type: type, version: int, count: int = 7) -> list[object]:
    """A file as an older version wrote it, and its records."""
    records = make(record_type, count)
    schema = store.schema_of(record_type).at(version)
    table = Table.of(schema, records)
    write_tables(path, schema, Extent.of(table), [table], [], {})
    return records


@pytest.mark.parametrize(
    ("record_type", "version", "lacking"),
    [
        (Relaxation, 1, {"step_energy": np.zeros(0, np.float32), "step_max_force": np.zeros(0, np.float32)}),
        (
            DftRelaxation,
            1,
            {
                "step_energy": np.zeros(0, np.float32),
                "step_max_force": np.zeros(0, np.float32),
                "step_run": np.zeros(0, np.uint8),
            },
        ),
        (Stability, 2, {"charge_balanced": "unknown", "oxidation_states": ""}),
        (Phonons, 1, {"forces": "mlip", "scale": "", "max_force": float("nan")}),
    ],
)
def test_an_older_file_opens_with_defaults(tmp_path: Path, record_type: type, version: int, lacking: dict) -> None:
    path = tmp_path / "old.h5"
    records = write_old(path, record_type, version)
    with h5py.File(path) as f:
        assert f.attrs["schema_version"] == version
        assert "steps" not in f
        assert not any(name in f["table"] for name in lacking)
    with store.open(path, record_type) as f:
        f.verify()
        for a, b in zip(records, f, strict=True):
            assert_same(replace(a, **lacking), b)
        with pytest.raises(KeyError, match="no column"):
            f.column(next(iter(lacking)))
        assert f.steps(0) == {}
    assert store.describe_file(path)


def test_a_file_without_columns_that_matter_is_refused(tmp_path: Path) -> None:
    write_old(tmp_path / "s.h5", Stability, 2)
    with h5py.File(tmp_path / "s.h5", "r+") as f:
        f.attrs["schema_version"] = 1
    with pytest.raises(StoreError, match=r"version 1 of hpcgen\.stability .* lacks columns"):
        store.open(tmp_path / "s.h5", Stability)


def test_steps_of_one_record_and_of_all(tmp_path: Path) -> None:
    records = make(Relaxation, 11)
    store.write(tmp_path / "r.h5", Relaxation, records)
    with store.open(tmp_path / "r.h5") as f:
        offset, energy = f.step_offset, f.column("step_energy")
        assert offset.tolist() == np.cumsum([0, *(len(r.step_energy) for r in records)]).tolist()
        for i, r in enumerate(records):
            np.testing.assert_array_equal(f.steps(i)["step_max_force"], r.step_max_force)
            np.testing.assert_array_equal(energy[offset[i] : offset[i + 1]], r.step_energy)
    with h5py.File(tmp_path / "r.h5", "r+") as f:
        f["steps/offset"][3] = 2**40
    with pytest.raises(StoreError, match="steps/offset does not rise"):
        store.open(tmp_path / "r.h5")


def test_columns_per_step_are_equally_long(tmp_path: Path) -> None:
    record = replace(make(Relaxation, 1)[0], step_energy=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="not equally many"):
        store.write(tmp_path / "r.h5", Relaxation, [record])


def test_a_changed_step_is_found(tmp_path: Path) -> None:
    store.write(tmp_path / "r.h5", Relaxation, make(Relaxation, 6))
    with h5py.File(tmp_path / "r.h5", "r+") as f:
        f["steps/step_energy"][4] += 1e-3
    with store.open(tmp_path / "r.h5") as f, pytest.raises(StoreError, match="1 of 6 records are damaged"):
        f.verify()
