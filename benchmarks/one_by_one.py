"""CHGNet's own StructOptimizer, one crystal after the other: the other side of benchmarks/relax.py.

Its optimiser (FIRE on a FrechetCellFilter) knows one number only, the largest row of forces and cell gradient together,
so "the same criteria" takes two parts. As it is: `relax` with the force criterion, which is timed. Then, not timed, the
same optimiser and filter go on from there, step by step, until force and stress criterion both hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, from_structure, to_structure
from hpcgen.relax.calculator import largest_force, largest_stress
from hpcgen.relax.minimise import GPA

if TYPE_CHECKING:
    from chgnet.model.dynamics import StructOptimizer


@dataclass(frozen=True)
class End:
    """Where a relaxation ended.

    Attributes:
        energy: eV per atom.
        force: largest norm of a force, eV/angstrom.
        stress: largest component, GPa.
        steps: of the optimiser, from the start of this part.
        lattice, frac: of the crystal.
    """

    energy: float
    force: float
    stress: float
    steps: int
    lattice: list[list[float]]
    frac: list[list[float]]

    def crystal(self, numbers: np.ndarray) -> Crystal:
        """As a crystal of these atoms."""
        return Crystal(np.array(self.lattice), np.array(self.frac), numbers)


@dataclass(frozen=True)
class Other:
    """What StructOptimizer makes of a crystal: as it is, with its time, and after it went on until both criteria held.

    Attributes:
        seconds, cpu_s: wall and CPU-seconds of the part as it is.
        met: whether both criteria held in the end.
    """

    as_it_is: End
    same: End
    met: bool
    seconds: float
    cpu_s: float


def one_by_one(
    crystals: list[Crystal],
    config: RelaxConfig,
    further: int,
    threads: int,
    warm_up: list[Crystal],
    limit: float = float("inf"),
    cache: Path | None = None,
) -> list[Other | str]:
    """Relax each crystal until `limit` seconds are over; what its code raised stands in place of a result.

    Args:
        further: steps at most after the part as it is.
        threads: of torch.
        cache: file of results of earlier runs, a line each, which are not computed again; new ones are appended.
    """
    known = _read(cache)
    optimiser = None
    out: list[Other | str] = []
    begin = time.perf_counter()
    for crystal in crystals:
        key = _key(crystal, config, further, threads)
        if key not in known:
            if optimiser is None:
                optimiser = _optimiser(config, threads, warm_up)
                begin = time.perf_counter()
            elif time.perf_counter() - begin > limit:
                break
            known[key] = _relax(optimiser, crystal, config, further)
            _append(cache, key, known[key])
        out.append(known[key])
    return out


def _optimiser(config: RelaxConfig, threads: int, warm_up: list[Crystal]) -> StructOptimizer:
    import torch
    from chgnet.model.dynamics import StructOptimizer

    torch.set_num_threads(threads)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        optimiser = StructOptimizer(use_device=None if config.device == "auto" else config.device)
    for crystal in warm_up:
        _relax(optimiser, crystal, config, 0)
    return optimiser


def _relax(optimiser: StructOptimizer, crystal: Crystal, config: RelaxConfig, further: int) -> Other | str:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        start, cpu = time.perf_counter(), time.process_time()
        try:
            found = optimiser.relax(
                to_structure(crystal),
                fmax=config.max_force,
                steps=config.max_steps,
                verbose=False,
                assign_magmoms=False,
            )
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            path, structure = found["trajectory"], found["final_structure"]
            as_it_is = _end(
                structure, path.energies[-1].item(), path.forces[-1], path.stresses[-1], len(path.energies) - 2
            )
            same, met = _go_on(optimiser, structure, config, further)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            return f"{type(error).__name__}: {error}"
    return Other(as_it_is, same, met, seconds, cpu)


def _go_on(optimiser: StructOptimizer, structure: Any, config: RelaxConfig, steps: int) -> tuple[End, bool]:
    """From `structure` until forces and stress are both within the limits; where it ended, and whether they are."""
    from ase.filters import FrechetCellFilter
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = optimiser.calculator
    met, taken = False, -1
    for _ in optimiser.optimizer_class(FrechetCellFilter(atoms), logfile=None).irun(fmax=0.0, steps=steps):
        taken += 1
        forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
        met = largest_force(forces) <= config.max_force and largest_stress(stress) * GPA <= config.max_stress
        if met:
            break
    end = AseAtomsAdaptor.get_structure(atoms)
    return _end(end, atoms.get_potential_energy(), forces, stress, taken), bool(met)


def _end(structure: Any, energy: float, forces: Any, stress: Any, steps: int) -> End:
    crystal = from_structure(structure)
    force = largest_force(np.asarray(forces, np.float64))
    gpa = largest_stress(np.asarray(stress, np.float64)) * GPA
    return End(float(energy) / len(crystal), force, gpa, steps, crystal.lattice.tolist(), crystal.frac.tolist())


def _key(crystal: Crystal, config: RelaxConfig, further: int, threads: int) -> str:
    total = hashlib.blake2b(digest_size=8)
    for part in (crystal.lattice, crystal.frac, crystal.numbers):
        total.update(part.tobytes())
    total.update(json.dumps([config.criteria(), config.device, further, threads], sort_keys=True).encode())
    return total.hexdigest()


def _read(cache: Path | None) -> dict[str, Other | str]:
    known: dict[str, Other | str] = {}
    if cache is None or not cache.exists():
        return known
    for line in cache.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "error" in row:
            known[row["key"]] = row["error"]
        else:
            ends = End(**row["as_it_is"]), End(**row["same"])
            known[row["key"]] = Other(*ends, row["met"], row["seconds"], row["cpu_s"])
    return known


def _append(cache: Path | None, key: str, result: Other | str) -> None:
    if cache is None:
        return
    row = {"error": result} if isinstance(result, str) else asdict(result)
    with cache.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, **row}) + "\n")
