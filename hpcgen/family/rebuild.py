"""From samples of the family `representation` back to crystals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import Config
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, seed_of
from hpcgen.reconstruct.calibration import match_probability
from hpcgen.reconstruct.refine import Refined, Refiner
from hpcgen.reconstruct.solution import Solution, Solver
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.reconstruct.target import HOPELESS, least_residual
from hpcgen.represent.composition import channel_key, whole_counts
from hpcgen.represent.descriptor import make_descriptor, relabel, representation_config
from hpcgen.represent.lattice import build_lattice, squared_share
from hpcgen.store import File

if TYPE_CHECKING:
    from hpcgen.family.representation import RepresentationSample

_COST_BLOCK = 1 << 16  # samples looked at together
_REFINEMENT = 1.2e-3  # seconds of the refinement per atom, and per five atoms at the start
_GLANCE = 1 / 6  # of the search, spent on each of several cells before one gets all of it
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
        self.glance = make_solver(self.descriptor, config.reconstruct, share=_GLANCE)
        self.refiner = Refiner(self.descriptor, config.reconstruct)
        self.noise_floor = config.reconstruct.noise_floor
        self.accept, self.accept_atoms = config.reconstruct.accept, config.reconstruct.accept_atoms

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
        more = len(samples[0].more_lattices) if len(out) else 0
        return out * (1 + _GLANCE * (1 + more)) if more else out

    def reconstruct(self, sample: RepresentationSample, candidate_id: str, seed: int) -> Candidate | Failure:
        """The crystal whose descriptor comes nearest to one of the sample's.

        Search in the generated cell, refinement of cell and positions, symmetry; see `hpcgen.reconstruct.refine`. Of
        several cells and descriptors each gets a sixth of the search, after the first those of like volume before
        others, until a residual is at most `reconstruct.accept` and, times the number of atoms, at most
        `reconstruct.accept_atoms`; if none is, the nearest gets all of it. The least residual counts.
        Failures: `wrong-length`, `not-finite`, `empty-composition`, `too-many-atoms`; and, of the first cell if all
        fail, `impossible-cell`, `impossible-target` (no crystal comes near it, see `hpcgen.reconstruct.target`),
        `no-solution`.
        """
        start = time.perf_counter()
        try:
            species, numbers, repair = self._atoms(sample)
        except _UnusableError as error:
            return Failure(sample.id, "reconstruct", error.kind, error.message)
        best: _Rebuilt | None = None
        first: _UnusableError | None = None
        cells = [sample.lattice, *sample.more_lattices]
        vectors = [np.asarray(v, dtype=np.float64) for v in (sample.descriptor, *sample.more_descriptors)]
        seeds = [seed, *(seed_of(seed, str(number), "attempt") for number in range(1, len(cells)))]
        solver = self.solver if len(cells) == 1 else self.glance
        accept = min(self.accept, (self.accept_atoms or np.inf) / len(numbers))
        tried = 0
        for i in _by_volume(np.array(cells)):
            tried += 1
            try:
                rebuilt = self._attempt(solver, cells[i], vectors[i], species, numbers, seeds[i], i)
            except _UnusableError as error:
                first = first or error
                continue
            best = _nearer(best, rebuilt)
            if best.refined.residual <= accept:
                break
        if best is not None and best.refined.residual > accept and solver is not self.solver:
            i = best.attempt
            with suppress(_UnusableError):
                best = _nearer(best, self._attempt(self.solver, cells[i], vectors[i], species, numbers, seeds[i], i))
        if best is None:
            assert first is not None
            others = f"; nor were {tried - 1} other cells of any use" if tried > 1 else ""
            return Failure(sample.id, "reconstruct", first.kind, first.message + others)
        solution, refined = best.solution, best.refined
        return Candidate(
            id=candidate_id,
            crystal=Crystal(refined.lattice, refined.frac, numbers),
            sample_id=sample.id,
            family="representation",
            residual=refined.residual,
            iterations=solution.iterations + refined.iterations,
            stop_reason=solution.stop_reason,
            confidence=solution.confidence,
            repair=repair,
            cell_strain=refined.strain,
            symmetry=refined.symmetry,
            match_probability=match_probability(refined.residual, int(species.max()) + 1, self.settings),
            residual_blocks=np.array(list(refined.blocks.values())),
            seconds=time.perf_counter() - start,
            attempt=best.attempt,
            attempts=tried,
        )

    def _atoms(self, sample: RepresentationSample) -> tuple[NDArray[Any], NDArray[Any], str]:
        """Channel and atomic number of each atom, and what had to be changed for them.

        Raises:
            _UnusableError: if there are none, too many, or the sample is not what the file says.
        """
        composition = np.asarray(sample.composition, dtype=np.float64)
        length = self.descriptor.length(self.channels)
        shapes = [composition.shape, np.shape(sample.lattice), np.shape(sample.descriptor)]
        expected = [(len(self.elements),), (6,), (length,)]
        if shapes != expected:
            raise _UnusableError("wrong-length", f"composition, lattice and descriptor are {shapes}, not {expected}")
        further = [np.shape(sample.more_lattices), np.shape(sample.more_descriptors)]
        if further[0][0] != further[1][0] or (further[0][0] and (further[0][1:], further[1][1:]) != ((6,), (length,))):
            raise _UnusableError("wrong-length", f"further lattices and descriptors are {further}")
        if not all(np.isfinite(x).all() for x in (composition, sample.descriptor, sample.more_descriptors)):
            raise _UnusableError("not-finite", "the composition or a descriptor is not finite")
        if not np.isfinite(sample.n_atoms):
            raise _UnusableError("not-finite", "the number of atoms is not finite")
        named = sorted((i for i, n in enumerate(composition) if n > 0), key=lambda i: channel_key(self.elements[i]))
        if not named or sample.n_atoms < 0.5:
            raise _UnusableError("empty-composition", f"{len(named)} elements, {float(sample.n_atoms):.2f} atoms")
        if len(named) > self.channels:
            raise _UnusableError(
                "wrong-length", f"{len(named)} elements, and the descriptor has {self.channels} channels"
            )
        if max(composition.sum(), sample.n_atoms) > 2 * self.max_atoms + 1:
            raise _UnusableError("too-many-atoms", f"{max(composition.sum(), sample.n_atoms):.0f} atoms generated")
        negative = int((composition < 0).sum())
        unnamed = f"{negative} elements with less than no atoms left out" if negative else ""
        counts, note = whole_counts(composition[named], float(sample.n_atoms))
        if counts.sum() > self.max_atoms:
            raise _UnusableError("too-many-atoms", f"{counts.sum()} atoms, more than {self.max_atoms}")
        species = np.repeat(np.arange(len(named)), counts)
        numbers = np.array([self.elements[i] for i in named])[species]
        return species, numbers, "; ".join(filter(None, (sample.repair, unnamed, note)))

    def _attempt(
        self,
        solver: Solver,
        cell: NDArray[Any],
        vector: FloatArray,
        species: NDArray[Any],
        numbers: NDArray[Any],
        seed: int,
        attempt: int,
    ) -> _Rebuilt:
        """The crystal of these atoms in one cell that comes nearest to one descriptor.

        Raises:
            _UnusableError: if there is no such cell, or no crystal comes near.
        """
        named = int(species.max()) + 1
        try:
            lattice = build_lattice(cell, len(numbers))
        except ValueError as error:
            raise _UnusableError("impossible-cell", str(error)) from None
        # channels that are not in use hold only what the network left of noise
        target = relabel(self.settings, vector, np.eye(named, self.channels))
        if (least := least_residual(self.descriptor, target, named)) > HOPELESS:
            told = "values that are negative for no crystal make up" if target.any() else "it is zero:"
            raise _UnusableError("impossible-target", f"no crystal comes near the target: {told} {least:.0%} of it")
        try:
            solution = solver.solve(target, lattice, numbers, seed, self.noise_floor)
            return _Rebuilt(
                attempt, solution, self.refiner.refine(target, lattice, numbers, solution, self.noise_floor)
            )
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            raise _UnusableError("no-solution", str(error)) from None


@dataclass(frozen=True)
class _Rebuilt:
    """What became of one cell and descriptor."""

    attempt: int
    solution: Solution
    refined: Refined


def _by_volume(cells: NDArray[Any]) -> list[int]:
    """The order in which cells (K, 6) are looked at: the first, then by how little their volume differs from its own.

    So what is kept has the volumes that the model draws, although dense crystals are easier to meet than loose ones.
    """
    volumes = cell_volumes(cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(np.log(volumes / volumes[0]))
    distance[0] = -1.0
    return np.argsort(distance, kind="stable").tolist()  # what is no cell comes last


def _nearer(best: _Rebuilt | None, other: _Rebuilt) -> _Rebuilt:
    """The one with the smaller residual; the first of equals."""
    return best if best is not None and best.refined.residual <= other.refined.residual else other


class _UnusableError(Exception):
    """Why a sample, or one of its cells and descriptors, leads to no crystal."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def cell_volumes(parameters: NDArray[Any]) -> FloatArray:
    """(M, 6) a, b, c, alpha, beta, gamma (angstrom, degrees) to (M,) cubic angstrom, NaN where there is no cell."""
    p = np.asarray(parameters, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return p[:, :3].prod(axis=1) * np.sqrt(squared_share(p[:, 3:]))
