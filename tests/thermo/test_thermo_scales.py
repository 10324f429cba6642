"""Which energies may meet on a hull."""

from __future__ import annotations

import itertools

import pytest

from hpcgen.errors import ThermoError
from hpcgen.thermo.scales import CHGNET, MP2020, SCALES, VASP_MP2020, compare

ALLOWED = {(CHGNET, MP2020): "screening", (VASP_MP2020, MP2020): "same-scale"}


@pytest.mark.parametrize(("candidate", "reference"), itertools.product([*SCALES, "ase:my.potential"], repeat=2))
def test_matrix(candidate: str, reference: str) -> None:
    if candidate == reference:
        assert compare(candidate, reference).label == "same-scale"
    elif (candidate, reference) in ALLOWED:
        comparison = compare(candidate, reference)
        assert comparison.label == ALLOWED[candidate, reference]
        assert comparison.reason
    else:
        with pytest.raises(ThermoError) as error:
            compare(candidate, reference)
        assert candidate in error.value.found
        assert reference in error.value.found
        assert candidate in error.value.expected
        assert error.value.remedy


def test_it_is_not_symmetric() -> None:
    """Materials Project energies against a hull of the potential's own energies help nobody."""
    with pytest.raises(ThermoError):
        compare(MP2020, CHGNET)
