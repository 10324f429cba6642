"""Polish after decoding: what residual a decoded crystal leaves, and the symmetry that this residual allows.

A decoded atom is the mean of m points, so it is off by about their spread over the root of m. Within some times that, a
space group is looked for, and cell and positions are averaged over it. Where the symmetry is real, moving the atoms to
their places adds about (spread)^2 / m to the mean square distance of the points; three times that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.pointcloud.cloud import Cloud
from hpcgen.pointcloud.decode import Decoded
from hpcgen.reconstruct.refine_fit import deformation
from hpcgen.reconstruct.symmetry import find_group, largest_shift, symmetric_positions, symmetric_strain

ERRORS = (8.0, 4.0, 2.0, 1.0)  # standard errors of an atom's position that are tried as tolerance, widest first
LEAST = 0.01  # angstrom: tolerance for exact clouds, and what their residual may grow by
GROWTH = 3.0  # squared errors of a position by which the mean square distance may grow
OUTLYING = 3.0  # medians from which on a distance counts as this much: stray points say nothing of positions


@dataclass(frozen=True, eq=False)
class Polished:
    """A crystal after polish.

    Attributes:
        crystal: the symmetric one, or the decoded one where no symmetry fits.
        symmetry: space group imposed, such as `Pm-3m (221)`; empty if none.
        residual_A: of the crystal decoded, see `residual`.
        polished_residual_A: of `crystal`.
        strain: largest absolute principal strain by which the cell was changed.
    """

    crystal: Crystal
    symmetry: str
    residual_A: float  # noqa: N815 - the unit
    polished_residual_A: float  # noqa: N815
    strain: float


def residual(cloud: Cloud, crystal: Crystal, slots: Sequence[int]) -> float:
    """Root mean square distance of a cloud's points to the nearest atom of their element, angstrom.

    Distances beyond `OUTLYING` times the median count as this. Points of an element that the crystal lacks are left
    out; infinite if no others are there.
    """
    slot = np.asarray(cloud.element)[:, : len(slots)].argmax(axis=1)
    squares: list[FloatArray] = []
    for s, z in enumerate(slots):
        atoms, points = crystal.frac[crystal.numbers == z], cloud.position[slot == s]
        if len(atoms) and len(points):
            away = points[:, None] - atoms[None]
            away -= np.rint(away)
            squares.append(((away @ crystal.lattice) ** 2).sum(axis=2).min(axis=1))
    if not squares:
        return float("inf")
    all_squares = np.concatenate(squares)
    return float(np.sqrt(np.minimum(all_squares, OUTLYING**2 * np.median(all_squares)).mean()))


def polish(decoded: Decoded, cloud: Cloud, slots: Sequence[int]) -> Polished:
    """The decoded crystal with the highest symmetry that its cloud allows. The volume stays as it is.

    Args:
        decoded: of `hpcgen.pointcloud.decode.decode`.
        cloud: that it was decoded from.
        slots: of the cloud.
    """
    with threadpool_limits(1, user_api="blas"):  # its bits depend on its threads
        return _polish(decoded, cloud, slots)


def _polish(decoded: Decoded, cloud: Cloud, slots: Sequence[int]) -> Polished:
    before = decoded.crystal
    start = residual(cloud, before, slots)
    error = decoded.spread_A / np.sqrt(decoded.multiplicity.mean())
    tried: set[float] = set()
    for errors in ERRORS:
        tolerance = max(errors * error, LEAST)
        if tolerance in tried:
            continue
        tried.add(tolerance)
        group = find_group(before.lattice, before.frac, before.numbers, tolerance)
        if group is None:
            continue
        change = deformation(symmetric_strain(before.lattice, group))
        lattice = before.lattice @ change
        frac = _kept_in_place(before.frac, symmetric_positions(before.frac, group))
        if largest_shift(before.frac, frac, lattice) > 2 * tolerance:  # spglib's tolerance is of pairs of atoms
            continue
        after = Crystal(lattice, frac, before.numbers)
        left = residual(cloud, after, slots)
        if left**2 <= start**2 + max(GROWTH * error**2, LEAST**2):
            strain = float(np.abs(np.linalg.eigvalsh(change) - 1).max())
            return Polished(after, f"{group.symbol} ({group.number})", start, left, strain)
    return Polished(before, "", start, start, 0.0)


def _kept_in_place(old: FloatArray, new: FloatArray) -> FloatArray:
    """`new` moved as a whole to where it is nearest to `old`: the origin of a group hangs on single atoms."""
    away = new - old
    return new - (away - np.rint(away)).mean(axis=0)
