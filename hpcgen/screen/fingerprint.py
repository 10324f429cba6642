"""Numbers of a crystal that tell which others it may equal, and which it most likely equals.

`minima`: StructureMatcher maps one lattice onto the other by vectors whose lengths differ by less than a factor
1 + ltol from those of a reduced basis. So the i-th successive minimum of the first lattice is at most 1 + ltol times
that of the second (both at equal volume); where it is not, the pair cannot match, and need not be superposed.

`fingerprint`: average minimum distances (Widdowson et al., MATCH 87, 529, 2022), one row per element: the distances
from an atom to its nearest neighbours of any kind, in order, averaged over the atoms of the element, in units of
(V/N)^(1/3). They depend neither on the choice of cell nor on the order of atoms. Crystals that match may differ much
in them (graphites with other spacings), so that they only say which pair to try first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.crystal import Crystal, FloatArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

NEIGHBOURS = 16
_FIRST_RADIUS = 1.9  # of (V/N)^(1/3): a sphere with 29 atoms on average


def minima(reduced: Structure) -> FloatArray:
    """(3,) successive minima of the lattice in order, unit V^(1/3). `reduced`: a Niggli-reduced primitive cell."""
    return np.sort(reduced.lattice.get_niggli_reduced_lattice().abc) / reduced.volume ** (1 / 3)


def fingerprint(crystal: Crystal) -> FloatArray:
    """(elements, NEIGHBOURS) average minimum distances, elements by atomic number; unit (V/N)^(1/3)."""
    nearest, _ = nearest_neighbours(crystal.lattice, crystal.cart, NEIGHBOURS)
    return np.array([nearest[crystal.numbers == z].mean(axis=0) for z in np.unique(crystal.numbers)])


def nearest_neighbours(lattice: FloatArray, cart: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """The nearest neighbours of each atom, in order of their distance.

    Args:
        lattice: (3, 3) rows.
        cart: (n, 3) positions within the cell, in the same unit.
        count: neighbours of each atom.

    Returns:
        (n, count) distances in units of (V/n)^(1/3), and (n, count, 3) unit vectors towards them.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    length = (abs(float(np.linalg.det(lattice))) / len(cart)) ** (1 / 3)
    cart, lattice = np.ascontiguousarray(cart), np.ascontiguousarray(lattice)
    periodic = np.ones(3, dtype=np.int64)
    radius = _FIRST_RADIUS
    while True:
        centre, other, image, distance = find_points_in_spheres(cart, cart, radius * length, periodic, lattice)
        apart = np.flatnonzero(distance > 1e-8)
        counts = np.bincount(centre[apart], minlength=len(cart))
        if counts.min() >= count:
            break
        radius *= 1.3  # layers and chains have fewer neighbours than the average says
    order = apart[np.lexsort((distance[apart], centre[apart]))]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    nearest = order[first[:, None] + np.arange(count)]
    away = cart[other[nearest]] + image[nearest] @ lattice - cart[:, None]
    return distance[nearest] / length, away / distance[nearest][..., None]


def differences(own: FloatArray, others: Sequence[FloatArray]) -> FloatArray:
    """(m,) how far fingerprints of one composition are apart: the largest root mean square over the elements."""
    if not others:
        return np.zeros(0)
    return np.sqrt(((np.stack(others) - own) ** 2).mean(axis=-1)).max(axis=-1)
