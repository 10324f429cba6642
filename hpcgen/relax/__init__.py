"""Relaxation of crystals by interatomic potentials."""

from hpcgen.relax.calculator import CALCULATORS, Calculator, Relaxed, cost, get_calculator, relax_all

__all__ = ["CALCULATORS", "Calculator", "Relaxed", "cost", "get_calculator", "relax_all"]
