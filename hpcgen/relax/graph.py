"""The crystal graph that CHGNet reads, built with whole arrays, of one crystal or of many side by side.

The same edges and angles as CHGNet's own converter (the tests compare the energies), which walks through them one by
one, and which writes a file into the working folder when a pair of edges at the cutoff loses its partner by rounding;
here such an edge is left out: its weight is zero there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray

IntArray = NDArray[np.int64]


class Edges(NamedTuple):
    """Directed edges within a cutoff, an atom's own images included, and the undirected edges they belong to.

    Attributes:
        centre, neighbour: (D,) int64 atoms.
        image: (D, 3) int64, cell of the neighbour.
        distance: (D,) angstrom.
        undirected: (D,) int64 undirected edge of each directed one.
        first: (D / 2,) int64 the first directed edge of each undirected one.
    """

    centre: IntArray
    neighbour: IntArray
    image: IntArray
    distance: FloatArray
    undirected: IntArray
    first: IntArray


def edges(crystal: Crystal, cutoff: float) -> Edges:
    """All directed edges no longer than `cutoff` (angstrom) whose reverse is there too."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    cart = np.ascontiguousarray(crystal.cart)
    centre, neighbour, image, distance = find_points_in_spheres(
        cart, cart, r=cutoff, pbc=np.ones(3, dtype=np.int64), lattice=np.ascontiguousarray(crystal.lattice), tol=1e-8
    )
    image = np.rint(image).astype(np.int64)
    real = (centre != neighbour) | image.any(axis=1)
    centre, neighbour, image, distance = centre[real], neighbour[real], image[real], distance[real]
    reach = int(np.abs(image).max(initial=0))
    n, width = len(crystal), 2 * reach + 1

    def key(i: NDArray, j: NDArray, cell: NDArray) -> IntArray:
        a, b, c = (cell + reach).T
        return (((i * n + j) * width + a) * width + b) * width + c

    forward, backward = key(centre, neighbour, image), key(neighbour, centre, -image)
    order = np.argsort(forward)
    place = np.searchsorted(forward, backward, sorter=order)
    reverse = order[np.minimum(place, len(order) - 1)] if len(order) else order
    paired = forward[reverse] == backward
    if not paired.all():
        renumber = np.cumsum(paired) - 1
        centre, neighbour, image, distance = centre[paired], neighbour[paired], image[paired], distance[paired]
        reverse = renumber[reverse[paired]]
    first, undirected = np.unique(np.minimum(np.arange(len(reverse)), reverse), return_inverse=True)
    return Edges(centre, neighbour, image, distance, undirected, first)


def angles(e: Edges, cutoff: float) -> IntArray:
    """(A, 5) ordered pairs of different directed edges of one centre, both within `cutoff` (angstrom).

    Columns: centre, undirected edge 1, directed edge 1, undirected edge 2, directed edge 2.
    """
    short = np.flatnonzero(e.distance <= cutoff)
    short = short[np.argsort(e.centre[short], kind="stable")]
    _, start, count = np.unique(e.centre[short], return_index=True, return_counts=True)
    partners = np.repeat(count, count)
    one = np.repeat(np.arange(len(short)), partners)
    within = np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    two = np.repeat(np.repeat(start, count), partners) + within
    d1, d2 = short[one[one != two]], short[two[one != two]]
    return np.stack([e.centre[d1], e.undirected[d1], d1, e.undirected[d2], d2], axis=1)


@dataclass(frozen=True, eq=False)
class Graph:
    """Atoms, bonds (undirected edges), short bonds and angles of B crystals.

    Attributes:
        numbers: (N,) atomic numbers.
        crystal: (N,) the crystal of each atom, ascending.
        start, end: (U,) atoms of each bond.
        bond_crystal: (U,) the crystal of each bond, ascending.
        vector: (U, 3) from `end` to `start`, angstrom.
        short: (S,) bonds that take part in an angle.
        one, two: (A,) the short bonds of each angle.
        apex: (A,) the atom between them.
        sign: (A,) -1 if one of the two vectors leads to the apex and the other away from it, else 1.
    """

    numbers: IntArray
    crystal: IntArray
    start: IntArray
    end: IntArray
    bond_crystal: IntArray
    vector: FloatArray
    short: IntArray
    one: IntArray
    two: IntArray
    apex: IntArray
    sign: FloatArray

    def isolated(self) -> bool:
        """Whether an atom has no bond at all."""
        return len(np.union1d(self.start, self.end)) < len(self.numbers)


def crystal_graph(crystal: Crystal, bond_cutoff: float, angle_cutoff: float) -> Graph:
    """The graph of one crystal: bonds and, among shorter ones, angles; cutoffs in angstrom."""
    e = edges(crystal, bond_cutoff)
    start, end = e.centre[e.first], e.neighbour[e.first]
    apex, bond1, edge1, bond2, edge2 = angles(e, angle_cutoff).T
    short, place = np.unique(np.concatenate([bond1, bond2]), return_inverse=True)
    cart = crystal.cart
    return Graph(
        numbers=crystal.numbers.astype(np.int64),
        crystal=np.zeros(len(crystal), np.int64),
        start=start,
        end=end,
        bond_crystal=np.zeros(len(start), np.int64),
        vector=cart[start] - cart[end] - e.image[e.first] @ crystal.lattice,
        short=short,
        one=place[: len(apex)],
        two=place[len(apex) :],
        apex=apex,
        sign=np.where((e.first[bond1] == edge1) == (e.first[bond2] == edge2), 1.0, -1.0),
    )


_COUNTED_IN = {
    "crystal": "crystals",
    "bond_crystal": "crystals",
    "start": "atoms",
    "end": "atoms",
    "apex": "atoms",
    "short": "bonds",
    "one": "short",
    "two": "short",
}


def side_by_side(graphs: Sequence[Graph]) -> Graph:
    """One graph of several crystals, indices shifted; the order within each crystal is kept."""
    sizes = {
        "crystals": [1] * len(graphs),
        "atoms": [len(g.numbers) for g in graphs],
        "bonds": [len(g.start) for g in graphs],
        "short": [len(g.short) for g in graphs],
    }
    offsets = {name: np.cumsum([0, *size[:-1]]) for name, size in sizes.items()}
    columns = {}
    for f in fields(Graph):
        parts = [getattr(g, f.name) for g in graphs]
        if f.name in _COUNTED_IN:
            parts = [part + o for part, o in zip(parts, offsets[_COUNTED_IN[f.name]], strict=True)]
        columns[f.name] = np.concatenate(parts)
    return Graph(**columns)
