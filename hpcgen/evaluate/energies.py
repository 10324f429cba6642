"""Energies and relaxations of a set by the ML potential, in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import Failure
from hpcgen.evaluate.parallel import mapped
from hpcgen.relax import get_calculator
from hpcgen.relax.calculator import Calculator, Relaxed

AT_ONCE = 1e9  # limits that every crystal is within, so that a relaxation ends with its first evaluation


def relaxed(items: Sequence[Crystal | Failure], config: RelaxConfig, *, processes: int) -> list[Relaxed | Failure]:
    """Each crystal relaxed by the calculator of `config`, in order; failures stay what they are.

    Raises:
        ConfigError: if there is no such calculator.
        DependencyError: if its package is not installed.
    """
    get_calculator(config)
    work = partial(_relax, text=config.model_dump_json())
    return list(mapped(work, list(enumerate(items)), processes=processes, label="relaxing"))


def single_points(
    items: Sequence[Crystal | Failure], config: RelaxConfig, *, processes: int
) -> tuple[FloatArray, FloatArray]:
    """(M,) energies per atom (eV) and (M,) largest forces (eV/angstrom) of the crystals as they are, else NaN."""
    whole = config.model_copy(update={"max_force": AT_ONCE, "max_stress": AT_ONCE})
    energies, forces = np.full(len(items), np.nan), np.full(len(items), np.nan)
    for i, result in enumerate(relaxed(items, whole, processes=processes)):
        if isinstance(result, Relaxed):
            energies[i] = result.energy_initial / len(result.crystal)
            forces[i] = result.max_force_initial
    return energies, forces


def _relax(task: tuple[int, Crystal | Failure], text: str) -> Relaxed | Failure:
    index, item = task
    if isinstance(item, Failure):
        return item
    (result,) = _calculator(text).relax([f"row:{index + 1}"], [item])
    return result


@cache
def _calculator(text: str) -> Calculator:
    return get_calculator(RelaxConfig.model_validate_json(text))
