from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.db import connect
from ase.io import read
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

import hpcgen
from hpcgen import cli, config, provenance, store
from hpcgen.analysis import FORMATS, export
from hpcgen.crystal import from_atoms, to_structure
from hpcgen.errors import UsageError
from hpcgen.flow import Stability

SAME = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, primitive_cell=False, scale=False)


@pytest.fixture
def run(run_folder):
    with hpcgen.open(run_folder) as run:
        yield run


def test_folders_hold_the_same_crystals(run, tmp_path):
    wanted = [to_structure(c) for c in run.crystals()]
    for form, suffix in (("cif", ".cif"), ("poscar", ".vasp")):
        out = tmp_path / form
        assert export(run, form, out) == 13
        files = sorted(out.iterdir())
        assert len(files) == 13
        assert all(f.suffix == suffix for f in files)
        for file, structure, name in zip(files, wanted, run.crystals().ids, strict=True):
            assert name in file.name
            text = file.read_text()
            found = Structure.from_str(text, fmt="cif" if form == "cif" else "poscar")
            assert SAME.fit(found, structure)
            if form == "poscar":
                assert len(text.splitlines()[5].split()) == len(structure.composition)  # one block an element


def test_extxyz_reads_back_with_energies_and_columns(run, tmp_path):
    export(run, "extxyz", tmp_path / "all.extxyz")
    table = run.table("stability")
    images = read(tmp_path / "all.extxyz", ":")
    assert [a.info["id"] for a in images] == [f"hpcgen-{i}" for i in table.index]
    for atoms, (_, row), crystal in zip(images, table.iterrows(), run.crystals(), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(row.energy_per_atom * len(atoms))
        assert atoms.info["e_hull"] == pytest.approx(row.e_hull)
        assert bool(atoms.info["novel"]) == row.novel
        assert atoms.info["decomposition"] == row.decomposition
        assert ("duplicate_of" in atoms.info) == bool(row.duplicate_of)  # an empty text would swallow the next key
        np.testing.assert_allclose(from_atoms(atoms).lattice, crystal.lattice, atol=1e-6)


def test_relaxations_carry_forces_and_stress(run, tmp_path):
    export(run, "extxyz", tmp_path / "relaxed.extxyz", table="relaxed-mlip")
    (first, *_) = read(tmp_path / "relaxed.extxyz", ":")
    energy = run.table("relaxed-mlip", ["energy"])["energy"].iloc[0]
    assert first.get_potential_energy() == pytest.approx(energy)
    assert first.get_forces().shape == (len(first), 3)
    assert first.get_stress(voigt=False).shape == (3, 3)


def test_ase_database(run, tmp_path):
    export(run, "ase", tmp_path / "all.db", flags=("unique", "novel"), max_e_hull=0.1)
    table = run.table("stability").query("unique and novel and e_hull <= 0.1")
    with connect(tmp_path / "all.db") as database:
        rows = list(database.select())
        assert {r.identity for r in rows} == {f"hpcgen-{i}" for i in table.index}
        for row in rows:
            stored = table.loc[row.identity.removeprefix("hpcgen-")]
            assert row.e_hull == pytest.approx(stored.e_hull)
            assert row.data["decomposition"] == stored.decomposition
        assert len(list(database.select("e_hull<0.06"))) == (table.e_hull < 0.06).sum()


def test_lemat_csv_is_what_its_reader_wants(run, tmp_path):
    """A row a structure, column `structure`, JSON of a pymatgen dictionary; everything generated, not what survived."""
    export(run, "lemat", tmp_path / "lemat.csv")
    with (tmp_path / "lemat.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["material_id"] for r in rows] == run.crystals("candidates").ids
    for row, crystal in zip(rows, run.crystals("candidates"), strict=True):
        found = Structure.from_dict(json.loads(row["structure"]))
        assert found == to_structure(crystal)


def test_cdvae_file_as_its_metrics_take_it_apart(run, tmp_path):
    export(run, "cdvae", tmp_path / "eval_gen.pt")
    data = torch.load(tmp_path / "eval_gen.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) and len(v) == 1 for v in data.values())
    frac, types, lengths, angles, counts = (
        data[k][0] for k in ("frac_coords", "atom_types", "lengths", "angles", "num_atoms")
    )
    assert len(frac) == len(types) == counts.sum()
    start = 0
    for i, crystal in enumerate(run.crystals("candidates")):
        atoms = slice(start, start := start + int(counts[i]))
        lattice = Lattice.from_parameters(*lengths[i].tolist(), *angles[i].tolist())
        found = Structure(lattice, types[atoms].tolist(), frac[atoms].numpy())
        assert SAME.fit(found, to_structure(crystal))


def test_nothing_is_overwritten_and_mistakes_are_named(run, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        export(run, "cif", tmp_path / "there")
    with pytest.raises(UsageError, match="extxyz"):
        export(run, "xyz", tmp_path / "x")
    with pytest.raises(UsageError, match="left to write"):
        export(run, "cif", tmp_path / "x", max_e_hull=-9)
    with pytest.raises(UsageError, match="e_hull"):
        export(run, "cif", tmp_path / "x", table="dataset", max_e_hull=0)
    with pytest.raises(UsageError, match="formula"):
        export(run, "cif", tmp_path / "x", flags=("formula",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


def test_a_failed_export_leaves_nothing(run, tmp_path, monkeypatch):
    def broken(path, items):
        path.mkdir()
        raise RuntimeError("disk")

    monkeypatch.setitem(FORMATS, "cif", type(FORMATS["cif"])(broken, "stability", ""))
    with pytest.raises(RuntimeError):
        export(run, "cif", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_command(run, run_folder, tmp_path, capsys):
    out = tmp_path / "cifs"
    assert cli.main(["export", str(run_folder), "--format", "cif", "-o", str(out), "--novel", "--converged"]) == 0
    joined = run.joined().query("novel and converged")
    assert len(list(out.iterdir())) == len(joined)
    assert f"{len(joined)} crystals" in capsys.readouterr().out
    assert cli.main(["export", str(run_folder), "--format", "cif", "-o", str(out)]) == UsageError.exit_code


def test_what_lies_implausibly_low_is_pointed_out(run_folder, tmp_path, caplog):
    with store.open(run_folder / "stability.h5") as f:
        records = list(f)
    records[3] = replace(records[3], e_hull=-0.9)
    folder = tmp_path / "run"
    folder.mkdir()
    store.write(folder / "stability.h5", Stability, records, header=provenance.header(config.loads("{name: x}"), {}))
    with hpcgen.open(folder) as run:
        assert export(run, "extxyz", tmp_path / "a.extxyz", max_e_hull=0.1) > 1
        assert "1 of the crystals written" in caplog.text
