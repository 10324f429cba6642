"""Energy scales, reference sets, convex hulls."""

from hpcgen.thermo.corrections import Corrected, RefusedError, correct_entry, corrected
from hpcgen.thermo.hull import Hulls, MissingElementError, Verdict
from hpcgen.thermo.programme import Programme
from hpcgen.thermo.reference import ReferenceSet, from_relaxations
from hpcgen.thermo.scales import compare
from hpcgen.thermo.tables import from_energies, from_formation_energies

__all__ = [
    "Corrected",
    "Hulls",
    "MissingElementError",
    "Programme",
    "ReferenceSet",
    "RefusedError",
    "Verdict",
    "compare",
    "correct_entry",
    "corrected",
    "from_energies",
    "from_formation_energies",
    "from_relaxations",
]
