"""What a picture of a crystal shows: atoms in the box, an upright orientation, colours and radii."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray

FACE = 0.02
"""Fractional distance below which an atom counts as lying on a face, and is shown on the opposite one too."""

BOND = 1.15
"""Two atoms are joined if they are nearer than this times the sum of their covalent radii."""

NON_METALS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54, 85, 86})


@dataclass(frozen=True, eq=False)
class Scene:
    """A crystal ready to be drawn.

    Attributes:
        lattice: (3, 3) rows, angstrom; a along x, b in the xy plane.
        position: (m, 3) Cartesian, angstrom, the middle of the cell at the origin; images on faces included.
        numbers: (m,) atomic numbers.
        bonds: (k, 2) pairs of atoms.
    """

    lattice: FloatArray
    position: FloatArray
    numbers: NDArray[np.uint8]
    bonds: NDArray[np.int64]

    @property
    def edges(self) -> FloatArray:
        """(12, 2, 3) ends of the edges of the cell, angstrom."""
        corners = np.array(list(product((0, 1), repeat=3)))
        ends = [(a, b) for i, a in enumerate(corners) for b in corners[i + 1 :] if np.abs(a - b).sum() == 1]
        return (np.array(ends) - 0.5) @ self.lattice


def scene(crystal: Crystal) -> Scene:
    """The scene of one crystal, rotated (never mirrored) so that a lies along x and b in the xy plane."""
    lattice = crystal.lattice @ _frame(crystal.lattice).T
    frac, numbers = _with_images(crystal)
    position = (frac - 0.5) @ lattice
    return Scene(lattice, position, numbers, _bonds(position, numbers))


def element_style(z: int) -> tuple[str, tuple[float, float, float], float]:
    """Symbol, colour (red, green, blue in 0-1, the Jmol table) and drawn radius (angstrom) of an element."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    red, green, blue = jmol_colors[z] if z < len(jmol_colors) else (0.5, 0.5, 0.5)
    return chemical_symbols[z], (float(red), float(green), float(blue)), 0.25 + 0.3 * float(covalent_radii[z])


def hex_colour(rgb: tuple[float, float, float]) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{round(255 * c):02x}" for c in rgb)


def _frame(lattice: FloatArray) -> FloatArray:
    """(3, 3) right-handed orthonormal rows: along a, across a in the plane of a and b, across both."""
    x = lattice[0] / np.linalg.norm(lattice[0])
    z = np.cross(lattice[0], lattice[1])
    z = z / np.linalg.norm(z)
    return np.array([x, np.cross(z, x), z])


def _with_images(crystal: Crystal) -> tuple[FloatArray, NDArray[np.uint8]]:
    frac, numbers = [], []
    for position, z in zip(crystal.frac, crystal.numbers, strict=True):
        choices = [(0, 1) if f < FACE else (0, -1) if f > 1 - FACE else (0,) for f in position]
        for shift in product(*choices):
            frac.append(position + np.array(shift))
            numbers.append(z)
    return np.array(frac, dtype=np.float64), np.array(numbers, dtype=np.uint8)


def _bonds(position: FloatArray, numbers: NDArray[np.uint8]) -> NDArray[np.int64]:
    from ase.data import covalent_radii

    reach = BOND * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    joined = distance < reach
    metal = np.array([int(z) not in NON_METALS for z in numbers])
    if not metal.all():
        joined &= ~(metal[:, None] & metal)  # cations of a compound stand near each other without being bonded
    return np.argwhere(np.triu(joined, k=1))
