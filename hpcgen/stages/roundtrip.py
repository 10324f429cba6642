"""`hpcgen reconstruct --structures FILE`: real structures -> structures.h5 -> roundtrip.h5, over all MPI ranks.

Each structure is encoded by the descriptor of the configuration, with noise if that is asked for, rebuilt from the
vector, its elements and its cell by the solver that belongs to the descriptor (and refined if there is noise, as the
samples of a campaign are), and compared with what it was. It is no link of the chain, since nothing is generated, but
runs as a stage does: in a folder that belongs to one configuration (section `roundtrip`), resumed from shards, the same
on any number of ranks. Seeds depend on the place of a structure in its source, so a draw of 100 and a draw of 1000
agree where they overlap.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hpcgen import data, farm, provenance, store
from hpcgen.config import Config, resolve_path
from hpcgen.crystal import Crystal, FloatArray, lattice_from_parameters, to_structure
from hpcgen.errors import DataError, Failure, UsageError
from hpcgen.farm import lock
from hpcgen.flow import Entry, RoundTrip, make_id, seed_of
from hpcgen.reconstruct.refine import Refined, Refiner
from hpcgen.reconstruct.solution import Solution, Solver
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import Descriptor, descriptor_attrs, make_descriptor
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.reconstruct import warm_up_in_turn

STAGE = "roundtrip"
STRUCTURES, OUTPUT = "structures.h5", "roundtrip.h5"
MATCHING = 0.02  # seconds that StructureMatcher takes for a small cell


def run(ctx: Context) -> Balance | None:
    """Rebuild the structures of `roundtrip.structures` and write roundtrip.h5. All ranks call it.

    Returns:
        The balance on the leader, None on the others. Rows of the source that are no usable crystal count as failures.

    Raises:
        UsageError: if the configuration names no structures.
        DataError: if they are missing, of no known layout, or none of them is usable.
        StoreError: if a dataset.h5 that is given is damaged or of another schema.
    """
    config, world, path = ctx.config, farm.world(), ctx.path(STRUCTURES)
    if world.rank == 0 and not lock.solo():
        _write_structures(ctx, path)
    world.barrier()
    with store.open(path, Entry) as structures:
        unusable = structures.failures
        rebuilder = Rebuilder(config)
        warm_up_in_turn(rebuilder.warm_up, world)

        def work(index: int) -> RoundTrip | Failure:
            if index >= len(structures):
                return unusable[index - len(structures)]
            return rebuilder.round_trip(structures[index])

        def name_of(index: int) -> str:
            return structures[index].source if index < len(structures) else unusable[index - len(structures)].id

        def deliver(result: farm.FarmResult) -> Balance:
            balance = Balance.of(STAGE, result.tasks, result.records, result.failures)
            header = provenance.header(config, {path.name: structures.content_digest})
            attrs = {
                "balance": balance.to_json(),
                "names_residual_blocks": list(make_descriptor(config.representation).blocks(1)),
                **descriptor_attrs(config.representation),
            }
            result.write(ctx.path(OUTPUT), header=header, attrs=attrs)
            return balance

        digest = config.identity(STAGE)
        others = [make_id(digest, f"{STAGE}-unusable", k).encode() for k in range(len(unusable))]
        return farm.run(
            np.concatenate([structures.raw_ids, np.array(others, dtype="S16")]),
            _costs(rebuilder, structures) if world.rank == 0 else 0.0,
            work,
            RoundTrip,
            # shards of other structures or settings are never taken for these
            shards=ctx.path(f"shards-{STAGE}-{structures.content_digest[:16]}"),
            config=config.farm,
            label=STAGE,
            deliver=deliver,
            name_of=name_of,
            world=world,
        )


@dataclass(frozen=True)
class _Link:
    """From a crystal to its vector and back, for data of a number of elements; `refiner` is None for exact targets."""

    descriptor: Descriptor
    solver: Solver
    refiner: Refiner | None

    @classmethod
    def of(cls, config: Config, n_elements: int, refined: bool) -> _Link:
        descriptor = make_descriptor(config.representation.resolved(n_elements, exact=not refined))
        refiner = Refiner(descriptor, config.reconstruct) if refined else None
        return cls(descriptor, make_solver(descriptor, config.reconstruct), refiner)


class Rebuilder:
    """What turns crystals into targets, and targets back into crystals; serves many of them, in threads too.

    Args:
        config: descriptor, solver, refinement, seed, and the noise of the section `roundtrip`.

    """

    def __init__(self, config: Config) -> None:
        self._noise, self._lattice_noise = config.roundtrip.noise, config.roundtrip.lattice_noise
        # an exact target is met in its own cell, and needs neither another one nor symmetry
        refined = bool(self._noise or self._lattice_noise)
        # what stands alone is encoded as data of so many elements are; a draw must not depend on what else is drawn
        self._links = {n: _Link.of(config, n, refined) for n in (1, 2)}
        self._seed = config.seed

    def link(self, numbers: ArrayLike) -> _Link:
        """Descriptor, solver and refinement for a crystal of the atomic numbers (n,)."""
        return self._links[min(len(np.unique(numbers)), 2)]

    def warm_up(self) -> None:
        """Compile the kernels, or load them from their cache."""
        self._links[2].solver.warm_up()
        if (refiner := self._links[2].refiner) is not None:
            refiner.warm_up()

    def costs(self, n_atoms: FloatArray, n_elements: FloatArray, volume: FloatArray) -> FloatArray:
        """(M,) estimated seconds, as `hpcgen.reconstruct.solution.Solver.costs`."""
        alone, several = (self._links[n].solver.costs(n_atoms, n_elements, volume) for n in (1, 2))
        return np.where(n_elements == 1, alone, several)

    def pose(self, crystal: Crystal, name: str) -> tuple[FloatArray, FloatArray]:
        """Target (D,) and lattice (3, 3) of a crystal, with the noise that is called `name`; see `pose`.

        Raises:
            ValueError: if the disturbed lengths and angles are no cell.
        """
        seed = seed_of(self._seed, name, "noise")
        return pose(self.link(crystal.numbers).descriptor, crystal, self._noise, self._lattice_noise, seed)

    def solve(
        self, target: FloatArray, lattice: FloatArray, numbers: ArrayLike, name: str
    ) -> tuple[Crystal, Solution, Refined | None]:
        """The crystal for a target, what the solver found, and what refinement made of it.

        Raises:
            ValueError: on a target or cell that the solver refuses.
        """
        link = self.link(numbers)
        solution = link.solver.solve(target, lattice, numbers, seed_of(self._seed, name, STAGE), self._noise)
        if link.refiner is None:
            return Crystal(lattice, solution.frac, np.asarray(numbers)), solution, None
        refined = link.refiner.refine(target, lattice, numbers, solution)
        better = replace(
            solution,
            frac=refined.frac,
            residual=refined.residual,
            blocks=refined.blocks,
            iterations=solution.iterations + refined.iterations,
        )
        return Crystal(refined.lattice, refined.frac, np.asarray(numbers)), better, refined

    def round_trip(self, entry: Entry) -> RoundTrip | Failure:
        """One structure, encoded, rebuilt and matched with itself.

        Failures: `impossible-cell` (lattice noise left no cell), `no-solution`.
        """
        try:
            target, lattice = self.pose(entry.crystal, entry.id)
        except ValueError as error:
            return Failure(entry.source, STAGE, "impossible-cell", str(error))
        start = time.thread_time()
        try:
            built, solution, refined = self.solve(target, lattice, entry.crystal.numbers, entry.id)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return Failure(entry.source, STAGE, "no-solution", str(error))
        seconds = time.thread_time() - start
        rms = match(built, entry.crystal)
        return RoundTrip(
            id=entry.id,
            crystal=built,
            source=entry.source,
            matched=rms is not None,
            rms=np.nan if rms is None else rms,
            residual=solution.residual,
            iterations=solution.iterations,
            stop_reason=solution.stop_reason,
            confidence=solution.confidence,
            cell_strain=refined.strain if refined else 0.0,
            symmetry=refined.symmetry if refined else "",
            residual_blocks=np.array(list(solution.blocks.values())),
            seconds=seconds,
        )


def pose(
    descriptor: Descriptor, crystal: Crystal, noise: float, lattice_noise: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """The problem that a crystal poses to a solver: target (D,) and lattice (3, 3) in angstrom.

    Args:
        descriptor: what encodes; the channels are the elements of the crystal.
        crystal: the answer.
        noise: every component is multiplied by 1 + noise z, z normal.
        lattice_noise: so is every length of the cell; the angles change by 60 lattice_noise z degrees.
        seed: of the noise.

    Raises:
        ValueError: if the disturbed lengths and angles are no cell.
    """
    species, elements = species_channels(crystal.numbers)
    target, lattice = descriptor.encode(crystal, species, len(elements)), crystal.lattice
    rng = np.random.default_rng(seed)
    if noise:
        target = target * (1 + noise * rng.standard_normal(len(target)))
    if lattice_noise:
        parameters = crystal.parameters
        parameters[:3] *= 1 + lattice_noise * rng.standard_normal(3)
        parameters[3:] += 60 * lattice_noise * rng.standard_normal(3)
        lattice = lattice_from_parameters(parameters)
    return target, lattice


def match(built: Crystal, real: Crystal) -> float | None:
    """Root mean square displacement over (V/N)^(1/3), None if the crystals do not match.

    By StructureMatcher with CDVAE's tolerances (arXiv 2110.06197), which the papers measure reconstruction by; those
    of `hpcgen.screen.matching` are stricter.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = matcher.get_rms_dist(to_structure(built), to_structure(real))
    return None if distance is None else float(distance[0])


