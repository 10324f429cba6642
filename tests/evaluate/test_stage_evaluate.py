from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from hpcgen import cli, store
from hpcgen.crystal import Crystal, from_atoms, to_atoms, to_structure
from hpcgen.errors import Failure
from hpcgen.evaluate.table import flat, line, plain, table
from hpcgen.flow import Candidate, Relaxation, Stability

SALTS = [("NaCl", 5.64), ("LiF", 4.03), ("MgO", 4.21), ("KCl", 6.29), ("CaO", 4.81)]


def crystals(strain: float = 0.0) -> list[Crystal]:
    return [from_atoms(bulk(name, "rocksalt", a=a * (1 + strain))) for name, a in SALTS]


def write_csv(path: Path, rows: list[Crystal]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif"])
        for i, c in enumerate(rows):
            writer.writerow([i, to_structure(c).to(fmt="cif")])
    return path


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HPCGEN_CACHE", str(tmp_path / "cache"))
    write_csv(tmp_path / "mp_test.csv", crystals())
    write_csv(tmp_path / "train.csv", [crystals()[0], from_atoms(bulk("Cu"))])
    write(tmp_path / "made.extxyz", [to_atoms(c) for c in crystals(0.01)], format="extxyz")
    return tmp_path


def run(folder: Path, what: str, *arguments: str) -> dict:
    known = ("--reference", str(folder / "mp_test.csv"), "--processes", "1", "-o", str(folder / "out"))
    assert cli.main(["evaluate", what, *known, *arguments]) == 0
    return json.loads((folder / "out" / f"evaluation-{what}.json").read_text())


def test_dry_run_does_nothing(files, capsys):
    command = ["evaluate", "csp", "--reference", "nowhere.csv", "--dry-run", "-o", str(files / "out"), "made.extxyz"]
    assert cli.main(command) == 0
    assert "would run: made.extxyz" in capsys.readouterr().out
    assert not (files / "out").exists()


def test_mistakes_have_exit_codes(files):
    made, reference = str(files / "made.extxyz"), str(files / "mp_test.csv")
    assert cli.main(["evaluate", "csp", "--reference", reference, "--processes", "0", made]) == 2
    assert cli.main(["evaluate", "csp", "--reference", reference, "-o", f"{made}/below-a-file", made]) == 2
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    assert cli.main(["evaluate", "csp", "--reference", reference, "--processes", "1", str(files / "no")]) == 4
    both = ["--own-split", "--training", reference]
    assert cli.main(["evaluate", "csp", "--reference", reference, "--processes", "1", *both, made]) == 4


def test_without_matminer_it_says_what_to_install(files, monkeypatch, capsys):
    import importlib.metadata

    from hpcgen.evaluate import fingerprint

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(fingerprint, "version", missing)
    command = ["evaluate", "generation", "--reference", str(files / "mp_test.csv"), str(files / "made.extxyz")]
    assert cli.main(command) == 11
    assert "pip install 'hpcgen[evaluate]'" in capsys.readouterr().err


def test_predictions_paired_with_rows(files, capsys):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    found = run(files, "csp", "--training", str(files / "train.csv"), str(files / "made.extxyz"))
    (numbers,) = [s["numbers"] for s in found["sets"]]
    assert numbers["match_rate_all"] == numbers["metre"] == 1.0
    assert numbers["rmse_all"] == pytest.approx(0, abs=1e-6)
    assert numbers["formula_in_training"]["rows"] == 1
    assert numbers["formula_new"]["rows"] == 4
    assert found["training_rows"]["metre"] == 0.2  # the training rows know one of the five
    assert found["training_rows"]["crmse"] == pytest.approx(0.8 * 0.5)
    assert found["reference"]["rows"] == 5
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metre"] == 1.0


def test_sets_of_another_length_get_metre_alone(files):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    write(files / "few.extxyz", [to_atoms(c) for c in crystals()[:2]], format="extxyz")
    found = run(files, "csp", str(files / "few.extxyz"), str(files / "made.extxyz"))
    assert found["sets"][0]["numbers"] == {"metre": 0.4, "crmse": pytest.approx(0.3)}
    assert found["mean"]["metre"] == pytest.approx(0.7)
    assert "match_rate_all" not in found["mean"]


def test_a_broken_prediction_is_a_row_without_match(files):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    folder = files / "cifs"
    folder.mkdir()
    for i, c in enumerate(crystals()):
        to_structure(c).to(str(folder / f"{i}.cif"), fmt="cif")
    (folder / "3.cif").write_text("data_\n")
    found = run(files, "reconstruction", str(folder))
    assert found["mean"]["match_rate_all"] == 0.8
    assert found["sets"][0]["failures"] == {"broken-cif": 1}


def test_generation_of_the_reference_itself_is_perfect(files):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    found = run(files, "generation", "--training", str(files / "train.csv"), str(files / "mp_test.csv"))
    mean = found["mean"]
    assert mean["validity"] == mean["coverage"]["cdvae"]["cov_r"] == mean["coverage"]["cdvae"]["cov_p"] == 1.0
    assert mean["emd_density"] == mean["emd_elements"] == 0.0
    assert mean["unique"] == 1.0
    assert mean["novel"] == 0.8  # sodium chloride is a training row
    assert found["ceiling"]["n"] == 2
    assert found["definitions"]["coverage_thresholds"] == "those of mp"
    assert list((files / "cache").glob("*.npz"))


def test_several_sets_are_also_one(files):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    for name, rows in (("a", [0, 1]), ("b", [2, 3, 4])):
        write(files / f"{name}.extxyz", [to_atoms(crystals(0.01)[i]) for i in rows], format="extxyz")
    training = ("--training", str(files / "train.csv"))
    found = run(files, "generation", *training, str(files / "a.extxyz"), str(files / "b.extxyz"))
    whole = run(files, "generation", *training, str(files / "made.extxyz"))
    assert found["together"] == whole["sets"][0]["numbers"]
    assert found["together"]["coverage"]["cdvae"]["cov_r"] == 1.0 > found["mean"]["coverage"]["cdvae"]["cov_r"]
    assert found["ceiling_together"]["n"] == 2  # training rows
    assert "together" not in whole


def test_own_split_takes_every_fifth_row(files):
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    found = run(files, "csp", "--own-split", str(files / "made.extxyz"))
    assert (found["reference"]["rows"], found["training"]["rows"]) == (1, 4)
    assert found["mean"]["metre"] == 1.0


@pytest.mark.slow
def test_sun_by_the_potential(files):
    pytest.importorskip("chgnet", reason="the extra `mlip` is not installed")
    elements = {
        symbol: {"composition": {symbol: 1.0}, "energy": 0.0, "correction": 0.0}
        for symbol in ("Na", "Cl", "Li", "F", "Mg", "O", "K", "Ca")
    }
    (files / "elements.json").write_text(json.dumps(elements))
    (files / "hull.csv").write_text("formula,formation_energy_per_atom\nNa1 Cl1,-99\n")
    hull = ("--hull", str(files / "hull.csv"), "--elements", str(files / "elements.json"))
    found = run(files, "sun", "--training", str(files / "train.csv"), *hull, str(files / "made.extxyz"))
    mean = found["mean"]
    # against elements at zero everything bound is stable; sodium chloride is known, and far above the invented entry
    assert (mean["sun"], mean["stable"], mean["novel"], mean["unique"]) == (0.8, 0.8, 0.8, 1.0)
    assert found["definitions"]["label"] == "screening"
    assert found["definitions"]["potential"].startswith("CHGNet")


@pytest.mark.slow
def test_energies_by_the_potential(files):
    pytest.importorskip("chgnet", reason="the extra `mlip` is not installed")
    pytest.importorskip("matminer", reason="the extra `evaluate` is not installed")
    made, training = str(files / "made.extxyz"), ("--training", str(files / "train.csv"))
    found = run(files, "csp", *training, "--distances", made)
    distances = found["mean"]["distances"]
    assert distances["energy"]["rows"] == distances["crystalnn"]["rows"] == 5
    assert 0 < distances["energy"]["median"] < 0.1  # strained by one percent
    found = run(files, "generation", *training, "--energy", made)
    assert found["mean"]["emd_energy_eV"] == pytest.approx(distances["energy"]["mean"], abs=0.05)
    assert found["mean"]["energy_failed"] == 0
    assert found["mean"]["median_max_force_eV_A"] == pytest.approx(0, abs=0.01)  # by symmetry
    assert found["ceiling"]["emd_energy_eV"] > 1  # copper and one salt against five salts


def test_sun_of_a_run_folder_counts_everything_that_was_asked_for(files):
    """Four candidates and a failed sample; two were screened out, one of the others is stable, unique and novel."""
    folder = files / "run"
    folder.mkdir()
    ids = [f"{i:016x}" for i in range(4)]
    built = [
        Candidate(i, c, i, "toy", 0.0, 1, "converged", 1.0, "", 0.0, "", 1.0, np.zeros(1), 0.0)
        for i, c in zip(ids, crystals(), strict=False)
    ]
    relaxed = [
        Relaxation(
            i, c, i, -9.0, -8.0, 0.0, 0.0, 0.1, 3, done, "toy 1", "toy", "d", 0.0, np.zeros((2, 3)), np.zeros((3, 3))
        )
        for i, c, done in zip(ids[:2], crystals(), (True, False), strict=False)
    ]
    judged = [
        Stability(i, c, i, i, c.formula, 225, -4.5, -1.0, e, 0.0, "", 3, "toy", "toy", "d", "screening", True, "", new)
        for i, c, e, new in zip(ids[:2], crystals(), (0.05, 0.01), (True, False), strict=False)
    ]
    lost = [Failure("f" * 16, "sample", "not-finite", "the sample is not finite")]
    store.write(folder / "candidates.h5", Candidate, built, failures=lost, attrs={"names_residual_blocks": ["rdf"]})
    store.write(folder / "relaxed-mlip.h5", Relaxation, relaxed, attrs={"calculator": "toy 1"})
    attrs = {"source": "by hand", "reference_digest": "d", "label": "screening"}
    store.write(folder / "stability.h5", Stability, judged, attrs=attrs)
    found = run(files, "sun", str(folder))
    mean = found["mean"]
    assert (mean["n"], mean["sun"], mean["stable"], mean["novel"], mean["not_converged"]) == (5, 0.2, 0.4, 0.2, 1)
    assert found["sets"][0]["failures"] == {"not-finite": 1}
    assert (found["definitions"]["potential"], found["definitions"]["label"]) == ("toy 1", "screening")


def test_table_and_json():
    columns = {"one": {"a": 0.5, "a_spread": 0.25, "deep": {"b": 3}}, "two": {"a": float("nan"), "c": None}}
    rows = table(columns).splitlines()
    assert rows[0].split() == ["one", "two"]
    assert rows[1].split() == ["a", "0.5000", "±", "0.2500", "-"]
    assert rows[2].split() == ["deep.b", "3", "-"]
    assert flat(columns["one"])["deep.b"] == 3
    assert plain({"x": [float("inf"), np.pi]})["x"] == [None, np.pi]
    assert json.loads(line(columns["two"])) == {"a": None, "c": None}
