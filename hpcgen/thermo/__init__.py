"""Energy scales, reference sets, convex hulls."""

from hpcgen.thermo.hull import Hulls, MissingElementError, Verdict
from hpcgen.thermo.reference import ReferenceSet, from_formation_energies, from_relaxations
from hpcgen.thermo.scales import compare

__all__ = [
    "Hulls",
    "MissingElementError",
    "ReferenceSet",
    "Verdict",
    "compare",
    "from_formation_energies",
    "from_relaxations",
]
