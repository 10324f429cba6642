"""How differently the atoms of a crystal are surrounded: what decides where a descriptor cannot tell crystals apart.

A descriptor that is a mean over atoms has *homometric* crystals: other arrangements with the same distances, equally
often (Patterson, Phys. Rev. 65, 195, 1944). Sodalite carbon has one in its own cell, whose atoms have three and five
neighbours instead of four, and further ones that differ in angles, which nothing here sees. Nature prefers few kinds of
environment (Pauling's fifth rule, J. Am. Chem. Soc. 51, 1010, 1929), and so does the choice here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import FloatArray
from hpcgen.screen.fingerprint import nearest_distances

NEIGHBOURS = 12


def unlikeness(lattice: FloatArray, cart: FloatArray, species: NDArray[np.int64]) -> float:
    """Mean variance of the distances to the k-th nearest atom, k = 1 to 12, among atoms of one species.

    Args:
        lattice: (3, 3) rows.
        cart: (n, 3) positions, in the same unit.
        species: (n,) species of each atom.

    Returns:
        In units of (V/n)^(2/3); 0 if atoms of one species are all surrounded alike.
    """
    inside = cart - np.floor(cart @ np.linalg.inv(lattice)) @ lattice
    nearest = nearest_distances(lattice, inside, NEIGHBOURS)
    return float(np.mean([nearest[species == s].var(axis=0).mean() for s in np.unique(species)]))
