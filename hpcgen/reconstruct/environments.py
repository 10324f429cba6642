"""How the atoms of a crystal are surrounded: what decides where a descriptor cannot tell crystals apart.

A descriptor that is a mean over atoms has *homometric* crystals: other arrangements with the same distances, equally
often (Patterson, Phys. Rev. 65, 195, 1944). Sodalite carbon has one in its own cell, whose atoms have three and five
neighbours instead of four, and others in which every atom has the distances of sodalite, with bonds at 60 and 180
degrees instead of 90 and 120. Nature prefers few kinds of environment (Pauling's fifth rule, J. Am. Chem. Soc. 51,
1010, 1929) and bonds that keep away from each other (Gillespie and Nyholm, Q. Rev. Chem. Soc. 11, 339, 1957), and so
does the choice here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcgen.crystal import FloatArray
from hpcgen.screen.fingerprint import nearest_neighbours

NEIGHBOURS = 16  # whose directions count: close-packed atoms have 12 neighbours and 6 at 1.41 times their distance
DISTANCES = 12  # of them whose distances are compared
SHELL = 0.15  # relative width of the weight with which more distant atoms count as neighbours
CLOSEST = 0.1  # difference of two unit vectors below which a repulsion does not grow
ALIKE = 5e-4  # unlikeness of two crystals that differs by less is the same
DIFFERENT = (1e-3, 0.03)  # in unlikeness, and relative in repulsion: crystals that differ by more are two kinds


class Environment(NamedTuple):
    """How the atoms of a crystal of one element are surrounded.

    Attributes:
        unlikeness: mean variance among the atoms of the distance to the k-th nearest, k = 1 to 12, in units of
            (V/n)^(2/3); 0 if all have the same distances.
        repulsion: mean over the atoms of the energy per pair of unit charges in the directions of the nearest atoms
            (Thomson's problem); 0.5 for two neighbours opposite each other, 0.577 for three, 0.612 for four at most
            apart. Pairs are weighted by how near both atoms are, exp(-((d / d_nearest - 1) / 0.15)^2) each.
    """

    unlikeness: float
    repulsion: float


def environment(lattice: FloatArray, cart: FloatArray) -> Environment:
    """The environments in a crystal of one element: lattice (3, 3) rows, positions (n, 3) in the same unit."""
    inside = cart - np.floor(cart @ np.linalg.inv(lattice)) @ lattice
    distance, direction = nearest_neighbours(lattice, inside, NEIGHBOURS)
    far = ((distance / distance[:, :1] - 1) / SHELL) ** 2
    first, second = np.triu_indices(NEIGHBOURS, 1)
    weight = np.exp(far[:, :1] + far[:, 1:2] - far[:, first] - far[:, second])  # of the nearest pair 1, however far
    gap = np.linalg.norm(direction[:, first] - direction[:, second], axis=-1)
    energy = (weight / np.maximum(gap, CLOSEST)).sum(axis=1) / weight.sum(axis=1)
    return Environment(float(distance[:, :DISTANCES].var(axis=0).mean()), float(energy.mean()))


def likeliest(environments: Sequence[Environment]) -> int:
    """Which of several crystals counts: of those whose atoms are most alike, the one with the least repulsion."""
    limit = min(e.unlikeness for e in environments) + ALIKE
    return min(range(len(environments)), key=lambda i: (environments[i].unlikeness > limit, environments[i].repulsion))


def several_kinds(environments: Sequence[Environment]) -> bool:
    """Whether crystals that fit equally well are different ones."""
    unlikeness, repulsion = np.array(environments).T
    return bool(np.ptp(unlikeness) > DIFFERENT[0] or np.ptp(repulsion) > DIFFERENT[1] * repulsion.mean())
