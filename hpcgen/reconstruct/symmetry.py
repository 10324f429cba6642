"""Space groups of a cell that is only almost symmetric, and the nearest symmetric cell.

spglib (Togo, Shinohara and Tanaka, arXiv 1808.01590) finds the group within a tolerance; averaging over its operations
gives the symmetric metric and positions, and the directions in which both may move and stay symmetric.

Conventions: an operation maps fractional columns f to W f + w; a lattice L has rows, so its metric is G = L L^T and the
operation is symmetric for the cell if W^T G W = G. In Cartesian columns it turns by R = L^T W L^-T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.crystal import FloatArray, find_symmetry
from hpcgen.reconstruct.refine_fit import STRAINS
from hpcgen.reconstruct.refine_kernels import column_space
from hpcgen.represent.images import inverse3


@dataclass(frozen=True, eq=False)
class Group:
    """The operations of a cell, as found within a tolerance.

    Attributes:
        symbol: international short symbol, such as `Pm-3m`.
        number: international number.
        rotations: (g, 3, 3) W, int64.
        translations: (g, 3) w.
        images: (g, n) the atom that each operation takes an atom to.
    """

    symbol: str
    number: int
    rotations: NDArray[np.int64]
    translations: FloatArray
    images: NDArray[np.int64]


def find_group(lattice: FloatArray, frac: FloatArray, numbers: ArrayLike, tolerance: float) -> Group | None:
    """The space group within `tolerance` (angstrom); None if there is nothing but the identity, or none is found."""
    z = np.asarray(numbers).astype(np.int64)
    found = find_symmetry(lattice, frac, z, tolerance)
    if found is None or len(found.rotations) < 2:
        return None
    rotations, translations = np.asarray(found.rotations, dtype=np.int64), np.asarray(found.translations)
    images = _images(lattice, frac, z, rotations, translations)
    if images is None:
        return None
    return Group(str(found.international), int(found.number), rotations, translations, images)


def _images(
    lattice: FloatArray,
    frac: FloatArray,
    z: NDArray[np.int64],
    rotations: NDArray[np.int64],
    translations: FloatArray,
) -> NDArray[np.int64] | None:
    """(g, n) nearest like atom to where each operation takes an atom; None if two atoms go to one."""
    out = np.empty((len(rotations), len(frac)), dtype=np.int64)
    unlike = z[:, None] != z[None, :]
    for g, (w, t) in enumerate(zip(rotations, translations, strict=True)):
        away = (frac @ w.T + t)[:, None] - frac[None]
        away -= np.rint(away)
        distance = ((away @ lattice) ** 2).sum(axis=2)
        distance[unlike] = np.inf
        out[g] = distance.argmin(axis=1)
        if len(np.unique(out[g])) != len(frac):
            return None
    return out


def symmetric_strain(lattice: FloatArray, group: Group) -> FloatArray:
    """(6,) strain h that makes the cell L exp(H) symmetric and keeps its volume."""
    metric = lattice @ lattice.T
    mean = np.mean([w.T @ metric @ w for w in group.rotations], axis=0)
    inverse = inverse3(lattice)
    square = inverse @ mean @ inverse.T  # exp(2 H): L exp(2 H) L^T is the metric of L exp(H)
    values, vectors = np.linalg.eigh((square + square.T) / 2)
    exponent = (vectors * (0.5 * np.log(values))) @ vectors.T
    h = (STRAINS * exponent).sum(axis=(1, 2))
    h[-1] = 0.0
    return h


def symmetric_positions(frac: FloatArray, group: Group) -> FloatArray:
    """(n, 3) mean over the group of where its operations put each atom."""
    shift = np.zeros_like(frac)
    for w, t, image in zip(group.rotations, group.translations, group.images, strict=True):
        away = frac @ w.T + t - frac[image]
        shift[image] += away - np.rint(away)
    return frac + shift / len(group.rotations)


def free_directions(lattice: FloatArray, group: Group, strains: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Orthonormal directions that keep a symmetric cell symmetric.

    Args:
        lattice: (3, 3) symmetric under the group.
        group: of the cell.
        strains: (6, m) directions of the strain that are allowed at all.

    Returns:
        (3n, p) of the Cartesian positions, and (6, k) of the strain.
    """
    inverse = inverse3(lattice)
    turns = np.array([lattice.T @ w @ inverse.T for w in group.rotations])
    n = group.images.shape[1]
    projector = np.zeros((n, 3, n, 3))
    atoms = np.arange(n)
    for turn, image in zip(turns, group.images, strict=True):
        projector[image, :, atoms, :] += turn / len(turns)
    allowed = (strains[:, None, None, :] * STRAINS[:, :, :, None]).sum(axis=0)  # (3, 3, m)
    mean = np.mean([np.einsum("ac,cdm,bd->abm", r, allowed, r) for r in turns], axis=0)
    columns = np.einsum("kab,abm->km", STRAINS, mean)
    return column_space(projector.reshape(3 * n, 3 * n)), column_space(np.ascontiguousarray(columns))


def largest_shift(old: FloatArray, new: FloatArray, lattice: FloatArray) -> float:
    """Longest way of an atom between two sets of fractional coordinates in one cell, angstrom."""
    away = new - old
    return float(np.sqrt((((away - np.rint(away)) @ lattice) ** 2).sum(axis=1).max()))