def source_of(ctx: Context) -> Path | None:
    """Where `roundtrip.structures` lie; None for the built-in ones.

    Raises:
        UsageError: if the configuration names none.
        DataError: if there is no such file or folder.
        ConfigError: for `data:NAME` where HPCGEN_DATA is unset.
    """
    named = ctx.config.roundtrip.structures
    if named is None:
        raise UsageError(
            "the configuration names no structures to rebuild", remedy="hpcgen reconstruct --structures FILE"
        )
    file = None if named == data.BUILTIN else resolve_path(named, ctx.config_dir)
    if file is not None and not file.exists():
        raise DataError(f"there are no structures at {file}", remedy="correct the path after --structures")
    return file


def _write_structures(ctx: Context, path: Path) -> None:
    """structures.h5 from the source, unless it is there and of the same content."""
    config, trip, file = ctx.config, ctx.config.roundtrip, source_of(ctx)
    is_dataset = file is not None and file.suffix == ".h5"
    source = config.data.model_copy(update={"source": trip.structures, "max_failures": 1.0})
    inputs = {file.name: store.content_digest(file)} if file and is_dataset else data.inputs(source, ctx.config_dir)
    header = provenance.header(config, inputs)
    if path.exists():
        with store.open(path, Entry) as f:
            if f.attrs["inputs"] == header["inputs"]:
                return
    digest = config.identity(STAGE)
    failures: list[Failure] = []
    if file and is_dataset:
        with store.open(file, Entry) as f:
            picked = [
                (index, entry.source, entry.crystal) for index, entry in data.drawn(enumerate(f), trip.n, config.seed)
            ]
    else:
        read = data.load(
            source, config_dir=ctx.config_dir, processes=data.available_cores(), n=trip.n, seed=config.seed
        )
        picked, failures = list(zip(read.indices, read.labels, read.crystals, strict=True)), read.failures
    entries = [Entry(make_id(digest, STAGE, index), c, source=label, split="test") for index, label, c in picked]
    store.write(path, Entry, entries, failures=failures, header=header)


def _costs(rebuilder: Rebuilder, structures: store.File) -> FloatArray:
    """(M + F,) estimated seconds: M structures, and F failures that cost nothing."""
    crystals = structures.crystals
    n = np.diff(crystals.offset).astype(np.float64)
    elements = np.array([len(np.unique(crystals.numbers[a:b])) for a, b in pairwise(crystals.offset.tolist())], float)
    costs = rebuilder.costs(n, elements, np.abs(np.linalg.det(crystals.lattice))) + MATCHING
    return np.concatenate([costs, np.zeros(len(structures.failures))])
