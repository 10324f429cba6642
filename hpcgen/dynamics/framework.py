"""Does a crystal hold together? What the atoms that should stay at their places do in a simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.crystal import to_structure
from hpcgen.dynamics.md import Trajectory

LINDEMANN = 0.15
"""Vibration over nearest-neighbour distance beyond which solids melt (0.10 to 0.15 in the literature)."""

LEFT_SITE = 0.5
"""An atom whose mean place has moved by more than this share of the nearest-neighbour distance is elsewhere."""


@dataclass(frozen=True)
class Framework:
    """What the framework did. Drift of the framework as a whole is taken off.

    Attributes:
        displacement: largest distance of a framework atom from its start, angstrom: DiffusionAnalyzer's
            `max_framework_displacement`.
        shift: largest distance between an atom's start and its mean place in the last quarter, angstrom.
        vibration: root mean square distance of the atoms from their mean places in the second half, angstrom.
        lindemann: mean over atoms of vibration over nearest-neighbour distance.
        stays: it is still the crystal it was (`LINDEMANN`, `LEFT_SITE`).
    """

    displacement: float
    shift: float
    vibration: float
    lindemann: float
    stays: bool


def framework(trajectory: Trajectory, mobile: ArrayLike = ()) -> Framework:
    """Judge the atoms that are not of a mobile kind.

    Args:
        trajectory: the simulation.
        mobile: atomic numbers of the ions that may move.

    Raises:
        ValueError: if all atoms are mobile.
    """
    fixed: NDArray[np.bool_] = ~np.isin(trajectory.crystal.numbers, np.asarray(mobile, dtype=int))
    if not fixed.any():
        raise ValueError("every atom is of a mobile kind, so there is no framework")
    moved = trajectory.displacements[:, fixed]
    moved = moved - moved.mean(axis=1, keepdims=True)
    nearest = _nearest(trajectory)[fixed]
    late, last = moved[len(moved) // 2 :], moved[-max(1, len(moved) // 4) :]
    vibration = np.sqrt(((late - late.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    shift = np.linalg.norm(last.mean(axis=0), axis=1)
    lindemann = float((vibration / nearest).mean())
    return Framework(
        displacement=float(np.linalg.norm(moved, axis=2).max()),
        shift=float(shift.max()),
        vibration=float(np.sqrt((vibration**2).mean())),
        lindemann=lindemann,
        stays=lindemann < LINDEMANN and bool((shift < LEFT_SITE * nearest).all()),
    )


def _nearest(trajectory: Trajectory) -> NDArray[np.float64]:
    """(n,) distance of each atom to its nearest neighbour at the start, own images included, angstrom."""
    structure = to_structure(trajectory.crystal)
    reach = 4.0
    while True:
        centre, _, _, distance = structure.get_neighbor_list(reach, exclude_self=True)
        out = np.full(len(structure), np.inf)
        np.minimum.at(out, centre, distance)
        if np.isfinite(out).all():
            return out
        reach *= 1.5
