"""Calculators: what relaxes crystals, and on which energy scale its energies are.

A calculator is a class with the methods of `Calculator`, registered by name in `CALCULATORS` (or, for one that
lives outside hpcgen, as an entry point of the group `hpcgen.calculators`). No stage knows any of them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Relaxation

CALCULATORS = {
    "chgnet": "hpcgen.relax.chgnet:ChgnetCalculator",
    "ase": "hpcgen.relax.ase:AseCalculator",
    "gpaw": "hpcgen.relax.gpaw:GpawCalculator",
}


@dataclass(frozen=True, eq=False)
class Relaxed:
    """What a calculator makes of one crystal.

    Attributes:
        crystal: the relaxed crystal, atoms in the order of the input.
        energy: of the cell, eV.
        energy_initial: of the cell before relaxation, eV.
        forces: (n, 3) eV/angstrom.
        stress: (3, 3) dE/d(strain)/volume, positive under tension, GPa.
        max_force_initial: largest force on an atom before relaxation, eV/angstrom.
        steps: optimiser steps.
        converged: forces and stress are within the limits.
        seconds: wall time.
        step_energy: (s,) energy at each step over the number of atoms, that of the crystal that went in first, eV.
        step_max_force: (s,) largest force on an atom at each step, eV/angstrom.
    """

    crystal: Crystal
    energy: float
    energy_initial: float
    forces: FloatArray
    stress: FloatArray
    max_force_initial: float
    steps: int
    converged: bool
    seconds: float
    step_energy: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    step_max_force: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


class Calculator(Protocol):
    """Relaxes batches of crystals. Made from a `RelaxConfig`; expensive things are loaded at the first crystal.

    Attributes:
        title: name and version for people, `CHGNet 0.3.0`.
        scale: name of its energy scale, which `hpcgen.thermo.scales` knows or which is compared with itself only.
        settings_digest: digest of everything that determines an energy: weights, criteria, optimiser.
    """

    title: str
    scale: str
    settings_digest: str

    def relax(self, ids: Sequence[str], crystals: Sequence[Crystal]) -> list[Relaxed | Failure]:
        """Relax positions and cell of each crystal; deterministic, and independent of the rest of the batch.

        A crystal that cannot be relaxed is a `Failure` of the stage `relax` with its id, never an exception. Not to
        converge within `max_steps` is a result with `converged=False`.
        """
        ...


def get_calculator(config: RelaxConfig) -> Calculator:
    """The calculator that `relax.calculator` names.

    Raises:
        ConfigError: if there is none of that name; the message lists those there are.
        DependencyError: if its package is not installed.
    """
    name = config.calculator
    target = CALCULATORS.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)(config)
    external = {e.name: e for e in entry_points(group="hpcgen.calculators")}
    if name in external:
        return external[name].load()(config)
    known = ", ".join(sorted({*CALCULATORS, *external}))
    raise ConfigError(f"relax.calculator is {name!r}", expected=f"one of {known}")


def relax_all(
    calculator: Calculator, crystals: Sequence[Crystal], relaxation_ids: Sequence[str], candidate_ids: Sequence[str]
) -> list[Relaxation | Failure]:
    """Relax crystals as a group of tasks of the farm. A `Failure` carries the id of the candidate.

    A calculator that returns other atoms than it was given has lost the composition: `composition-changed`.
    """
    out: list[Relaxation | Failure] = []
    results = calculator.relax(candidate_ids, crystals)
    for result, crystal, id_, candidate_id in zip(results, crystals, relaxation_ids, candidate_ids, strict=True):
        if isinstance(result, Relaxed) and not np.array_equal(result.crystal.numbers, crystal.numbers):
            text = f"{crystal.formula} went in, {result.crystal.formula} came out"
            out.append(Failure(candidate_id, "relax", "composition-changed", text))
        elif isinstance(result, Relaxed):
            out.append(_record(calculator, result, id_, candidate_id))
        else:
            out.append(result)
    return out


def _record(calculator: Calculator, result: Relaxed, relaxation_id: str, candidate_id: str) -> Relaxation:
    return Relaxation(
        id=relaxation_id,
        crystal=result.crystal,
        candidate_id=candidate_id,
        energy=result.energy,
        energy_initial=result.energy_initial,
        max_force=largest_force(result.forces),
        max_stress=largest_stress(result.stress),
        max_force_initial=result.max_force_initial,
        steps=result.steps,
        converged=result.converged,
        calculator=calculator.title,
        scale=calculator.scale,
        settings_digest=calculator.settings_digest,
        seconds=result.seconds,
        forces=result.forces,
        stress=result.stress,
        step_energy=result.step_energy,
        step_max_force=result.step_max_force,
    )


def largest_force(forces: FloatArray) -> float:
    """Largest norm of the rows of (n, 3) forces."""
    return float((forces**2).sum(axis=1).max() ** 0.5)


def largest_stress(stress: FloatArray) -> float:
    """Largest component of a (3, 3) stress, by absolute value."""
    return float(abs(stress).max())


def cost(n_atoms: int) -> float:
    """Estimated seconds of one relaxation on one core, for scheduling only: some 20 evaluations of 2 n ms."""
    return 0.04 + 0.04 * n_atoms
