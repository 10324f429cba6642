"""Validity, oxidation states, uniqueness and novelty of crystals."""

from hpcgen.screen.matching import Effort, find_duplicates, find_known
from hpcgen.screen.oxidation import oxidation_balance
from hpcgen.screen.validity import composition_valid, spacegroup_symbol, structure_problem, structure_valid

__all__ = [
    "Effort",
    "composition_valid",
    "find_duplicates",
    "find_known",
    "oxidation_balance",
    "spacegroup_symbol",
    "structure_problem",
    "structure_valid",
]
