"""The crystal graph that CHGNet reads, built with whole arrays.

The same edges and angles as CHGNet's own converter (the tests compare the energies), which walks through them one by
one, and which writes a file into the working folder when a pair of edges at the cutoff loses its partner by rounding;
here such an edge is left out: its weight is zero there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal

if TYPE_CHECKING:
    from chgnet.graph.crystalgraph import CrystalGraph


class Edges(NamedTuple):
    """Directed edges within a cutoff, an atom's own images included, and the undirected edges they belong to.

    Attributes:
        centre, neighbour: (D,) int64 atoms.
        image: (D, 3) int64, cell of the neighbour.
        distance: (D,) angstrom.
        undirected: (D,) int64 undirected edge of each directed one.
        first: (D / 2,) int64 the first directed edge of each undirected one.
    """

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    image: NDArray[np.int64]
    distance: NDArray[np.float64]
    undirected: NDArray[np.int64]
    first: NDArray[np.int64]


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

    def key(i: NDArray, j: NDArray, cell: NDArray) -> NDArray[np.int64]:
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


def angles(e: Edges, cutoff: float) -> NDArray[np.int64]:
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


def crystal_graph(crystal: Crystal, atom_cutoff: float, bond_cutoff: float) -> CrystalGraph:
    """CHGNet's graph of a crystal; the cutoffs (angstrom) are those of the model."""
    import torch
    from chgnet.graph.crystalgraph import CrystalGraph

    def tensor(values: NDArray, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    e = edges(crystal, atom_cutoff)
    frac, lattice = tensor(crystal.frac, torch.float32), tensor(crystal.lattice, torch.float32)
    return CrystalGraph(
        atomic_number=tensor(crystal.numbers.astype(np.int32)),
        atom_frac_coord=frac.requires_grad_(),
        atom_graph=tensor(np.stack([e.centre, e.neighbour], axis=1)),
        neighbor_image=tensor(e.image, torch.float32),
        directed2undirected=tensor(e.undirected),
        undirected2directed=tensor(e.first),
        bond_graph=tensor(angles(e, bond_cutoff)),
        lattice=lattice.requires_grad_(),
        composition=crystal.formula,
        atom_graph_cutoff=atom_cutoff,
        bond_graph_cutoff=bond_cutoff,
    )
