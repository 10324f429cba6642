"""`hpcgen reference fetch` and `hpcgen reference build`, as a user calls them, and campaigns that use their files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcgen import cli, store
from hpcgen import config as configuration
from hpcgen.errors import EXIT_OK, ThermoError, UsageError
from hpcgen.flow import ReferenceEntry
from hpcgen.stages import reference
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.reference_files import build_snapshot, fetch_snapshot
from hpcgen.thermo import Hulls, ReferenceSet
from hpcgen.thermo.fetch import KEY

ENTRIES = [
    {"energy": e, "composition": c, "entry_id": n, "parameters": {"run_type": "GGA"}, "correction": 0.0, "data": d}
    for n, e, c, d in [
        ("mp-1", -3.8, {"Li": 2.0}, {}),
        ("mp-2", -9.8, {"O": 2.0}, {}),
        ("mp-3", -14.3, {"Li": 2.0, "O": 1.0}, {"oxide_type": "oxide"}),
    ]
]


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps(ENTRIES))
    return path


def test_build_by_the_command_line(entries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "mp.h5"
    assert cli.main(["reference", "build", str(entries), "-o", str(output)]) == EXIT_OK
    assert "reference: 3 in = 3 out" in capsys.readouterr().out
    made = ReferenceSet.read(output)
    assert {e.entry_id: e.energy_per_atom for e in made.entries}["mp-3"] == pytest.approx((-14.3 - 0.687) / 3)
    with store.open(output, ReferenceEntry) as f:
        assert list(json.loads(f.attrs["sha256"])) == ["entries.json"]
        assert len(json.loads(f.attrs["sha256"])["entries.json"]) == 64
        assert Balance.from_json(f.attrs["balance"]).left == 3
    assert cli.main(["reference", "build", str(entries), "-o", str(output)]) == UsageError.exit_code  # never changed
    assert "exists already" in capsys.readouterr().err


def test_a_campaign_takes_the_snapshot_and_the_entries_alike(entries: Path, tmp_path: Path) -> None:
    build_snapshot(tmp_path / "mp.h5", entries)
    energies = []
    for source in (tmp_path / "mp.h5", entries):
        folder = tmp_path / source.suffix[1:]
        folder.mkdir()
        config = configuration.loads("{}", overrides=[f"hull.reference={source}"])
        reference.run(Context(config, folder))
        energies.append([e.energy_per_atom for e in ReferenceSet.read(folder / "reference.h5").entries])
    assert energies[0] == energies[1]


def test_build_of_tables(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("formula,energy_per_atom\nLi,-1.9\nO2,-4.9\nLi2O,-4.8\n")
    build_snapshot(tmp_path / "own.h5", table, scale="my-potential")
    assert ReferenceSet.read(tmp_path / "own.h5").scale == "my-potential"
    with pytest.raises(UsageError, match="elemental entries") as caught:
        build_snapshot(tmp_path / "other.h5", table)
    assert "--scale" in caught.value.expected
    with pytest.raises(UsageError, match="no known kind"):
        build_snapshot(tmp_path / "other.h5", tmp_path / "x.txt")


class Client:
    """What of MPRester is used; the documents are those that test_thermo_entries makes of real rows."""

    def __init__(self) -> None:
        self.materials = SimpleNamespace(thermo=self)

    def search(self, **query: Any) -> list[dict[str, Any]]:
        rows = [("mp-1", {"Li": 2}, -1.9, 0.0), ("mp-2", {"O": 2}, -4.9, 0.0), ("mp-3", {"Li": 2, "O": 1}, -5.0, 0.0)]
        return [
            {
                "material_id": name,
                "thermo_type": "GGA_GGA+U",
                "composition": composition,
                "energy_per_atom": energy,
                "uncorrected_energy_per_atom": energy,
                "energy_above_hull": above,
            }
            for name, composition, energy, above in rows
            if "-".join(composition) in query["chemsys"]
        ]


def test_fetch_writes_a_snapshot_without_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "very-secret-key")
    output = tmp_path / "mp.h5"
    balance = fetch_snapshot(output, [["Li", "O"]], (Client(), "2025.09.25"))
    assert str(balance) == "reference: 3 in = 3 out"
    with store.open(output, ReferenceEntry) as f:
        assert f.attrs["database_version"] == "2025.09.25"
        assert f.attrs["agreement"] == "3 of 3 published energies above the hull come out to 1 meV/atom, none higher"
        assert (f.attrs["thermo_type"], f.attrs["correction"]) == ("GGA_GGA+U", "MaterialsProject2020Compatibility")
    assert b"very-secret-key" not in output.read_bytes()
    assert Hulls(ReferenceSet.read(output)).above({"Li": 0.5, "O": 0.5}, -4.0) > 0


def test_fetch_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv(KEY, raising=False)
    code = cli.main(["reference", "fetch", "--systems", "Li-O", "-o", str(tmp_path / "mp.h5")])
    assert code == ThermoError.exit_code
    assert KEY in capsys.readouterr().err
