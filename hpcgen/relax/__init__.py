"""Relaxation of crystals by interatomic potentials."""

from hpcgen.relax.calculator import CALCULATORS, Calculator, Relaxed, cost, get_calculator, relax_one

__all__ = ["CALCULATORS", "Calculator", "Relaxed", "cost", "get_calculator", "relax_one"]
