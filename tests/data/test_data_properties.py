"""Columns of the data source: from every layout into dataset.h5, and what is wrong with them is said."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import ConditionsConfig, DataConfig, PrototypeData, loads
from hpcgen.crystal import Crystal, to_atoms, to_structure
from hpcgen.data import load
from hpcgen.data.properties import SYSTEMS, category_of, crystal_system, space_group
from hpcgen.errors import ConfigError, DataError, StoreError
from hpcgen.flow import Entry
from hpcgen.stages import data as stage
from hpcgen.stages.context import Context

SALT = Crystal(2.8 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
BOX = Crystal(np.diag([3.0, 3.0, 4.0]), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
ROWS: list[dict[str, Any]] = [
    {"band_gap": 5.0, "spacegroup.number": 225, "magnetism": "NM"},
    {"band_gap": 0.0, "spacegroup.number": 123, "magnetism": "FM"},
    {"band_gap": None, "spacegroup.number": None, "magnetism": None},
]
CRYSTALS = [SALT, BOX, BOX]
WANTED = ConditionsConfig(scalars=["band_gap"], categories=["spacegroup.number", "magnetism", "crystal_system"])
EXPECTED = [
    {"band_gap": 5.0, "spacegroup.number": "225", "magnetism": "NM", "crystal_system": "cubic"},
    {"band_gap": 0.0, "spacegroup.number": "123", "magnetism": "FM", "crystal_system": "tetragonal"},
    {"crystal_system": "tetragonal"},
]


def write_csv(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cif", *rows[0]])
        for crystal, row in zip(CRYSTALS, rows, strict=True):
            writer.writerow([to_structure(crystal).to(fmt="cif"), *("" if v is None else v for v in row.values())])
    return path


def write_as(layout: str, folder: Path) -> Path:
    path = folder / f"set.{layout}"
    if layout == "csv":
        return write_csv(path)
    if layout == "extxyz":
        from ase.io import write

        frames = []
        for crystal, row in zip(CRYSTALS, ROWS, strict=True):
            atoms = to_atoms(crystal)
            atoms.info = {k: v for k, v in row.items() if v is not None}
            frames.append(atoms)
        write(path, frames, format="extxyz")
        return path
    from ase.db import connect

    with connect(str(path)) as db:
        for crystal, row in zip(CRYSTALS, ROWS, strict=True):
            db.write(to_atoms(crystal), {k.replace(".", "_"): v for k, v in row.items() if v is not None})
    return path


@pytest.mark.parametrize("layout", ["csv", "extxyz", "db"])
def test_columns_of_every_layout(layout: str, tmp_path: Path) -> None:
    path = write_as(layout, tmp_path)
    name = "spacegroup_number" if layout == "db" else "spacegroup.number"  # ASE's keys are words
    wanted = WANTED.model_copy(update={"categories": [name, "magnetism", "crystal_system"]})
    found = load(DataConfig(source=str(path)), wanted)
    assert found.properties == [{k.replace("spacegroup.number", name): v for k, v in e.items()} for e in EXPECTED]


@pytest.mark.parametrize("layout", ["csv", "extxyz", "db"])
def test_a_column_that_is_not_there_is_an_error_that_lists_those_that_are(layout: str, tmp_path: Path) -> None:
    path = write_as(layout, tmp_path)
    with pytest.raises(DataError) as caught:
        load(DataConfig(source=str(path)), ConditionsConfig(scalars=["bandgap"], categories=["magnetism"]))
    for part in ("no column `bandgap`", "band_gap", "magnetism", "conditions.scalars"):
        assert part in str(caught.value)


def test_sources_without_columns_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(to_structure(SALT).to(fmt="cif"))
    for source in (str(tmp_path), str(tmp_path / "a.cif"), "builtin"):
        with pytest.raises(DataError, match="no column `band_gap`; its columns are: none"):
            load(DataConfig(source=source), ConditionsConfig(scalars=["band_gap"]))


def test_what_the_crystal_tells_needs_no_column(tmp_path: Path) -> None:
    few = DataConfig(max_atoms=5, builtin=PrototypeData(cations=["Sr", "Ti"], anions=["O"]))
    found = load(few, ConditionsConfig(categories=["space_group", "crystal_system"]))
    assert len(found.crystals) > 2
    for crystal, known in zip(found.crystals, found.properties, strict=True):
        assert known["space_group"] == str(space_group(crystal))
        assert known["crystal_system"] == crystal_system(int(known["space_group"]))
    rows = [{**row, "crystal_system": word} for row, word in zip(ROWS, ("mine", None, None), strict=True)]
    own = load(DataConfig(source=str(write_csv(tmp_path / "own.csv", rows))), WANTED)
    assert [p["crystal_system"] for p in own.properties] == ["mine", "tetragonal", "tetragonal"]


@pytest.mark.parametrize(
    ("value", "part"), [("wide", "row:2: `band_gap` is 'wide'"), ("inf", "finite"), ("1,5", "conditions.categories")]
)
def test_a_value_that_is_no_number_is_an_error(value: str, part: str, tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "band_gap": value}, ROWS[2]]
    with pytest.raises(DataError, match=part):
        load(DataConfig(source=str(write_csv(tmp_path / "set.csv", rows))), WANTED)


@pytest.mark.parametrize("missing", ["", " ", "NaN", "None", "n/a", "-"])
def test_missing_values_are_no_mistake(missing: str, tmp_path: Path) -> None:
    rows = [ROWS[0], dict.fromkeys(ROWS[1], missing), ROWS[2]]
    found = load(DataConfig(source=str(write_csv(tmp_path / "set.csv", rows))), WANTED)
    assert found.properties[1] == {"crystal_system": "tetragonal"}


def test_categories_are_the_same_however_they_are_written() -> None:
    assert {category_of(v) for v in (225, 225.0, "225", " 225.0 ", np.int64(225))} == {"225"}
    assert category_of("FM") == "FM"
    assert category_of(0.5) == "0.5"
    assert category_of(True) == "True"
    assert category_of("nan") == "nan"


def test_crystal_systems_agree_with_pymatgen() -> None:
    from pymatgen.symmetry.groups import SpaceGroup

    for number in [1, *(last + step for last, _ in SYSTEMS for step in (0, 1) if last + step <= 230)]:
        assert crystal_system(number) == SpaceGroup.from_int_number(number).crystal_system


def test_names_are_checked_when_the_configuration_is_read() -> None:
    for text in ("{scalars: [a], categories: [a]}", "{scalars: [n_atoms]}", "{categories: [formula]}"):
        with pytest.raises(ConfigError, match="named twice"):
            loads(f"conditions: {text}")


def test_the_data_stage_carries_the_columns_into_the_file(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "set.csv")
    text = f"data: {{source: '{source}'}}\nconditions: {{scalars: [band_gap], categories: [magnetism]}}"
    ctx = Context(loads(text), tmp_path / "run")
    ctx.claim()
    stage.run(ctx)
    with store.open(ctx.path("dataset.h5"), Entry) as file:
        assert [e.values for e in file] == [
            {"band_gap": 5.0, "magnetism": "NM"},
            {"band_gap": 0.0, "magnetism": "FM"},
            {},
        ]
        file.verify()
        bare = Context(loads(f"data: {{source: '{source}'}}"), tmp_path / "bare")
        bare.claim()
        stage.run(bare)
        with store.open(bare.path("dataset.h5"), Entry) as other:
            assert other.ids == file.ids  # columns change no structure's identity
            assert [e.values for e in other] == [{}, {}, {}]


def test_a_file_from_before_the_columns_is_refused_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "dataset.h5"
    store.write(path, Entry, [Entry("0" * 16, SALT, "row:1", "train")])
    with h5py.File(path, "r+") as f:
        f.attrs["schema_version"] = 1
        del f["table/properties"]
    with pytest.raises(StoreError) as caught:
        store.open(path, Entry)
    for part in ("version 1 of hpcgen.dataset", "lacks columns", "version 2", "stage `data` again"):
        assert part in str(caught.value)
