from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write

from hpcgen import store
from hpcgen.crystal import Crystal, from_atoms, to_atoms, to_structure
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.sources import read_set, read_sets
from hpcgen.flow import Entry

SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
COPPER = from_atoms(bulk("Cu"))
CLOSE = Crystal(np.eye(3) * 3, [[0, 0, 0], [0.01, 0, 0]], np.array([29, 29]))


def tensors(crystals: list[Crystal], evaluations: int = 1) -> dict:
    parts = {
        "frac_coords": np.concatenate([c.frac for c in crystals]),
        "atom_types": np.concatenate([c.numbers for c in crystals]).astype(np.int64),
        "lengths": np.array([c.parameters[:3] for c in crystals]),
        "angles": np.array([c.parameters[3:] for c in crystals]),
        "num_atoms": np.array([len(c) for c in crystals]),
    }
    return {key: torch.tensor(np.array([value] * evaluations)) for key, value in parts.items()}


def test_a_folder_of_cifs_keeps_what_is_broken_and_what_is_impossible(tmp_path):
    to_structure(SALT).to(str(tmp_path / "a.cif"), fmt="cif")
    (tmp_path / "b.cif").write_text("data_nothing\n")
    to_structure(CLOSE).to(str(tmp_path / "c.cif"), fmt="cif")
    found = read_set(tmp_path)
    assert found.labels == ["file:a.cif", "file:b.cif", "file:c.cif"]
    assert [isinstance(i, Failure) for i in found.items] == [False, True, False]
    assert len(found.items[2]) == 2  # atoms 0.03 angstrom apart are for the metric to judge
    assert found.failures[0].stage == "evaluate"


def test_extxyz_is_not_reduced(tmp_path):
    double = from_atoms(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    write(tmp_path / "made.extxyz", [to_atoms(double), to_atoms(COPPER)], format="extxyz")
    found = read_set(tmp_path / "made.extxyz")
    assert [len(c) for c in found.crystals] == [8, 1]
    np.testing.assert_allclose(found.crystals[0].frac, double.frac, atol=1e-7)


@pytest.mark.parametrize("evaluations", [1, 3])
def test_cdvae_layout(tmp_path, evaluations):
    file = tmp_path / "eval_gen.pt"
    torch.save({**tensors([SALT, COPPER], evaluations), "eval_setting": argparse.Namespace(n=2), "time": 1.5}, file)
    sets = read_sets(file)
    assert len(sets) == evaluations
    for s in sets:
        assert [c.formula for c in s.crystals] == ["NaCl", "Cu"]
        assert s.crystals[0].volume == pytest.approx(SALT.volume)
        np.testing.assert_allclose(s.crystals[0].frac, SALT.frac)


def test_diffcsp_layout_has_no_first_dimension(tmp_path):
    torch.save({key: value[0] for key, value in tensors([SALT, COPPER]).items()}, tmp_path / "x.pt")
    assert [c.formula for c in read_set(tmp_path / "x.pt").crystals] == ["NaCl", "Cu"]


def test_cells_that_do_not_close_are_failures(tmp_path):
    parts = tensors([SALT, COPPER])
    parts["angles"][0, 1] = torch.tensor([170.0, 170.0, 170.0])
    torch.save(parts, tmp_path / "x.pt")
    found = read_set(tmp_path / "x.pt")
    assert (found.items[1].id, found.items[1].kind) == ("row:2", "impossible-cell")


class Danger:
    """A file that runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_code_in_a_pt_file_is_refused(tmp_path, capsys):
    torch.save({**tensors([SALT]), "input_data_batch": Danger()}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="cannot be read safely"):
        read_sets(tmp_path / "x.pt")
    assert "code was run" not in capsys.readouterr().out


def test_tensors_that_do_not_fit(tmp_path):
    parts = tensors([SALT, COPPER])
    torch.save({k: v for k, v in parts.items() if k != "angles"}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="no angles"):
        read_sets(tmp_path / "a.pt")
    torch.save({**parts, "lengths": parts["lengths"][:, :1]}, tmp_path / "b.pt")
    with pytest.raises(DataError, match="lengths has the shape"):
        read_sets(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"not torch")
    with pytest.raises(DataError, match="cannot be read safely"):
        read_sets(tmp_path / "c.pt")


def test_hdf5_counts_its_failures(tmp_path):
    entries = [Entry("0" * 16, SALT, "row:1", "train"), Entry("1" * 16, COPPER, "row:2", "test")]
    lost = Failure("row:3", "data", "broken-cif", "no text")
    store.write(tmp_path / "dataset.h5", Entry, entries, failures=[lost], header={})
    found = read_set(tmp_path / "dataset.h5")
    assert found.labels == ["row:1", "row:2", "row:3"]
    assert (len(found.crystals), found.failures[0].kind) == (2, "broken-cif")


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nothing at"):
        read_sets(tmp_path / "no")
    (tmp_path / "empty.extxyz").write_text("\n")
    with pytest.raises(DataError, match="no structures"):
        read_set(tmp_path / "empty.extxyz")
