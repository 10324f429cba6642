"""MP2020 on the real VASP runs, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymatgen.entries.computed_entries import ComputedEntry, ConstantEnergyAdjustment

from hpcgen.crystal import Crystal, from_structure
from hpcgen.thermo.corrections import RefusedError, correct_entry, corrected, recompute_correction

NICKEL_OXIDE = {
    "run_type": "GGA+U",
    "hubbards": {"Ni": 6.2, "O": 0.0},
    "potcar_symbols": ["PAW_PBE Ni_pv 06Sep2000", "PAW_PBE O 08Apr2002"],
}


def vasp_run(folder: Path) -> tuple[Crystal, float, dict[str, Any]]:
    """Crystal, raw energy and parameters of a real run."""
    from pymatgen.io.vasp import Vasprun

    run = Vasprun(folder / "vasprun.xml.gz", parse_potcar_file=False, parse_dos=False, parse_eigen=False)
    parameters = {"run_type": run.run_type, "hubbards": run.hubbards, "potcar_symbols": run.potcar_symbols}
    return from_structure(run.final_structure), float(run.final_energy), parameters


@pytest.fixture(scope="module")
def nickel_oxide(data_folder: Path) -> tuple[Crystal, float, dict[str, Any]]:
    return vasp_run(data_folder / "vasp_runs" / "ok" / "mp_run")


def test_nickel_oxide_moves_by_its_oxygen_and_its_u(nickel_oxide) -> None:
    crystal, energy, parameters = nickel_oxide
    assert crystal.formula == "NiO"
    result = corrected(crystal, energy, **parameters)
    assert dict(result.adjustments) == pytest.approx(
        {"MP2020 anion correction (oxide)": -0.687, "MP2020 GGA/GGA+U mixing correction (Ni)": -2.541}, abs=2e-3
    )
    assert result.correction == pytest.approx(-3.228, abs=1e-3)
    assert result.energy == pytest.approx(energy - 3.228, abs=1e-3)
    assert "oxide" in str(result)


def test_silicon_does_not_move(data_folder: Path) -> None:
    crystal, energy, parameters = vasp_run(data_folder / "vasp_runs" / "ok" / "nonmetallic")
    result = corrected(crystal, energy, **parameters)
    assert (result.energy, result.correction, result.adjustments) == (energy, 0.0, ())


def test_pbe_by_name_is_the_same_functional(nickel_oxide) -> None:
    crystal, energy, parameters = nickel_oxide
    named = parameters | {"run_type": "PBE+U"}
    assert corrected(crystal, energy, **named) == corrected(crystal, energy, **parameters)


@pytest.mark.parametrize(
    ("changed", "kind", "text"),
    [
        ({"run_type": "R2SCAN"}, "wrong-functional", "R2SCAN"),
        ({"hubbards": {"Ni": 3.0}}, "wrong-u", "U = 3.0 eV on Ni, MP2020 holds for 6.2"),
        ({"hubbards": {}}, "wrong-u", "Ni"),
        ({"potcar_symbols": ["PAW_PBE Ni 06Sep2000", "PAW_PBE O 08Apr2002"]}, "wrong-potcar", "Ni_pv"),
        ({"potcar_symbols": []}, "wrong-potcar", "Ni_pv"),
    ],
)
def test_refused_with_the_reason(nickel_oxide, changed: dict[str, Any], kind: str, text: str) -> None:
    crystal, energy, parameters = nickel_oxide
    with pytest.raises(RefusedError, match=text) as caught:
        corrected(crystal, energy, **{**parameters, **changed})
    assert caught.value.kind == kind
    assert len(str(caught.value)) < 300  # pymatgen prints the whole entry


def test_an_element_with_u_is_refused() -> None:
    entry = ComputedEntry("Ni2", -11.0, parameters={**NICKEL_OXIDE, "potcar_symbols": ["PAW_PBE Ni_pv 06Sep2000"]})
    with pytest.raises(RefusedError, match="an element run with U") as caught:
        correct_entry(entry)
    assert caught.value.kind == "wrong-u"


def test_never_twice() -> None:
    raw = ComputedEntry("NiO", -10.0, parameters=NICKEL_OXIDE, data={"oxide_type": "oxide"}, entry_id="x")
    once = correct_entry(raw)
    assert raw.correction == 0  # the entry itself is left alone
    assert "oxidation_states" not in raw.data
    for correction in (
        {"energy_adjustments": [ConstantEnergyAdjustment(once.correction, name="MP2020")]},
        {"correction": once.correction},
    ):
        entry = ComputedEntry("NiO", -10.0, parameters=NICKEL_OXIDE, data={"oxide_type": "oxide"}, **correction)
        with pytest.raises(RefusedError, match="twice") as caught:
            correct_entry(entry)
        assert caught.value.kind == "already-corrected"
        assert recompute_correction(entry).energy == pytest.approx(once.energy, abs=1e-12)


def test_bonds_tell_peroxides_from_oxides() -> None:
    """The O-O distance of 1.45 angstrom makes it a peroxide; the composition BaO2 alone would too, Ba2O4F not."""
    import numpy as np

    parameters = {
        "run_type": "GGA",
        "hubbards": {},
        "potcar_symbols": ["PAW_PBE Ba_sv 06Sep2000", "PAW_PBE O 08Apr2002"],
    }
    cell = np.diag([3.85, 3.85, 6.85])
    for distance, name in ((1.45, "peroxide"), (2.9, "oxide")):
        z = distance / 2 / 6.85
        crystal = Crystal(cell, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5 + z], [0.5, 0.5, 0.5 - z]]), np.array([56, 8, 8]))
        result = corrected(crystal, -15.0, **parameters)
        assert [part for part, _ in result.adjustments] == [f"MP2020 anion correction ({name})"]
