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
from hpcgen.relax.graph import edges

HESSIAN = 20.0  # initial curvature, eV/angstrom^2
CELL_FACTOR = 1.0  # angstrom
MAX_STEP = 0.2  # largest move of an atom, and of a row of the scaled deformation, in one step, angstrom
MIN_DISTANCE = 0.5  # atoms nearer than this are one on top of the other, angstrom
FUSED, APART = 0.6, 2.0  # of the sum of covalent radii: see `check_bonds`
REACH = 6.0  # angstrom, in which neighbours are looked for
SETTINGS = [HESSIAN, CELL_FACTOR, MAX_STEP, FUSED, APART]
"""What decides where a relaxation ends, beside potential and criteria."""
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


class Descent:
    """The relaxation of one crystal, told one evaluation at a time, so that many can go on side by side.

    Attributes:
        now: the crystal whose evaluation it wants next.
        done: whether it wants no more.
        steps: taken so far.
        seconds: spent on it so far, counted by whoever evaluates.

    Raises:
        UnphysicalError: `atoms-too-close` at the start; in `take` also `exploded`, `collapsed` (the volume has changed
            by more than `max_volume_change`) or `not-finite`; in `result` `collapsed` or `dissociated`.
    """

    def __init__(self, crystal: Crystal, config: RelaxConfig) -> None:
        if (distance := crystal.smallest_distance()) < MIN_DISTANCE:
            raise UnphysicalError("atoms-too-close", f"two atoms are {distance:.3f} angstrom apart before relaxation")
        n = len(crystal)
        self._config, self._initial = config, crystal
        self._scale = CELL_FACTOR * n**0.5
        self._x, self._deformation = crystal.cart, np.eye(3)
        self._hessian = HESSIAN * np.eye(3 * n + 9)
        self._step = self._gradient = np.zeros(3 * n + 9)
        self._first: Evaluation | None = None
        self._best: Evaluation | None = None
        self._best_crystal = crystal
        self._converged = False
        self._curve: list[tuple[float, float]] = []
        self.steps, self.seconds = 0, 0.0
        self.now, self.done = crystal, False

    def take(self, here: Evaluation) -> None:
        """The evaluation of `now`: moves on, or is done."""
        if not (np.isfinite(here.energy) and np.isfinite(here.forces).all() and np.isfinite(here.stress).all()):
            raise UnphysicalError("not-finite", "energy, forces or stress are not finite")
        config = self._config
        if self._first is None or self._best is None:
            self._first = self._best = here
        force = largest_force(here.forces)
        self._curve.append((here.energy / len(self.now), force))
        self._converged = force <= config.max_force and largest_stress(here.stress) * GPA <= config.max_stress
        if self._converged or here.energy < self._best.energy:
            self._best, self._best_crystal = here, self.now
        self.done = self._converged or self.steps == config.max_steps
        if not self.done:
            self._move(here)

    def _move(self, here: Evaluation) -> None:
        n, deformation = len(self.now), self._deformation
        strain_gradient = self.now.volume * here.stress @ np.linalg.inv(deformation).T / self._scale
        gradient = np.concatenate([-here.forces @ deformation, strain_gradient]).ravel()
        if self.steps:
            self._hessian = _update(self._hessian, self._step, gradient - self._gradient)
        self._gradient, self._step = gradient, _step(self._hessian, gradient)
        self._x = self._x + self._step[: 3 * n].reshape(n, 3)
        self._deformation = deformation + self._step[3 * n :].reshape(3, 3) / self._scale
        self.now = _moved(self._initial, self._x, self._deformation)
        _check_volume(self.now.volume, self._initial.volume, self._config.max_volume_change)
        self.steps += 1

    def result(self) -> Relaxed:
        """Where it ended. What has not converged is returned as the point of lowest energy on the way, so that the
        energy is never above the initial one and is an upper bound of the relaxed one.
        """
        assert self._first is not None
        assert self._best is not None
        check_bonds(self._best_crystal)
        energies, forces = np.array(self._curve, np.float32).T
        return Relaxed(
            crystal=self._best_crystal,
            energy=self._best.energy,
            energy_initial=self._first.energy,
            forces=self._best.forces,
            stress=self._best.stress * GPA,
            max_force_initial=largest_force(self._first.forces),
            steps=self.steps,
            converged=self._converged,
            seconds=self.seconds,
            step_energy=energies,
            step_max_force=forces,
        )


def minimise(potential: Callable[[Crystal], Evaluation], crystal: Crystal, config: RelaxConfig) -> Relaxed:
    """Relax `crystal` until forces and stress are within the limits of `config`, or for `max_steps` steps.

    Raises:
        UnphysicalError: as `Descent`, and what the potential raises.
    """
    descent = Descent(crystal, config)
    start = time.perf_counter()
    while not descent.done:
        descent.take(potential(descent.now))
    descent.seconds = time.perf_counter() - start
    return descent.result()


def check_bonds(crystal: Crystal) -> None:
    """Raise if atoms of a relaxed crystal have fused, or if one has left the others.

    Potentials have holes where no training data lay: in CHGNet two oxygen atoms of solid oxygen fall into one at
    0.5 to 0.8 angstrom, with an energy below all molecules.

    Raises:
        UnphysicalError: `collapsed` if two atoms are nearer than `FUSED` times the sum of their covalent radii (the
            shortest bonds known, N2 and CO, are at 0.77), `dissociated` if an atom's nearest neighbour is farther than
            `APART` times that sum and than 4.5 angstrom (solid xenon is at 1.6 times, solid neon at 3.2 angstrom).
    """
    from ase.data import chemical_symbols, covalent_radii

    near = edges(crystal, REACH)
    radii = covalent_radii[crystal.numbers]
    sums = radii[near.centre] + radii[near.neighbour]
    fused = near.distance < np.maximum(FUSED * sums, MIN_DISTANCE)
    if fused.any():
        k = int(np.flatnonzero(fused)[np.argmin(near.distance[fused])])
        pair = "-".join(chemical_symbols[crystal.numbers[i]] for i in (near.centre[k], near.neighbour[k]))
        raise UnphysicalError("collapsed", f"{pair} have come within {near.distance[k]:.3f} angstrom of each other")
    nearest = np.full(len(crystal), np.inf)
    np.minimum.at(nearest, near.centre, np.where(near.distance > APART * sums, near.distance, 0.0))
    if (nearest > 4.5).any():
        atom = int(np.argmax(nearest))
        distance = f"{nearest[atom]:.2f}" if np.isfinite(nearest[atom]) else f"more than {REACH:g}"
        symbol = chemical_symbols[crystal.numbers[atom]]
        raise UnphysicalError("dissociated", f"{symbol} has no neighbour left: the nearest is {distance} angstrom away")


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
