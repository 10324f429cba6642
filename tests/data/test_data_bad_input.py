"""Bad input: one clear message for a mistake, one stored failure with its row for one bad structure."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from hpcgen.config import DataConfig
from hpcgen.data import load, read
from hpcgen.data.sources import MAX_LABEL, label_of_file
from hpcgen.errors import ConfigError, DataError, Failure

ROCKSALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
GOOD = ROCKSALT.to(fmt="cif")
LITHIUM = Structure(Lattice.cubic(3.0), ["Li"], [[0, 0, 0]]).to(fmt="cif")


def table(path: Path, texts: list[str], column: str = "cif") -> str:
    lines = [f"name,{column}"] + [f'n{i},"{text}"' for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def failures(config: DataConfig) -> list[Failure]:
    return [result for _, result in read(config) if isinstance(result, Failure)]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data at .*nowhere\.csv") as info:
        load(DataConfig(source=str(tmp_path / "nowhere.csv")))
    assert info.value.exit_code == 4
    assert info.value.remedy


@pytest.mark.parametrize("name", ["a.csv", "a.extxyz", "a.db"])
def test_empty_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="is empty"):
        load(DataConfig(source=str(tmp_path / name)))


def test_empty_gzip(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt"):
        pass
    with pytest.raises(DataError, match="is empty"):
        load(DataConfig(source=str(tmp_path / "a.csv.gz")))


def test_header_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no structures"):
        load(DataConfig(source=table(tmp_path / "a.csv", [])))


def test_csv_without_cif_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column `cif`; its columns are: name, structure"):
        load(DataConfig(source=table(tmp_path / "a.csv", [GOOD], column="structure")))


def test_unknown_layout_and_folder_without_structures(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(DataError, match="no known layout"):
        load(DataConfig(source=str(tmp_path / "a.parquet")))
    with pytest.raises(DataError, match=r"no CIF or POSCAR files in .* \(1 other files\)"):
        load(DataConfig(source=str(tmp_path)))


def test_truncated_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(("name,cif\n" + f'a,"{GOOD}"\n' * 50).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load(DataConfig(source=str(tmp_path / "a.csv.gz")))


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is no SQLite file" * 100)
    with pytest.raises(DataError, match="cannot be read as an ASE database"):
        load(DataConfig(source=str(tmp_path / "a.db")))


def test_extxyz_that_loses_its_frames(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_text('1\nLattice="3 0 0 0 3 0 0 0 3"\nLi 0 0 0\nLi 1 1 1\n')
    with pytest.raises(DataError, match="frame 2 does not begin with its number of atoms"):
        load(DataConfig(source=str(tmp_path / "a.extxyz")))


PARTIAL = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]]).to(fmt="cif")
VACANT = Structure(Lattice.cubic(3), [{"Fe": 0.75}], [[0, 0, 0]]).to(fmt="cif")
OVERLAP = Structure(Lattice.cubic(4), ["Li", "F"], [[0, 0, 0], [0.01, 0, 0]]).to(fmt="cif")
FLAT = GOOD.replace("_cell_length_c   4.20000000", "_cell_length_c   0.00100000")
UNKNOWN = GOOD.replace(" Mg  Mg0 ", " Qq  Mg0 ").replace(" Mg2+  Mg0 ", " Qq  Mg0 ")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("this is no CIF", "broken-cif"),
        (GOOD[: len(GOOD) // 2], "broken-cif"),
        ("", "broken-cif"),
        (GOOD.replace("4.20000000", "abc"), "broken-cif"),
        (FLAT, "broken-cif"),
        (PARTIAL, "partial-occupancy"),
        (VACANT, "partial-occupancy"),
        (OVERLAP, "atoms-overlap"),
        (GOOD + LITHIUM, "several-structures"),
        (UNKNOWN, "inconsistent-cif"),
    ],
)
def test_one_broken_structure_among_good_ones(text: str, kind: str, tmp_path: Path) -> None:
    assert UNKNOWN != GOOD != FLAT
    got = load(DataConfig(source=table(tmp_path / "a.csv", [GOOD, text, LITHIUM])))
    assert got.labels == ["row:1", "row:3"]
    assert got.indices == [0, 2]
    assert [(f.id, f.stage, f.kind) for f in got.failures] == [("row:2", "data", kind)]
    assert got.failures[0].message


def test_limits_of_the_configuration(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", [GOOD, LITHIUM])
    (failure,) = failures(DataConfig(source=source, max_atoms=7))
    assert (failure.id, failure.kind) == ("row:1", "too-many-atoms")
    assert failure.message == "8 atoms, data.max_atoms is 7"
    (failure,) = failures(DataConfig(source=source, max_elements=1))
    assert (failure.id, failure.kind) == ("row:1", "too-many-elements")
    (failure,) = failures(DataConfig(source=source, elements=["Mg", "Li"]))
    assert (failure.id, failure.kind, failure.message) == ("row:1", "element-not-allowed", "O outside data.elements")
    assert not failures(DataConfig(source=source, elements=["Li", "Mg", "O"], max_atoms=8, max_elements=2))


def test_elements_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"data\.elements: 'Xx' no element"):
        load(DataConfig(elements=["O", "Xx"]))
    with pytest.raises(ConfigError, match=r"data\.elements is an empty list"):
        load(DataConfig(elements=[]))


def test_nothing_usable(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", ["nothing", PARTIAL, PARTIAL])
    with pytest.raises(DataError, match=r"3 of 3 structures .* unusable: 2 partial-occupancy, 1 broken-cif") as info:
        load(DataConfig(source=source, max_failures=1.0))
    assert "row:1" in str(info.value)


def test_too_many_failures(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", [GOOD, "nothing", "nothing"])
    with pytest.raises(DataError, match=r"(?s)2 of 3 .*max_failures at most 0\.5") as info:
        load(DataConfig(source=source))
    assert "2 broken-cif" in info.value.found
    assert len(load(DataConfig(source=source, max_failures=0.7)).failures) == 2


def test_one_broken_frame_file_and_entry(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_text(
        '1\nLattice="3 0 0 0 3 0 0 0 3"\nLi 0 0 0\n'
        '1\nLattice="3 0 0 0 3 0 0 0 3"\nLi 0 zero 0\n'
        '1\nLattice="3 0 0 0 3 0 0 0 3" pbc="T T F"\nLi 0 0 0\n'
        '1\nLattice="3 0 0 0 0 0 0 0 3"\nLi 0 0 0\n'
        '1\nLattice="3 0 0 0 3 0 0 0 3"\nX 0 0 0\n'
        '1\nLattice="3 0 0 0 3 0 0 0 3"\nLi nan 0 0\n'
    )
    found = [(f.id, f.kind) for f in failures(DataConfig(source=str(tmp_path / "a.extxyz")))]
    assert found == [
        ("row:2", "broken-extxyz"),
        ("row:3", "not-periodic"),
        ("row:4", "impossible-cell"),
        ("row:5", "element-not-allowed"),
        ("row:6", "impossible-cell"),
    ]
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.cif").write_text(GOOD)
    (folder / "POSCAR").write_text("broken\n1.0\n")
    (folder / "b.cif").write_bytes(b"\xff\xfe\x00")
    got = load(DataConfig(source=str(folder), max_failures=0.9))
    assert got.labels == ["file:a.cif"]
    assert [(f.id, f.kind) for f in got.failures] == [
        ("file:POSCAR", "broken-poscar"),
        ("file:b.cif", "unreadable-file"),
    ]


def test_long_names_stay_short_and_unique() -> None:
    assert label_of_file("a/b.cif") == "file:a/b.cif"
    long = [label_of_file(f"{'x' * 40}{i}/{'y' * 200}.cif") for i in range(3)]
    assert len(set(long)) == 3
    assert all(len(label) <= MAX_LABEL and label.endswith(".cif") for label in long)
