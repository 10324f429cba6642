"""What a generated target still says after the search: about the cell, and about symmetry.

A generated cell has errors of its own, and so has the target. The search takes the cell as given; here positions and
cell shape are fitted together, with a normal prior around the generated cell whose width is a third of the configured
bounds and whose weight against the target follows from the residual itself (a maximum a posteriori estimate). The cell
is changed only if the target demands it: the drop of the squared residual, in units of the variance of one independent
component, must exceed `SIGNIFICANT`. Descriptors that are invariant under scaling leave the volume as generated.

Measured with 5 % noise on every component, 1 % on lengths and 0.6 degrees on angles, on 40 rows of each of perov_5_val,
carbon_24_val and mp_20_biternary_val (none of them test rows): see `docs/reconstruction.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from hpcgen.config import ReconstructConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.reconstruct.refine_fit import SHEARS, Bounds, Fit, Problem, deformation, fit
from hpcgen.reconstruct.solution import Solution
from hpcgen.reconstruct.symmetry import (
    Group,
    find_group,
    free_directions,
    largest_shift,
    symmetric_positions,
    symmetric_strain,
)
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import Descriptor
from hpcgen.represent.images import inverse3

PARTS = (1.0, 0.5, 0.25)  # of the symmetry tolerance that are tried, the most symmetric first
EXACT = 1e-6  # strain: a cell this near to a symmetric one has that symmetry
ITERATIONS = 40  # of each fit; most need 10 to 25
PRIOR = 2.0  # weight of the prior; 1 is the plain estimate, which trusts the residual of a few soft components too much
SIGMAS = 3.0  # the bounds, in standard deviations of the prior
SIGNIFICANT = 4.0  # least drop of the residual for another cell: 0 to 3 % of exact cells were changed, see above


@dataclass(frozen=True, eq=False)
class Refined:
    """A crystal after refinement.

    Attributes:
        lattice: (3, 3) rows, angstrom.
        frac: (n, 3) in [0, 1).
        residual: |descriptor - target| / |target|.
        blocks: share of each block in it; the squares sum to that of `residual`.
        iterations: local iterations done.
        strain: largest change of a length by which the cell differs from the generated one (the largest absolute
            principal strain), 0 if that was kept.
        symmetry: space group that the crystal was made to have, empty if none was imposed.
    """

    lattice: FloatArray
    frac: FloatArray
    residual: float
    blocks: dict[str, float]
    iterations: int
    strain: float
    symmetry: str


class Refiner:
    """Refines the solutions of one descriptor's solver; serves many targets, in threads too.

    Args:
        descriptor: of the targets.
        config: bounds of the cell and tolerance of the symmetry.
    """

    def __init__(self, descriptor: Descriptor, config: ReconstructConfig) -> None:
        self.descriptor = descriptor
        self.bounds = Bounds(config.cell_length, config.cell_angle)
        self.tolerance = config.symmetry_tolerance
        free = SHEARS if "scale" in descriptor.invariances else SHEARS + 1
        self.strains = np.eye(6)[:, : free if min(self.bounds) > 0 else 0]

    def refine(
        self,
        target: ArrayLike,
        lattice: ArrayLike,
        numbers: ArrayLike,
        solution: Solution,
        noise_floor: float = 0.0,
    ) -> Refined:
        """The solution, refined; deterministic, and never with a larger residual than the noise explains.

        A target that the solver met (`converged`) is exact: its cell and positions are left as they are. So are all
        solutions of EAD, whose Jacobian costs a gradient for each of its components.

        Args:
            target: (D,) with the channels of the elements in `numbers`.
            lattice: (3, 3) generated cell, rows, angstrom.
            numbers: (n,) atomic numbers.
            solution: of the solver, in that cell.
            noise_floor: relative residual that is noise in any case: nothing is concluded from smaller ones.
        """
        with threadpool_limits(1, user_api="blas"):  # its bits depend on its threads
            return self._refine(target, lattice, numbers, solution, noise_floor)

    def _refine(
        self, target: ArrayLike, lattice: ArrayLike, numbers: ArrayLike, solution: Solution, noise_floor: float
    ) -> Refined:
        goal, cell = np.array(target, dtype=np.float64), np.array(lattice, dtype=np.float64)
        if self.descriptor.name == "ead":
            return Refined(cell, solution.frac, solution.residual, solution.blocks, 0, 0.0, "")
        species, elements = species_channels(numbers)
        problem = Problem(
            self.descriptor, goal, species, len(elements), cell, self.bounds, reference=cell, strains=np.zeros((6, 0))
        )
        floor = noise_floor**2 * float(np.sum(goal * goal))
        if solution.stop_reason == "converged":
            best, done = fit(problem, solution.frac, 0), 0
        else:
            best = fit(problem, solution.frac, ITERATIONS)
            best, done = self._cell(problem, best, floor)
        symbol = ""
        if self.tolerance is not None and solution.stop_reason != "converged":
            best, steps, symbol = self._symmetric(problem, best, numbers, floor)
            done += steps
        return self._refined(problem, best, done, symbol)

    def warm_up(self) -> None:
        """Compile every kernel, or load it from numba's cache, on a target with noise."""
        frac = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.4], [0.5, 0.0, 0.5]])
        crystal = Crystal(np.diag([4.0, 4.1, 4.3]), frac, np.array([12, 8, 8], dtype=np.uint8))
        species, elements = species_channels(crystal.numbers)
        target = self.descriptor.encode(crystal, species, len(elements)) * 1.05
        self.refine(target, crystal.lattice, crystal.numbers, Solution(crystal.frac, 0.05, 0, "budget", 1.0))

    def _cell(self, problem: Problem, before: Fit, floor: float) -> tuple[Fit, int]:
        """Positions and cell fitted together, if the target demands another cell; and all iterations so far.

        Args:
            problem: with the cell held.
            before: the best positions in the generated cell.
            floor: squared residual that is noise in any case.
        """
        if not self.strains.shape[1]:
            return before, before.iterations
        joint = replace(problem, strains=self.strains, weight=self._weight(problem, max(before.cost, floor)))
        after = fit(joint, before.frac, ITERATIONS)
        done = before.iterations + after.iterations
        return (after if excess(problem.target, before, after, floor) > SIGNIFICANT else before), done

    def _weight(self, problem: Problem, noise: float) -> float:
        """Weight of the prior: variance of a component, at a squared residual `noise`, over that of a strain."""
        return PRIOR * noise / len(problem.target) * (SIGMAS / self.bounds.length) ** 2

    def _symmetric(self, problem: Problem, before: Fit, numbers: ArrayLike, floor: float) -> tuple[Fit, int, str]:
        """The most symmetric crystal nearby that meets the target as well; its iterations and its space group."""
        assert self.tolerance is not None
        done = 0
        for part in PARTS:
            group = find_group(before.lattice, before.frac, numbers, part * self.tolerance)
            after = None if group is None else self._symmetrised(problem, before, group, floor)
            if group is None or after is None:
                continue
            done += after.iterations
            if excess(problem.target, after, before, floor) <= SIGNIFICANT:
                return after, done, f"{group.symbol} ({group.number})"
        return before, done, ""

    def _symmetrised(self, problem: Problem, before: Fit, group: Group, floor: float) -> Fit | None:
        """The crystal under a group that it almost has, fitted within it; None if that is too far away."""
        assert self.tolerance is not None
        shift = symmetric_strain(before.lattice, group)
        cell = before.lattice @ deformation(shift)
        if not self.strains.shape[1]:  # the cell stays as generated: only groups that it has already
            if np.abs(shift).max() > EXACT:
                return None
            cell, shift = before.lattice, np.zeros(6)
        elif not self.bounds.hold(cell, problem.generated):
            return None
        frac = symmetric_positions(before.frac, group)
        if largest_shift(before.frac, frac, cell) > self.tolerance:
            return None
        moves, strains = free_directions(cell, group, self.strains)
        inside = replace(problem, reference=cell, moves=moves)
        held = fit(inside, frac, ITERATIONS)
        held = replace(held, strain=before.strain + shift)
        if not strains.shape[1]:
            return held
        weight = self._weight(problem, max(before.cost, floor))
        after = fit(replace(inside, strains=strains, weight=weight, centre=-held.strain), held.frac, ITERATIONS)
        done = held.iterations + after.iterations
        if excess(problem.target, held, after, floor) > SIGNIFICANT:
            return replace(after, strain=held.strain + after.strain, iterations=done)
        return replace(held, iterations=done)

    def _refined(self, problem: Problem, at: Fit, done: int, symbol: str) -> Refined:
        norm = float(np.sqrt(np.sum(problem.target**2))) or 1.0
        blocks = {
            name: float(np.sqrt(np.sum(at.difference[part] ** 2))) / norm
            for name, part in self.descriptor.blocks(problem.n_channels).items()
        }
        frac = at.frac - np.floor(at.frac)
        frac[frac >= 1.0] = 0.0
        return Refined(
            at.lattice,
            frac,
            float(np.sqrt(at.cost)) / norm,
            blocks,
            done,
            _principal(problem.generated, at.lattice),
            symbol,
        )


def _principal(generated: FloatArray, lattice: FloatArray) -> float:
    """Largest absolute principal strain between two cells; 0 for the same cell."""
    if np.array_equal(generated, lattice):
        return 0.0
    change = inverse3(generated) @ lattice
    return float(np.abs(np.sqrt(np.linalg.eigvalsh(change @ change.T)) - 1.0).max())


def components(target: FloatArray) -> float:
    """How many independent components a target's noise has, if it grows with them: (sum q^2)^2 / sum q^4."""
    square = target * target
    total = float(np.sum(square * square))
    return float(np.sum(square)) ** 2 / total if total > 0 else 1.0


def excess(target: FloatArray, worse: Fit, better: Fit, floor: float) -> float:
    """Difference of two squared residuals, in units of the variance of one independent component of the noise.

    The noise is what the better fit leaves, at least the squared residual `floor`.
    """
    return (worse.cost - better.cost) / max(better.cost, floor, 1e-300) * components(target)
