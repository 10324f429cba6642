"""From samples of the family `representation` back to crystals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate
from hpcgen.reconstruct.calibration import match_probability
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.reconstruct.target import HOPELESS, least_residual
from hpcgen.represent.composition import channel_key, whole_counts
from hpcgen.represent.descriptor import make_descriptor, relabel, representation_config
from hpcgen.represent.lattice import build_lattice
from hpcgen.store import File

if TYPE_CHECKING:
    from hpcgen.family.representation import RepresentationSample

_COST_BLOCK = 1 << 16  # samples looked at together
_REFINEMENT = 1.2e-3  # seconds of the refinement per atom, and per five atoms at the start
_DENSEST = 2.0  # cubic angstrom per atom; a cell that is smaller, or none, cannot be meant


class RepresentationReconstructor:
    """A `hpcgen.family.Reconstructor`: the solver that belongs to the file's descriptor.

    Args:
        attrs: attributes of samples.h5.
        config: for the solver's settings (section `reconstruct`).

    Raises:
        StoreError: if the attributes are not those of this family's samples.
    """

    def __init__(self, attrs: Mapping[str, Any], config: Config) -> None:
        from ase.data import atomic_numbers

        self.settings = representation_config(attrs)
        try:
            self.elements = tuple(atomic_numbers[symbol] for symbol in attrs["elements"])
            self.channels, self.max_atoms = int(attrs["channels"]), int(attrs["max_atoms"])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"the attributes of the samples do not fit the family `representation`: {error}",
                expected="`elements`, `channels` and `max_atoms` as `hpcgen sample` writes them",
            ) from None
        self.descriptor = make_descriptor(self.settings)
        self.solver = make_solver(self.descriptor, config.reconstruct)
        self.refiner = Refiner(self.descriptor, config.reconstruct)
        self.noise_floor = config.reconstruct.noise_floor

    def candidate_attrs(self) -> dict[str, Any]:
        """The names of the blocks that `residual_blocks` gives."""
        return {"names_residual_blocks": list(self.descriptor.blocks(self.channels))}

    def warm_up(self) -> None:
        """Compile the kernels, or load them from their cache."""
        self.solver.warm_up()
        self.refiner.warm_up()

    def costs(self, samples: File) -> FloatArray:
        """(M,) estimated seconds, from the numbers of atoms and elements and the volume of the cell; see the solvers.

        What is impossible counts as small, since it fails at once. Refinement takes 12 ms on 5 atoms and 30 on 20.
        """
        out = np.empty(len(samples))
        atoms, cells, compositions = (samples.array(name) for name in ("n_atoms", "lattice", "composition"))
        for start in range(0, len(out), _COST_BLOCK):
            block = slice(start, start + _COST_BLOCK)
            n = atoms[block].astype(np.float64)
            n = np.where((n >= 1) & (n <= self.max_atoms), n, 1.0)
            volume = cell_volumes(cells[block])
            elements = np.clip((compositions[block] > 0).sum(axis=1), 1.0, np.minimum(n, self.channels))
            costs = self.solver.costs(n, elements, np.where(volume > n * _DENSEST, volume, n * _DENSEST))
            out[block] = costs + _REFINEMENT * (n + 5)
        return out

    def reconstruct(self, sample: RepresentationSample, candidate_id: str, seed: int) -> Candidate | Failure:
        """The crystal whose descriptor comes nearest to the sample's.

        Search in the generated cell, refinement of cell and positions, symmetry; see `hpcgen.reconstruct.refine`.
        Failures: `wrong-length`, `not-finite`, `empty-composition`, `too-many-atoms`, `impossible-cell`,
        `impossible-target` (no crystal comes near it, see `hpcgen.reconstruct.target`), `no-solution`.
        """
        start = time.perf_counter()

        def failure(kind: str, message: str) -> Failure:
            return Failure(sample.id, "reconstruct", kind, message)

        composition = np.asarray(sample.composition, dtype=np.float64)
        vector = np.asarray(sample.descriptor, dtype=np.float64)
        length = self.descriptor.length(self.channels)
        if composition.shape != (len(self.elements),) or vector.shape != (length,) or np.shape(sample.lattice) != (6,):
            shapes = f"{composition.shape}, {np.shape(sample.lattice)} and {vector.shape}"
            expected = f"({len(self.elements)},), (6,) and ({length},)"
            return failure("wrong-length", f"composition, lattice and descriptor are {shapes}, not {expected}")
        if not (np.isfinite(composition).all() and np.isfinite(vector).all() and np.isfinite(sample.n_atoms)):
            return failure("not-finite", "the number of atoms, the composition or the descriptor is not finite")
        named = sorted((i for i, n in enumerate(composition) if n > 0), key=lambda i: channel_key(self.elements[i]))
        if not named or sample.n_atoms < 0.5:
            return failure("empty-composition", f"{len(named)} elements, {float(sample.n_atoms):.2f} atoms")
        if len(named) > self.channels:
            return failure("wrong-length", f"{len(named)} elements, and the descriptor has {self.channels} channels")
        if max(composition.sum(), sample.n_atoms) > 2 * self.max_atoms + 1:
            return failure("too-many-atoms", f"{max(composition.sum(), sample.n_atoms):.0f} atoms generated")
        negative = int((composition < 0).sum())
        unnamed = f"{negative} elements with less than no atoms left out" if negative else ""
        counts, note = whole_counts(composition[named], float(sample.n_atoms))
        if counts.sum() > self.max_atoms:
            return failure("too-many-atoms", f"{counts.sum()} atoms, more than {self.max_atoms}")
        try:
            lattice = build_lattice(sample.lattice, int(counts.sum()))
        except ValueError as error:
            return failure("impossible-cell", str(error))
        species = np.repeat(np.arange(len(named)), counts)
        numbers = np.array([self.elements[i] for i in named])[species]
        # channels that are not in use hold only what the network left of noise
        target = relabel(self.settings, vector, np.eye(len(named), self.channels))
        if (least := least_residual(self.descriptor, target, len(named))) > HOPELESS:
            told = "values that are negative for no crystal make up" if target.any() else "it is zero:"
            return failure("impossible-target", f"no crystal comes near the target: {told} {least:.0%} of it")
        try:
            solution = self.solver.solve(target, lattice, numbers, seed, self.noise_floor)
            refined = self.refiner.refine(target, lattice, numbers, solution, self.noise_floor)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return failure("no-solution", str(error))
        return Candidate(
            id=candidate_id,
            crystal=Crystal(refined.lattice, refined.frac, numbers),
            sample_id=sample.id,
            family="representation",
            residual=refined.residual,
            iterations=solution.iterations + refined.iterations,
            stop_reason=solution.stop_reason,
            confidence=solution.confidence,
            repair="; ".join(filter(None, (sample.repair, unnamed, note))),
            cell_strain=refined.strain,
            symmetry=refined.symmetry,
            match_probability=match_probability(refined.residual, len(named), self.descriptor.name),
            residual_blocks=np.array(list(refined.blocks.values())),
            seconds=time.perf_counter() - start,
        )


def cell_volumes(parameters: NDArray[Any]) -> FloatArray:
    """(M, 6) a, b, c, alpha, beta, gamma (angstrom, degrees) to (M,) cubic angstrom, NaN where there is no cell."""
    p = np.asarray(parameters, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        ca, cb, cg = np.cos(np.radians(p[:, 3:])).T
        return p[:, :3].prod(axis=1) * np.sqrt(1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg)
