"""Reference sets from files of ComputedEntries, from tables of energies, and from the Materials Project's API."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Composition

from hpcgen.errors import DependencyError, ThermoError
from hpcgen.thermo import ReferenceSet, from_energies, scales
from hpcgen.thermo.entries import from_computed_entries
from hpcgen.thermo.fetch import FIELDS, KEY, check_systems, connect, fetch

POTCARS = {
    "Li": "PAW_PBE Li_sv 10Sep2004",
    "O": "PAW_PBE O 08Apr2002",
    "Ni": "PAW_PBE Ni_pv 06Sep2000",
    "S": "PAW_PBE S 06Sep2000",
}


def entry(name: str, formula: str, energy: float, **changes: Any) -> dict[str, Any]:
    """A ComputedEntry as a dict, as pymatgen writes it."""
    amounts = {s: float(n) for s, n in Composition(formula).get_el_amt_dict().items()}
    u = {"Ni": 6.2} if "Ni" in amounts and len(amounts) > 1 else {}
    parameters = {"run_type": "GGA+U" if u else "GGA", "hubbards": u, "potcar_symbols": [POTCARS[s] for s in amounts]}
    tree = {"energy": energy, "composition": amounts, "entry_id": name, "correction": 0.0, "parameters": parameters}
    return {**tree, "data": {"oxide_type": "oxide", "last_updated": "2023-02-0" + str(len(formula))}, **changes}


ENTRIES = [entry("a", "Li2", -3.8), entry("b", "O2", -9.8), entry("c", "Ni", -5.5), entry("d", "Ni2O2", -20.0)]


def write(path: Path, tree: Any) -> Path:
    text = tree if isinstance(tree, str) else json.dumps(tree)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def corrected_nickel_oxide() -> dict[str, Any]:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

    done = MaterialsProject2020Compatibility().process_entry(ComputedEntry.from_dict(ENTRIES[3]))
    return json.loads(json.dumps(done.as_dict(), default=str))


@pytest.mark.parametrize(
    "layout",
    [
        lambda e: e,
        lambda e: {x["entry_id"]: x for x in e},
        lambda e: {"material_id": {str(i): x["entry_id"] for i, x in enumerate(e)}, "entry": dict(enumerate(e))},
        lambda e: {"material_id": [x["entry_id"] for x in e], "entry": e},
        lambda e: [{"material_id": x["entry_id"], "computed_structure_entry": x} for x in e],
        lambda e: "\n".join(json.dumps({"material_id": x["entry_id"], "entry": x}) for x in e),
    ],
    ids=["list", "by-id", "pandas-columns", "columns", "rows", "lines"],
)
def test_layouts(tmp_path: Path, layout) -> None:
    made, failures, entered = from_computed_entries(write(tmp_path / "e.json.gz", layout(ENTRIES)), "x")
    assert failures == []
    assert entered == len(made.entries) == 4
    by_id = {e.entry_id: e for e in made.entries}
    oxide = by_id["d"]
    assert oxide.uncorrected_energy_per_atom == -5.0
    assert oxide.energy_per_atom == pytest.approx((-20.0 - 2 * 3.228) / 4, abs=1e-3)  # U of Ni and the oxide
    assert by_id["b"].energy_per_atom == -4.9
    assert [e.entry_id for e in made.entries if e.element] == ["a", "b", "c"]
    assert (made.scale, made.thermo_type, made.correction) == (scales.MP2020, "GGA_GGA+U", scales.MP2020_SCHEME)
    assert made.date == "2023-02-05"


def test_corrected_entries_are_not_corrected_again(tmp_path: Path) -> None:
    raw, _, _ = from_computed_entries(write(tmp_path / "raw.json", ENTRIES), "x")
    done, failures, _ = from_computed_entries(
        write(tmp_path / "done.json", [*ENTRIES[:3], corrected_nickel_oxide()]), "x"
    )
    assert failures == []
    assert [e.energy_per_atom for e in done.entries] == pytest.approx([e.energy_per_atom for e in raw.entries])


def test_what_cannot_be_on_the_scale_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    bad = [
        entry("nothing", "NiO", -10.0, correction=-3.0),
        entry("no-u", "NiO", -10.0, parameters={**ENTRIES[3]["parameters"], "hubbards": {}}),
        entry("sulfate?", "Li2SO4", -40.0),  # sulfide or not: that takes a structure
        entry("broken", "NiO", float("nan")),
        {"energy": -1.0, "composition": {"Xy": 1}, "entry_id": "unknown-element"},
    ]
    made, failures, entered = from_computed_entries(write(tmp_path / "e.json", [*ENTRIES, *bad]), "x")
    assert {f.id: f.kind for f in failures} == {
        "nothing": "other-correction",
        "no-u": "wrong-u",
        "sulfate?": "no-structure",
        "broken": "bad-entry",
        "unknown-element": "bad-entry",
    }
    assert entered == len(made.entries) + len(failures)


def test_mixed_thermo_types(tmp_path: Path) -> None:
    other = entry("r", "NiO", -30.0, parameters={"run_type": "R2SCAN"})
    with pytest.raises(ThermoError, match=r"mixes thermo types: .*1 R2SCAN") as caught:
        from_computed_entries(write(tmp_path / "e.json", [*ENTRIES, other]), "x")
    assert "GGA_GGA+U" in caught.value.remedy


def test_missing_element_and_its_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", [*ENTRIES[1:], entry("e", "Li2O", -14.0)])
    with pytest.raises(ThermoError, match="compounds of Li, but no entry") as caught:
        from_computed_entries(path, "x")
    assert "--elements" in caught.value.remedy
    elements = write(tmp_path / "elements.json", {"Li": ENTRIES[0], "O": ENTRIES[1]})
    made, _, entered = from_computed_entries(path, "x", elements=elements)
    assert [e.entry_id for e in made.entries][-1] == "element:Li"  # oxygen was there
    assert entered == 5


def test_same_id_twice(tmp_path: Path) -> None:
    with pytest.raises(ThermoError, match="more than once: d"):
        from_computed_entries(write(tmp_path / "e.json", [*ENTRIES, ENTRIES[3]]), "x")


def test_own_energies_of_a_calculator(tmp_path: Path) -> None:
    made, _, _ = from_computed_entries(write(tmp_path / "e.json", ENTRIES), "x", scale="my-potential")
    assert (made.scale, made.correction) == ("my-potential", "")
    assert {e.entry_id: e.energy_per_atom for e in made.entries}["d"] == -5.0
    table = tmp_path / "t.csv"
    table.write_text("material_id,formula,energy_per_atom\na,Li,-1.9\nb,O2,-4.9\nc,Li2O,-4.8\nd,Li2O,?\n")
    made, failures, entered = from_energies(table, "my-potential", "x")
    assert [(e.entry_id, e.energy_per_atom, e.element) for e in made.entries] == [
        ("a", -1.9, True),
        ("b", -4.9, True),
        ("c", -4.8, False),
    ]
    assert (entered, [f.kind for f in failures]) == (4, ["bad-energy"])


@pytest.mark.parametrize("tree", ["no json", "[]", "[1]", '{"a": 1}', '{"e": {"energy": 1}}'])
def test_other_files(tmp_path: Path, tree: str) -> None:
    with pytest.raises(ThermoError, match=r"e\.json"):
        from_computed_entries(write(tmp_path / "e.json", tree), "x")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    """The first page of an LMDB file, as MatterGen gives its references out."""
    page = bytes(16) + (0xBEEFC0DE).to_bytes(4, "little") + bytes(4076)
    for name, data in (("r.gz", gzip.compress(page)), ("r.json", page)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ThermoError, match="pickles") as caught:
            from_computed_entries(tmp_path / name, "x")
        assert "MatterGen is installed" in caught.value.remedy


class Recorded:
    """Answers as the API does: documents of the asked chemical systems, of the real rows of a file."""

    def __init__(self, data_folder: Path) -> None:
        elements = json.loads(
            gzip.decompress((data_folder / "mp_elemental_reference_entries_2023-02-07.json.gz").read_bytes())
        )
        self.elements = {
            s: (e["energy"] + e["correction"]) / sum(e["composition"].values()) for s, e in elements.items()
        }
        self.documents = [self.document(f"mp-e{s}", {s: 1.0}, 0.0, 0.0) for s in self.elements]
        with gzip.open(data_folder / "mp_formation_energies.csv.gz", "rt") as f:
            for row in csv.DictReader(f):
                if row["dataset"] == "mp_20_biternary":
                    amounts = Composition(row["formula"]).get_el_amt_dict()
                    energies = float(row["formation_energy_per_atom"]), float(row["e_above_hull"])
                    self.documents.append(self.document(row["material_id"], amounts, *energies))
        self.queries: list[dict[str, Any]] = []

    def document(self, name: str, amounts: dict[str, float], formation: float, above: float) -> dict[str, Any]:
        total = sum(amounts.values())
        energy = formation + sum(n / total * self.elements[s] for s, n in amounts.items())
        return {
            "material_id": name,
            "thermo_type": "GGA_GGA+U",
            "composition": amounts,
            "energy_per_atom": energy,
            "uncorrected_energy_per_atom": energy + 0.1,
            "energy_above_hull": above,
            "deprecated": False,
            "last_updated": "2024-12-01T00:00:00",
        }

    def search(self, **query: Any) -> list[dict[str, Any]]:
        assert query["thermo_types"] == ["GGA_GGA+U"]
        assert query["fields"] == FIELDS
        self.queries.append(query)
        wanted = query.get("chemsys")
        found = [d for d in self.documents if wanted is None or "-".join(sorted(d["composition"])) in wanted]
        return found[::-1]


@pytest.fixture(scope="module")
def api(data_folder: Path) -> Recorded:
    return Recorded(data_folder)


def test_fetch_of_chemical_systems(api: Recorded, tmp_path: Path) -> None:
    made, failures, entered, agreement = fetch(api, "2025.09.25", [["Li", "O", "Ti"], ["Mg", "O"]], "x")
    assert failures == []
    assert entered == len(made.entries)
    assert sorted(api.queries[-1]["chemsys"]) == sorted(
        ["Li", "O", "Ti", "Mg", "Li-O", "Li-Ti", "O-Ti", "Mg-O", "Li-O-Ti"]
    )
    assert {e.formula for e in made.entries if e.element} == {"Li1", "O1", "Ti1", "Mg1"}
    assert (made.database_version, made.date, made.correction) == ("2025.09.25", "2024-12-01", scales.MP2020_SCHEME)
    assert agreement.above == 0
    assert agreement.rows == len(made.entries)
    assert made.entries[0].uncorrected_energy_per_atom == pytest.approx(made.entries[0].energy_per_atom + 0.1)
    made.write(tmp_path / "mp.h5")
    again = ReferenceSet.read(tmp_path / "mp.h5")
    assert (again.digest, again.database_version, again.correction) == (made.digest, "2025.09.25", made.correction)


def test_fetch_refuses_other_thermo_types_and_counts_what_is_deprecated(api: Recorded) -> None:
    class Mixed:
        def search(self, **query: Any) -> list[dict[str, Any]]:
            return [*api.search(**query), {**api.documents[0], "thermo_type": "R2SCAN"}]

    with pytest.raises(ThermoError, match="mixed thermo types"):
        fetch(Mixed(), "v", [["Li", "O"]], "x")

    class Old:
        def search(self, **query: Any) -> list[dict[str, Any]]:
            bad = {**api.documents[0], "material_id": "mp-broken", "energy_per_atom": None}
            return [*api.search(**query), {**api.documents[0], "material_id": "mp-old", "deprecated": True}, bad]

    made, failures, entered, _ = fetch(Old(), "v", [["Li", "O"]], "x")
    assert {f.id: f.kind for f in failures} == {"mp-old": "deprecated", "mp-broken": "bad-entry"}
    assert entered == len(made.entries) + 2


def test_the_key_appears_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses:
        def search(self, **query: Any) -> list[dict[str, Any]]:
            raise RuntimeError("403 for header X-API-KEY: very-secret")

    monkeypatch.setenv(KEY, "very-secret")
    with pytest.raises(ThermoError) as caught:
        fetch(Refuses(), "v", [["Li"]], "x")
    assert "very-secret" not in str(caught.value)
    assert "login node" in caught.value.remedy


def test_systems_that_are_none_are_refused_before_the_server_is_asked(api: Recorded) -> None:
    check_systems([["Li", "Ti", "O"], ["C"]])
    with pytest.raises(ThermoError, match="Li-TI-O is no chemical system: there is no element 'TI'"):
        check_systems([["Li", "TI", "O"]])
    with pytest.raises(ThermoError, match="no element ''"):
        check_systems([["Li", ""]])
    with pytest.raises(ThermoError, match="no entry with Og"):
        fetch(api, "v", [["Li", "O"], ["Og"]], "x")


def test_without_key_or_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ThermoError, match=KEY):
        connect()
    monkeypatch.setenv(KEY, "x")
    monkeypatch.setitem(__import__("sys").modules, "mp_api.client", None)
    with pytest.raises(DependencyError, match="mp-api"):
        connect()
