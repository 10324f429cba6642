from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from hpcgen.crystal import Crystal, from_atoms
from hpcgen.errors import Failure, ThermoError
from hpcgen.evaluate.stability import Verdict, judge, sun
from hpcgen.flow import ReferenceEntry
from hpcgen.relax.calculator import Relaxed
from hpcgen.thermo import ReferenceSet
from hpcgen.thermo.scales import CHGNET, MP2020

SALT = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
CSCL = from_atoms(bulk("NaCl", "cesiumchloride", a=3.4))
OXIDE = from_atoms(bulk("MgO", "rocksalt", a=4.2))
LOST = Failure("row:1", "relax", "exploded", "volume")
REFERENCE = ReferenceSet(
    (
        ReferenceEntry("0" * 16, "Na", "Na1", 0.0, True),
        ReferenceEntry("1" * 16, "Cl", "Cl1", 0.0, True),
        ReferenceEntry("2" * 16, "salt", "Na1 Cl1", -2.0, False),
    ),
    MP2020,
    "GGA_GGA+U",
    "2023-02-07",
    "by hand",
)


def relaxed(crystal: Crystal, energy_per_atom: float, converged: bool = True) -> Relaxed:
    n = len(crystal)
    forces, stress = np.zeros((n, 3)), np.zeros((3, 3))
    return Relaxed(crystal, energy_per_atom * n, 0.0, forces, stress, 0.1, 3, converged, 0.0)


def test_energies_above_the_hull_by_hand():
    found = judge(
        [relaxed(SALT, -2.05), relaxed(CSCL, -1.9), LOST, relaxed(SALT, -1.5, converged=False), relaxed(OXIDE, -3)],
        CHGNET,
        REFERENCE,
        [CSCL],
    )
    assert found[0] == Verdict(pytest.approx(-0.05), unique=True, novel=True, converged=True)
    assert found[1] == Verdict(pytest.approx(0.1), unique=True, novel=False, converged=True)
    assert found[2] is LOST
    assert found[3] == Verdict(pytest.approx(0.5), unique=False, novel=True, converged=False)
    assert isinstance(found[4], Failure)
    assert (found[4].kind, "Mg" in found[4].message) == ("no-element-reference", True)


def test_every_share_is_of_everything_generated():
    verdicts = [
        Verdict(-0.05, unique=True, novel=True, converged=True),
        Verdict(0.1, unique=True, novel=False, converged=True),
        Verdict(0.05, unique=False, novel=True, converged=True),
        Verdict(0.05, unique=True, novel=True, converged=False),
        Verdict(0.11, unique=True, novel=True, converged=True),
        LOST,
    ]
    numbers = sun(verdicts, asked=10)
    assert numbers["sun"] == 2 / 10
    assert numbers["stable"] == 4 / 10
    assert (numbers["unique"], numbers["novel"]) == (4 / 10, 4 / 10)
    assert numbers["on_hull"] == 1 / 10
    assert numbers["failures"] == {"exploded": 1}
    assert numbers["not_converged"] == 1
    assert numbers["median_e_hull_eV"] == pytest.approx(0.05)
    assert sun(verdicts)["sun"] == 2 / 6


def test_scales_that_may_not_meet():
    with pytest.raises(ThermoError, match="may not meet"):
        judge([relaxed(SALT, -2)], "somebody's", REFERENCE, [])
