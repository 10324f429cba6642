"""Relaxation of positions and cell together by BFGS, for any potential.

Variables are the positions x (n, 3) in the undeformed cell and the deformation F (3, 3) of that cell, with
cell = cell0 F^T and r = x F^T for row vectors, so that every pair (x, F) is a crystal and the gradient is exact:
dE/dx = -f F and dE/dF = V sigma F^-T. F is scaled by CELL_FACTOR sqrt(n) angstrom, with which the curvature along
a strain is near that of an atom's displacement and one initial Hessian fits both.

Force evaluations by CHGNet to 0.05 eV/angstrom and 0.5 GPa, means over 14 MP-20 crystals of 2-12 atoms
(volume +6 %, strained 2 %, rattled 0.05 angstrom / volume +15 %, strained 6 %, rattled 0.35 angstrom):

| optimiser | evaluations |
|---|---|
| ASE FIRE, FrechetCellFilter, cell factor n | 31 / 57 |
| ASE BFGS or LBFGS with alpha 70, the same (to ASE's own criterion) | 19 / 36 |
| ASE BFGSLineSearch, the same (to ASE's own criterion) | 19 / 40 |
| ASE BFGS with alpha 20, the same | 11 / 23 |
| ASE BFGS with alpha 20, cell factor sqrt(n) | 8 / 20 |
| here | 8 / 20 |

Beside the potential (10-20 ms an evaluation) a step costs 0.5 ms here, and several with ASE's filter and its matrix
logarithms.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.relax.calculator import Relaxed, largest_force, largest_stress

HESSIAN = 20.0  # initial curvature, eV/angstrom^2
CELL_FACTOR = 1.0  # angstrom
MAX_STEP = 0.2  # largest move of an atom, and of a row of the scaled deformation, in one step, angstrom
MIN_DISTANCE = 0.5  # atoms nearer than this have fused, angstrom
GPA = 160.21766208  # of 1 eV/angstrom^3 (CODATA 2014, as CHGNet and ASE count)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Energy (eV), forces (n, 3) in eV/angstrom and symmetric stress (3, 3) in eV/angstrom^3 of a crystal."""

    energy: float
    forces: FloatArray
    stress: FloatArray


class UnphysicalError(Exception):
    """A crystal has left the region where a relaxation makes sense. `kind`: as in `Failure`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def minimise(potential: Callable[[Crystal], Evaluation], crystal: Crystal, config: RelaxConfig) -> Relaxed:
    """Relax `crystal` until forces and stress are within the limits of `config`, or for `max_steps` steps.

    What does not converge is returned as the point of lowest energy on the way, so that the energy is never above
    the initial one and is an upper bound of the relaxed one.

    Raises:
        UnphysicalError: `atoms-too-close` (at the start), `exploded`, `collapsed` (the volume has changed by more
            than `max_volume_change`, or atoms have fused) or `not-finite`.
    """
    start = time.perf_counter()
    n, volume0 = len(crystal), crystal.volume
    if (distance := crystal.smallest_distance()) < MIN_DISTANCE:
        raise UnphysicalError("atoms-too-close", f"two atoms are {distance:.3f} angstrom apart before relaxation")
    scale = CELL_FACTOR * n**0.5
    x, deformation = crystal.cart, np.eye(3)
    hessian = HESSIAN * np.eye(3 * n + 9)
    step = gradient = np.zeros(3 * n + 9)
    steps, converged = 0, False
    first = here = best = _evaluate(potential, crystal)
    best_crystal = now = crystal
    while True:
        if here.energy < best.energy:
            best, best_crystal = here, now
        if largest_force(here.forces) <= config.max_force and largest_stress(here.stress) * GPA <= config.max_stress:
            best, best_crystal, converged = here, now, True
            break
        if steps == config.max_steps:
            break
        strain_gradient = now.volume * here.stress @ np.linalg.inv(deformation).T / scale
        previous, gradient = gradient, np.concatenate([-here.forces @ deformation, strain_gradient]).ravel()
        if steps:
            hessian = _update(hessian, step, gradient - previous)
        step = _step(hessian, gradient)
        x = x + step[: 3 * n].reshape(n, 3)
        deformation = deformation + step[3 * n :].reshape(3, 3) / scale
        now = _moved(crystal, x, deformation)
        _check_volume(now.volume, volume0, config.max_volume_change)
        here = _evaluate(potential, now)
        steps += 1
    if (distance := best_crystal.smallest_distance()) < MIN_DISTANCE:
        raise UnphysicalError("collapsed", f"two atoms have come within {distance:.3f} angstrom of each other")
    return Relaxed(
        crystal=best_crystal,
        energy=best.energy,
        energy_initial=first.energy,
        forces=best.forces,
        stress=best.stress * GPA,
        max_force_initial=largest_force(first.forces),
        steps=steps,
        converged=converged,
        seconds=time.perf_counter() - start,
    )


def _update(hessian: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """BFGS update of the Hessian, as in ASE: without a curvature condition, `_step` takes care of the sign."""
    curvature = step @ change
    along = hessian @ step
    if abs(curvature) < 1e-12 or abs(step @ along) < 1e-12:
        return hessian
    return hessian + np.outer(change, change) / curvature - np.outer(along, along) / (step @ along)


def _step(hessian: FloatArray, gradient: FloatArray) -> FloatArray:
    """Quasi-Newton step against the gradient along every eigenvector, shortened as a whole to `MAX_STEP`."""
    values, vectors = np.linalg.eigh(hessian)
    step = -vectors @ ((gradient @ vectors) / np.abs(values))
    longest = largest_force(step.reshape(-1, 3))
    return step * min(1.0, MAX_STEP / longest) if longest > 0 else step


def _moved(crystal: Crystal, x: FloatArray, deformation: FloatArray) -> Crystal:
    lattice = crystal.lattice @ deformation.T
    if not np.isfinite(x).all() or not np.isfinite(lattice).all():
        raise UnphysicalError("not-finite", "the optimiser's step is not finite")
    if np.linalg.det(deformation) <= 0 or abs(np.linalg.det(lattice)) < 1e-3:
        raise UnphysicalError("collapsed", "the cell has lost its volume")
    return Crystal(lattice, x @ np.linalg.inv(crystal.lattice), crystal.numbers)


def _check_volume(volume: float, initial: float, limit: float) -> None:
    ratio = volume / initial
    if ratio > limit:
        raise UnphysicalError("exploded", f"the volume has grown {ratio:.2f} times")
    if ratio < 1 / limit:
        raise UnphysicalError("collapsed", f"the volume has shrunk to {ratio:.2f} of the initial one")


def _evaluate(potential: Callable[[Crystal], Evaluation], crystal: Crystal) -> Evaluation:
    result = potential(crystal)
    if not (np.isfinite(result.energy) and np.isfinite(result.forces).all() and np.isfinite(result.stress).all()):
        raise UnphysicalError("not-finite", "energy, forces or stress are not finite")
    return result
