"""Reference sets from files and from relaxations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hpcgen import store
from hpcgen.crystal import Crystal
from hpcgen.errors import StoreError, ThermoError
from hpcgen.flow import ReferenceEntry, Relaxation
from hpcgen.thermo import ReferenceSet, from_formation_energies, from_relaxations
from hpcgen.thermo.reference import parse_formula

ELEMENTS = {
    "Li": {"energy": -3.8, "composition": {"Li": 2.0}, "correction": 0.0},
    "O": {
        "energy": -36.0,
        "composition": {"O": 8.0},
        "correction": -3.2,
        "data": {"last_updated": {"string": "2022-06-07 22:51:00"}},
    },
}
ROWS = "material_id,formula,formation_energy_per_atom\nmp-1,Li2 O1,-2.0\nmp-2,Li2 O2,-1.5\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    table, elements = tmp_path / "ef.csv", tmp_path / "elements.json.gz"
    table.write_text(ROWS)
    elements.write_bytes(gzip.compress(json.dumps(ELEMENTS).encode()))
    return table, elements


def test_total_energies(files: tuple[Path, Path]) -> None:
    reference, failures, entered = from_formation_energies(*files, "run")
    by_id = {e.entry_id: e for e in reference.entries}
    li, o = -1.9, -4.9  # the correction of oxygen counts
    assert by_id["element:O"].energy_per_atom == pytest.approx(o, abs=1e-12)
    assert by_id["mp-1"].energy_per_atom == pytest.approx(-2.0 + (2 * li + o) / 3, abs=1e-12)
    assert by_id["mp-2"].energy_per_atom == pytest.approx(-1.5 + (li + o) / 2, abs=1e-12)
    assert [e.element for e in reference.entries] == [True, True, False, False]
    assert (entered, len(reference.entries), failures) == (4, 4, [])
    assert (reference.scale, reference.thermo_type, reference.date) == ("mp2020-gga-u", "GGA_GGA+U", "2022-06-07")
    assert "ef.csv" in reference.source
    assert len({e.id for e in reference.entries}) == 4


def test_bad_rows_are_failures(files: tuple[Path, Path]) -> None:
    table, elements = files
    table.write_text(ROWS + "mp-3,Xy2,-1\nmp-4,NaCl,-2\nmp-5,LiO,none\nmp-6,,1\nmp-7,Li,nan\nmp-8,Li3,0.1\n")
    reference, failures, entered = from_formation_energies(table, elements, "run")
    assert [(f.id, f.kind) for f in failures] == [
        ("row:3", "bad-formula"),
        ("row:4", "no-element-reference"),
        ("row:5", "bad-energy"),
        ("row:6", "bad-formula"),
        ("row:7", "bad-energy"),
    ]
    assert "Na" in failures[1].message
    assert entered == len(reference.entries) + len(failures)
    assert reference.entries[-1].entry_id == "mp-8"
    assert not reference.entries[-1].element


def test_ids_twice(files: tuple[Path, Path]) -> None:
    table, elements = files
    table.write_text(ROWS + "mp-1,Li1 O1,-1.0\n")
    with pytest.raises(ThermoError, match="mp-1"):
        from_formation_energies(table, elements, "run")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("formula,energy\nLiO,1\n", "formation_energy_per_atom"),
        ("", "no column"),
        (b"\x1f\x8bbroken", "cannot be read"),
    ],
)
def test_table_of_another_layout(files: tuple[Path, Path], content: str | bytes, match: str) -> None:
    table, elements = files
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ThermoError, match=match):
        from_formation_energies(table, elements, "run")


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{", "{}", '{"Li": {"energy": 1, "composition": {"O": 1}}}', '{"Li": 3}']
)
def test_elements_of_another_layout(files: tuple[Path, Path], content: str) -> None:
    table, elements = files
    elements.write_text(content)
    with pytest.raises(ThermoError, match=r"elements\.json"):
        from_formation_energies(table, elements, "run")


def test_missing_file(files: tuple[Path, Path]) -> None:
    with pytest.raises(ThermoError, match="no file"):
        from_formation_energies(files[0].with_name("nothing.csv"), files[1], "run")


def test_round_trip(files: tuple[Path, Path], tmp_path: Path) -> None:
    reference, failures, _ = from_formation_energies(*files, "run")
    path = tmp_path / "reference.h5"
    reference.write(path, failures=failures, attrs={"balance": "x"})
    again = ReferenceSet.read(path)
    assert [repr(e) for e in again.entries] == [repr(e) for e in reference.entries]  # NaN equals NaN
    assert (again.scale, again.thermo_type, again.date, again.source) == (
        reference.scale,
        reference.thermo_type,
        reference.date,
        reference.source,
    )
    assert again.digest == reference.digest


def test_digest_follows_energies_and_scale_only(files: tuple[Path, Path]) -> None:
    reference, _, _ = from_formation_energies(*files, "run")
    same = ReferenceSet(reference.entries, reference.scale, reference.thermo_type, "2030-01-01", "elsewhere")
    assert same.digest == reference.digest
    other = ReferenceSet(reference.entries, "chgnet-mp2020", reference.thermo_type, reference.date, reference.source)
    assert other.digest != reference.digest
    e = reference.entries[0]
    changed = ReferenceEntry(e.id, e.entry_id, e.formula, e.energy_per_atom + 1e-9, e.element)
    entries = (changed, *reference.entries[1:])
    other = ReferenceSet(entries, reference.scale, reference.thermo_type, reference.date, reference.source)
    assert other.digest != reference.digest


def test_files_that_are_no_reference(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        ReferenceSet.read(files[0])
    bare = tmp_path / "bare.h5"
    store.write(bare, ReferenceEntry, [])
    with pytest.raises(ThermoError, match="does not say its scale"):
        ReferenceSet.read(bare)
    reference, _, _ = from_formation_energies(*files, "run")
    relabelled = tmp_path / "relabelled.h5"
    reference.write(relabelled, attrs={"scale": "chgnet-mp2020"})
    with pytest.raises(ThermoError, match="not those that were written"):
        ReferenceSet.read(relabelled)


def relaxation(numbers: list[int], energy: float, scale: str = "s") -> Relaxation:
    n = len(numbers)
    frac = np.column_stack([np.arange(n) / n, np.zeros(n), np.zeros(n)])
    crystal = Crystal(np.eye(3) * 4, frac, np.array(numbers))
    return Relaxation(
        "0" * 16,
        crystal,
        "1" * 16,
        energy,
        energy,
        0.0,
        0.0,
        0.0,
        1,
        True,
        "potential",
        scale,
        "digest",
        0.0,
        np.zeros((n, 3)),
        np.zeros((3, 3)),
    )


def test_from_relaxations() -> None:
    items = [
        ("Li bcc", relaxation([3], -1.8)),
        ("Li hcp", relaxation([3, 3], -3.9)),
        ("O2", relaxation([8, 8], -9.8)),
        ("Li2O", relaxation([3, 3, 8], -14.0)),
    ]
    reference = from_relaxations(items, "s", "potential 1", "2026-01-01", "by hand", "run")
    assert [(e.entry_id, e.formula, e.element) for e in reference.entries] == [
        ("Li bcc", "Li1", False),
        ("Li hcp", "Li2", True),
        ("O2", "O2", True),
        ("Li2O", "Li2 O1", False),
    ]
    assert reference.entries[3].energy_per_atom == pytest.approx(-14 / 3)
    with pytest.raises(ThermoError, match="other"):
        from_relaxations([*items, ("x", relaxation([3], -1.0, "other"))], "s", "p", "", "", "run")
    with pytest.raises(ThermoError, match="Li bcc"):
        from_relaxations([*items, items[0]], "s", "p", "", "", "run")


@pytest.mark.parametrize(
    ("text", "fractions"),
    [
        ("Ti2 O4", {"Ti": 1 / 3, "O": 2 / 3}),
        ("TiO2", {"Ti": 1 / 3, "O": 2 / 3}),
        ("Ca(OH)2", {"Ca": 0.2, "O": 0.4, "H": 0.4}),
        ("Li0.5 O0.5", {"Li": 0.5, "O": 0.5}),
        (" NaClNa ", {"Na": 2 / 3, "Cl": 1 / 3}),
    ],
)
def test_formulas(text: str, fractions: dict[str, float]) -> None:
    assert parse_formula(text) == pytest.approx(fractions)


@pytest.mark.parametrize("text", ["", "Xx2", "123", "NaCl?", "na2", "Li0"])
def test_no_formulas(text: str) -> None:
    with pytest.raises(ValueError, match="no formula"):
        parse_formula(text)
