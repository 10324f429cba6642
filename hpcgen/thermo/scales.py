"""Energy scales, and which of them may meet on one hull.

Energies of two scales differ by functional, corrections or potential, and a hull made of both is wrong by far more
than the differences it is asked about. So every pair that may meet is listed here with its reason; any other raises.
"""

from __future__ import annotations

from typing import NamedTuple

from hpcgen.errors import ThermoError

MP2020 = "mp2020-gga-u"
VASP_MP2020 = "vasp-pbe-mp2020"
CHGNET = "chgnet-mp2020"
FORMATION = "formation-energy"

MP2020_SCHEME = "MaterialsProject2020Compatibility"
GGA_GGA_U = "GGA_GGA+U"
"""The scheme that corrects Materials Project's energies, and the thermo type of what it corrects."""

SAME_SCALE = "same-scale"
SCREENING = "screening"

SCALES: dict[str, str] = {
    MP2020: "Materials Project: PBE and PBE+U total energies with MaterialsProject2020Compatibility",
    VASP_MP2020: "own VASP runs with MPRelaxSet's settings, corrected by MaterialsProject2020Compatibility once",
    CHGNET: "CHGNet trained on Materials Project energies that carry the MP2020 corrections; never corrected again",
    FORMATION: "formation energies from elements at zero; without elemental references they meet no total energy",
}
"""What each known scale is. A calculator may name another one: it is then compared with itself only."""


class Comparison(NamedTuple):
    """A label for results (`same-scale` or `screening`) and why the two scales may meet."""

    label: str
    reason: str


_PAIRS: dict[tuple[str, str], Comparison] = {
    (CHGNET, MP2020): Comparison(
        SCREENING,
        "the potential was trained on energies of the reference's scale; its errors of some 0.03 eV/atom do not cancel",
    ),
    (VASP_MP2020, MP2020): Comparison(
        SAME_SCALE, "the same functional, settings and corrections; other versions of VASP differ by a few meV/atom"
    ),
}
"""(scale of the candidates, scale of the reference) of different scales that may meet."""


def compare(candidate: str, reference: str) -> Comparison:
    """How energies of the scale `candidate` may be held against a reference of the scale `reference`.

    Raises:
        ThermoError: if they may not; names both scales and the remedy.
    """
    if candidate == reference:
        return Comparison(SAME_SCALE, "computed by the same method")
    if (candidate, reference) in _PAIRS:
        return _PAIRS[candidate, reference]
    allowed = [candidate, *(r for c, r in _PAIRS if c == candidate)]
    remedy = "hull.reference=self computes a reference by the calculator that relaxes the candidates"
    if reference == FORMATION:
        remedy = "give the elemental references (hull.elements), which turn formation energies into total ones; or "
        remedy += "use hull.reference=self"
    raise ThermoError(
        f"energies of the scale {candidate!r} ({SCALES.get(candidate, 'known to its calculator only')}) and a "
        f"reference of the scale {reference!r} ({SCALES.get(reference, 'unknown here')}) may not meet on one hull",
        expected=f"a reference of the scale {' or '.join(allowed)}",
        remedy=remedy,
    )
