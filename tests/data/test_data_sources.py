"""The readers: every layout gives the same crystals, and the crystals keep what their contract says."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import spglib

from hpcgen.config import DataConfig
from hpcgen.crystal import Crystal, lattice_parameters, to_atoms, to_structure
from hpcgen.data import load, read, reader
from hpcgen.data.gate import right_handed
from hpcgen.errors import Failure


@pytest.fixture(scope="module")
def crystals() -> list[Crystal]:
    """One to ten atoms, cubic to triclinic, one across a cell face."""
    rng = np.random.default_rng(3)
    triclinic = rng.normal(size=(3, 3)) * 0.8 + 5 * np.eye(3)
    return [
        Crystal(np.array([[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]]), np.zeros((1, 3)), np.array([29])),
        Crystal(4.2 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17])),
        Crystal(3.9 * np.eye(3), np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2.0,
                np.array([38, 22, 8, 8, 8])),
        Crystal(triclinic, np.array([[0.98, 0.01, 0.3], [0.4, 0.55, 0.7], [0.1, 0.6, 0.1]]), np.array([3, 16, 8])),
    ]  # fmt: skip


def cif(crystal: Crystal) -> str:
    return to_structure(crystal).to(fmt="cif")


def write_csv(path: Path, texts: list[str]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", "energy"])
        writer.writerows([i, text, 0.5] for i, text in enumerate(texts))
    return path


def write_as(layout: str, folder: Path, crystals: list[Crystal]) -> Path:
    if layout in ("csv", "csv.gz"):
        return write_csv(folder / f"set.{layout}", [cif(c) for c in crystals])
    if layout == "folder":
        root = folder / "set"
        for i, c in enumerate(crystals):
            below = root / f"{i}"
            below.mkdir(parents=True)
            if i % 2:
                to_structure(c).to(fmt="poscar", filename=str(below / "POSCAR"))
            else:
                (below / "x.cif").write_text(cif(c))
        (root / "README").write_text("no structure")
        return root
    if layout == "extxyz":
        from ase.io import write

        path = folder / "set.extxyz"
        write(path, [to_atoms(c) for c in crystals], format="extxyz")
        return path
    from ase.db import connect

    path = folder / "set.db"
    with connect(str(path)) as db:
        for c in crystals:
            db.write(to_atoms(c))
    return path


def assert_same_crystal(a: Crystal, b: Crystal, tol: float = 2e-4) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    assert sorted(a.numbers) == sorted(b.numbers)
    np.testing.assert_allclose(a.parameters, b.parameters, atol=0.02)
    np.testing.assert_allclose(a.volume, b.volume, rtol=1e-4)
    rms = StructureMatcher(primitive_cell=False, scale=False).get_rms_dist(to_structure(a), to_structure(b))
    assert rms is not None
    assert rms[1] < tol


@pytest.mark.parametrize("layout", ["csv", "csv.gz", "folder", "extxyz", "db"])
def test_all_layouts_give_the_same_crystals(layout: str, tmp_path: Path, crystals: list[Crystal]) -> None:
    path = write_as(layout, tmp_path, crystals)
    got = load(DataConfig(source=str(path)))
    assert not got.failures
    assert len(got.crystals) == len(crystals)
    assert got.indices == list(range(len(crystals)))
    expected = [f"file:{i}/{'POSCAR' if i % 2 else 'x.cif'}" for i in range(len(crystals))]
    assert got.labels == (expected if layout == "folder" else [f"row:{i + 1}" for i in range(len(crystals))])
    for a, b in zip(crystals, got.crystals, strict=True):
        assert_same_crystal(a.niggli(), b)


def test_relative_source_starts_from_config_dir(tmp_path: Path, crystals: list[Crystal]) -> None:
    write_csv(tmp_path / "a.csv", [cif(crystals[0])])
    assert load(DataConfig(source="a.csv"), config_dir=tmp_path).labels == ["row:1"]


def test_source_digest_follows_the_content(tmp_path: Path, crystals: list[Crystal]) -> None:
    root = write_as("folder", tmp_path, crystals)
    config = DataConfig(source=str(root))
    before = load(config).inputs
    assert load(config).inputs == before
    (root / "0" / "x.cif").rename(root / "0" / "y.cif")
    assert load(config).inputs != before


@pytest.mark.parametrize("shear", [0, 1, 2, 3])
def test_any_basis_of_a_lattice_gives_the_same_niggli_cell(shear: int, tmp_path: Path, crystals: list[Crystal]) -> None:
    basis = [np.eye(3), [[1, 0, 0], [2, 1, 0], [0, -1, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]], -np.eye(3)][shear]
    structures = []
    for c in crystals:
        lattice = np.array(basis) @ c.lattice
        structures.append(Crystal(lattice, c.cart @ np.linalg.inv(lattice), c.numbers))
    path = write_as("extxyz", tmp_path, structures)
    for given, got in zip(crystals, load(DataConfig(source=str(path))).crystals, strict=True):
        assert_same_crystal(given.niggli(), got)
        assert np.linalg.det(got.lattice) > 0
        assert (got.frac >= 0).all()
        assert (got.frac < 1).all()
        # An independent reduction agrees.
        independent = lattice_parameters(spglib.niggli_reduce(given.lattice))
        np.testing.assert_allclose(np.sort(got.parameters[:3]), np.sort(independent[:3]), atol=1e-4)
        np.testing.assert_allclose(got.smallest_distance(), given.smallest_distance(), atol=1e-5)


def test_right_handed_moves_no_atom(crystals: list[Crystal]) -> None:
    c = crystals[3]
    left = Crystal(c.lattice[[1, 0, 2]], c.frac[:, [1, 0, 2]], c.numbers)
    got = right_handed(left)
    assert np.linalg.det(left.lattice) < 0 < np.linalg.det(got.lattice)
    shift = left.cart @ np.linalg.inv(got.lattice) - got.frac
    np.testing.assert_allclose(shift, np.rint(shift), atol=1e-12)


def test_number_of_processes_changes_nothing(
    tmp_path: Path, crystals: list[Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SERIAL", 8)
    monkeypatch.setattr(reader, "CHUNK", 4)
    texts = [cif(crystals[i % 4]) if i % 5 else "data_x\nnothing" for i in range(30)]
    config = DataConfig(source=str(write_csv(tmp_path / "a.csv", texts)))
    one, two = list(read(config, processes=1)), list(read(config, processes=2))
    assert [label for label, _ in one] == [f"row:{i + 1}" for i in range(30)] == [label for label, _ in two]
    for (_, a), (_, b) in zip(one, two, strict=True):
        if isinstance(a, Failure):
            assert a == b
        else:
            assert np.array_equal(a.frac, b.frac)
            assert np.array_equal(a.lattice, b.lattice)
            assert np.array_equal(a.numbers, b.numbers)


@pytest.mark.parametrize("name", ["perov_5_val", "carbon_24_val", "mp_20_biternary_val", "mpts_52_val"])
def test_first_rows_of_the_real_data_sets(name: str, data_folder: Path) -> None:
    config = DataConfig(source=f"data:{name}.csv.gz", max_atoms=52, max_elements=7)
    results = [result for _, (_, result) in zip(range(50), read(config), strict=False)]
    assert len(results) == 50
    assert not [r for r in results if isinstance(r, Failure)]
    crystals = [r for r in results if isinstance(r, Crystal)]
    assert min(c.smallest_distance() for c in crystals) > 0.5
    if name == "perov_5_val":
        assert {len(c) for c in crystals} == {5}
    if name == "carbon_24_val":
        assert {c.formula for c in crystals} == {"C"}
