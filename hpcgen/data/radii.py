"""Radii and oxidation states of elements, as pymatgen tabulates them."""

from __future__ import annotations

import re
from functools import cache

_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "X": 10, "XI": 11}
_ROMAN |= {"XII": 12, "XIV": 14}


@cache
def shannon(symbol: str, charge: int) -> dict[int, float]:
    """Ionic radius in angstrom by coordination number; empty if none is tabulated.

    R. D. Shannon, Acta Cryst. A32, 751 (1976), effective ionic radii; high spin where there are two, and the
    usual coordination where a planar or pyramidal one is tabulated beside it.
    """
    from pymatgen.core import Element

    table = Element(symbol).data.get("Shannon radii", {}).get(str(charge), {})
    out: dict[int, float] = {}
    for key in sorted(table, key=len, reverse=True):  # `IVSQ` before `IV`: the plain one overwrites it
        spins = table[key]
        roman = re.match(r"[IVX]+", key)
        if roman and roman.group() in _ROMAN:
            chosen = spins.get("High Spin") or spins.get("") or next(iter(spins.values()))
            out[_ROMAN[roman.group()]] = float(chosen["ionic_radius"])
    return out


def nearest_coordination(symbol: str, charge: int, coordination: int) -> tuple[int, float] | None:
    """(coordination, radius in angstrom) of the tabulated coordination nearest to the one asked for."""
    table = shannon(symbol, charge)
    if not table:
        return None
    nearest = min(table, key=lambda n: (abs(n - coordination), n))
    return nearest, table[nearest]


@cache
def cation_charges(symbol: str) -> tuple[int, ...]:
    """Common positive oxidation states with a tabulated radius, ascending."""
    from pymatgen.core import Element

    return tuple(sorted(q for q in Element(symbol).common_oxidation_states if q > 0 and shannon(symbol, q)))


@cache
def anion_charge(symbol: str) -> int | None:
    """The most negative common oxidation state with a tabulated radius."""
    from pymatgen.core import Element

    return min((q for q in Element(symbol).common_oxidation_states if q < 0 and shannon(symbol, q)), default=None)
