"""Levenberg-Marquardt over atomic positions and the shape of the cell together, for any descriptor.

The cell is L = L0 exp(H): L0 is a reference cell (rows), H a symmetric matrix with coordinates h (6,) in an orthonormal
basis, five traceless shears first and the dilation last. A symmetric H turns nothing, and traceless ones keep the
volume exactly. The objective is that of the most probable cell under normal errors of target and cell,

    |q(x, h) - target|^2 + weight |h - centre|^2.

The derivative by h is taken by central differences at fixed fractional coordinates, which serves every descriptor; it
changes little on the way, so it is renewed only every few steps. On 20 atoms of 3 elements all twelve values of it cost
as much as two Jacobians by positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray, lattice_parameters
from hpcgen.reconstruct.polish import _solve_cholesky
from hpcgen.reconstruct.refine_kernels import combine, normal_equations
from hpcgen.represent.descriptor import Descriptor
from hpcgen.represent.images import inverse3

MAX_STEP = 0.4  # angstrom: longest step of an atom in one iteration
STRAIN_STEP = 1e-4  # of the differences: above the rounding, below the curvature
RENEW = 5  # accepted steps between two derivatives by the strain
SLOW, GAIN = 3, 1e-3  # so many iterations in a row that gain a smaller share of the objective end the fit
SMALLEST = 1e-7  # angstrom: a rejected step this short ends the fit

_R2, _R6 = 2**-0.5, 6**-0.5
STRAINS: FloatArray = np.array(
    [
        np.diag([_R2, -_R2, 0.0]),
        np.diag([_R6, _R6, -2 * _R6]),
        [[0, 0, 0], [0, 0, _R2], [0, _R2, 0]],
        [[0, 0, _R2], [0, 0, 0], [_R2, 0, 0]],
        [[0, _R2, 0], [_R2, 0, 0], [0, 0, 0]],
        np.eye(3) / 3**0.5,
    ]
)
"""(6, 3, 3) orthonormal basis of the symmetric matrices, the dilation last."""
SHEARS = 5  # those without the dilation


class Bounds(NamedTuple):
    """How far refinement may move the cell parameters: `length` as a share of each length, `angle` in degrees."""

    length: float
    angle: float

    def hold(self, lattice: FloatArray, generated: FloatArray) -> bool:
        """Whether `lattice` (3, 3) keeps within the bounds around the cell `generated` (3, 3)."""
        new, old = lattice_parameters(lattice), lattice_parameters(generated)
        lengths = np.abs(new[:3] / old[:3] - 1.0).max() <= self.length
        return bool(lengths and np.abs(new[3:] - old[3:]).max() <= self.angle)


@dataclass(frozen=True, eq=False)
class Problem:
    """One target and what may move to meet it.

    Attributes:
        descriptor: of the target.
        target: (D,) for the channels of `species` and no more.
        species: (n,) channels of the atoms.
        n_channels: C.
        generated: (3, 3) cell that the bounds hold for.
        bounds: of the cell.
        reference: (3, 3) L0.
        strains: (6, m) directions that h may move in; m = 0 keeps the reference cell.
        moves: (3n, m') directions that the Cartesian positions may move in; None for all.
        weight: of |h - centre|^2 in the objective.
        centre: (6,) h of the generated cell.
    """

    descriptor: Descriptor
    target: FloatArray
    species: NDArray[np.int64]
    n_channels: int
    generated: FloatArray
    bounds: Bounds
    reference: FloatArray
    strains: FloatArray
    moves: FloatArray | None = None
    weight: float = 0.0
    centre: FloatArray | None = None

    def lattice(self, h: FloatArray) -> FloatArray:
        """(3, 3) cell of the strain h (6,)."""
        return self.reference @ deformation(h) if self.strains.shape[1] else self.reference

    def value(self, lattice: FloatArray, frac: FloatArray) -> FloatArray:
        """(D,) descriptor."""
        return self.descriptor.evaluate(lattice, frac @ lattice, self.species, self.n_channels, jacobian=False)[0]

    def penalty(self, h: FloatArray) -> float:
        """The objective's term of the cell."""
        away = h if self.centre is None else h - self.centre
        return self.weight * float(np.sum(away * away))

    def strain_derivative(self, h: FloatArray, frac: FloatArray) -> FloatArray:
        """(m, D) derivative along `strains` at fixed fractional coordinates."""
        out = np.empty((self.strains.shape[1], len(self.target)))
        for k, direction in enumerate(self.strains.T):
            step = STRAIN_STEP * direction
            ahead, behind = (self.value(self.lattice(h + s), frac) for s in (step, -step))
            out[k] = (ahead - behind) / (2 * STRAIN_STEP)
        return out


@dataclass(frozen=True, eq=False)
class Fit:
    """Where a fit ended.

    Attributes:
        lattice: (3, 3) rows, angstrom.
        frac: (n, 3), not wrapped.
        strain: (6,) h.
        difference: (D,) descriptor - target.
        iterations: iterations done.
    """

    lattice: FloatArray
    frac: FloatArray
    strain: FloatArray
    difference: FloatArray
    iterations: int

    @property
    def cost(self) -> float:
        """Squared residual, without the cell's term."""
        return float(np.sum(self.difference * self.difference))


def deformation(h: FloatArray) -> FloatArray:
    """(3, 3) exp(sum_k h_k STRAINS_k), by its series: the strains are a few percent."""
    exponent = (h[:, None, None] * STRAINS).sum(axis=0)
    out, term = np.eye(3), np.eye(3)
    for k in range(1, 9):
        term = term @ exponent / k
        out = out + term
    return out


def fit(problem: Problem, frac: FloatArray, iterations: int) -> Fit:
    """Minimise the objective from positions `frac` (n, 3) in the reference cell.

    Marquardt's damping; the step of an atom is capped at `MAX_STEP`, a strain that leaves the bounds is shortened.
    Every accepted step lowers the objective, so the result is never worse than the start.
    """
    n, shape = len(frac), problem.strains.shape[1]
    h = np.zeros(6)
    lattice = problem.reference
    r, jt = _linearise(problem, lattice, frac)
    shear = problem.strain_derivative(h, frac)
    objective = float(np.sum(r * r)) + problem.penalty(h)
    damping, slow, done, accepted = 1e-3, 0, 0, 0
    hessian, gradient = _equations(problem, jt, shear, r, h)
    while len(gradient) and done < iterations and slow < SLOW and damping < 1e3:
        done += 1
        step = _step(hessian, gradient, damping, len(gradient) - shape)
        if step is None:
            damping *= 4
            continue
        moves = step[: len(step) - shape]
        displacement = (moves if problem.moves is None else (problem.moves * moves).sum(axis=1)).reshape(n, 3)
        longest = float(np.sqrt((displacement**2).sum(axis=1).max()))
        scale = min(1.0, MAX_STEP / longest) if longest > 0 else 1.0
        new_h = h + _within(problem, h, scale * (problem.strains @ step[len(step) - shape :]))
        new_lattice = problem.lattice(new_h)
        new_frac = frac + scale * displacement @ inverse3(lattice)
        new_r, new_jt = _linearise(problem, new_lattice, new_frac)
        new_objective = float(np.sum(new_r * new_r)) + problem.penalty(new_h)
        if new_objective < objective:
            slow = slow + 1 if new_objective > (1 - GAIN) * objective else 0
            h, lattice, frac, r, jt, objective = new_h, new_lattice, new_frac, new_r, new_jt, new_objective
            accepted += 1
            damping = max(0.3 * damping, 1e-8)
            if accepted % RENEW == 0:
                shear = problem.strain_derivative(h, frac)
            hessian, gradient = _equations(problem, jt, shear, r, h)
        else:
            damping *= 4
            if longest < SMALLEST:
                break
    return Fit(lattice, frac, h, r, done)


def _linearise(problem: Problem, lattice: FloatArray, frac: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Differences (D,) and transposed Jacobian (3n or m', D) along what may move."""
    q, jacobian = problem.descriptor.evaluate(lattice, frac @ lattice, problem.species, problem.n_channels)
    jt = np.ascontiguousarray(jacobian.T)
    return q - problem.target, jt if problem.moves is None else combine(problem.moves, jt)


def _equations(
    problem: Problem, jt: FloatArray, shear: FloatArray, r: FloatArray, h: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Normal equations over positions, then strains, with the cell's term."""
    hessian, gradient = normal_equations(np.concatenate([jt, shear]), r)
    away = h if problem.centre is None else h - problem.centre
    last = np.arange(len(jt), len(gradient))
    hessian[last, last] += problem.weight
    gradient[last] += problem.weight * (problem.strains.T @ away)
    return hessian, gradient


def _step(hessian: FloatArray, gradient: FloatArray, damping: float, positions: int) -> FloatArray | None:
    """The damped step, None if the matrix is not positive definite; the first `positions` unknowns are positions."""
    diagonal = np.diag(hessian)
    extra = damping * diagonal + 1e-14
    if positions:  # the mean holds what the target does not feel, above all the three free translations
        extra[:positions] += (0.05 * damping + 1e-12) * diagonal[:positions].mean()
    matrix, step = hessian.copy(), -gradient
    index = np.arange(len(step))
    matrix[index, index] += extra
    return step if _solve_cholesky(matrix, step) else None


def _within(problem: Problem, h: FloatArray, step: FloatArray) -> FloatArray:
    """The longest part of a strain step that keeps the cell within its bounds, by bisection."""
    if not step.any() or problem.bounds.hold(problem.lattice(h + step), problem.generated):
        return step
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = 0.5 * (low + high)
        if problem.bounds.hold(problem.lattice(h + middle * step), problem.generated):
            low = middle
        else:
            high = middle
    return low * step
