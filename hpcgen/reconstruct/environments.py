"""How differently the atoms of a crystal are surrounded: what decides where a descriptor cannot tell crystals apart.

A descriptor that is a mean over atoms has *homometric* crystals: other arrangements with the same distances, equally
often (Patterson, Phys. Rev. 65, 195, 1944). Sodalite carbon has one in its own cell, whose atoms have three and five
neighbours instead of four. Nature prefers few kinds of environment (Pauling's fifth rule, J. Am. Chem. Soc. 51, 1010,
1929), and so does the choice here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray

NEIGHBOURS = 12
_FIRST_RADIUS = 1.8  # of (V/N)^(1/3): a sphere with 24 atoms on average


def unlikeness(lattice: FloatArray, cart: FloatArray, species: NDArray[np.int64]) -> float:
    """Mean variance of the distances to the k-th nearest atom, k = 1 to 12, among atoms of one species.

    Args:
        lattice: (3, 3) rows.
        cart: (n, 3) positions, in the same unit.
        species: (n,) species of each atom.

    Returns:
        In units of (V/n)^(2/3); 0 if atoms of one species are all surrounded alike.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    n = len(cart)
    length = (abs(float(np.linalg.det(lattice))) / n) ** (1 / 3)
    inside = np.ascontiguousarray(cart - np.floor(cart @ np.linalg.inv(lattice)) @ lattice)
    cell, periodic = np.ascontiguousarray(lattice, dtype=np.float64), np.ones(3, dtype=np.int64)
    radius = _FIRST_RADIUS
    while True:
        centre, _, _, distance = find_points_in_spheres(inside, inside, radius * length, periodic, cell)
        apart = distance > 1e-8
        centre, distance = centre[apart], distance[apart]
        counts = np.bincount(centre, minlength=n)
        if counts.min() >= NEIGHBOURS:
            break
        radius *= 1.3  # layers and chains have fewer neighbours than the average says
    order = np.lexsort((distance, centre))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    nearest = distance[order][first[:, None] + np.arange(NEIGHBOURS)] / length
    return float(np.mean([nearest[species == s].var(axis=0).mean() for s in np.unique(species)]))
