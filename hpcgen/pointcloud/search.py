"""The compiled search for the number of atoms of a cloud, over many clouds."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT
from hpcgen.crystal import FloatArray
from hpcgen.pointcloud.kernels import apportion, cut, loneliness, tree
from hpcgen.pointcloud.mixture import EXCESS, FLOOR, fit

LONELY = 6.0  # times the median distance to a near neighbour: points farther from theirs found no cluster
UNEXPLAINED = 10.0  # points by which a number of atoms may fit the counts of elements worse than the best one


@njit(**EXACT)
def find_atoms(
    frac: FloatArray,
    slot: NDArray[np.int64],
    lattice: FloatArray,
    max_sites: int,
    atoms: NDArray[np.int64],
    mean: FloatArray,
    size: FloatArray,
    figures: FloatArray,
) -> None:
    """Atoms of M clouds, one after the other: each cloud's result is its own.

    Args:
        frac: (M, P, 3).
        slot: (M, P) element of each point, rising.
        lattice: (M, 3, 3) rows, angstrom.
        max_sites: atoms at most.
        atoms: (M, E) out: of each element; all 0 where nothing was found.
        mean: (M, max_sites, 3) out: their fractional coordinates, by element.
        size: (M, max_sites) out: points of each.
        figures: (M, 3) out: probability of this number of atoms, points that belong to no atom, and root mean square
            distance of the others to their atoms, angstrom.
    """
    for i in range(len(frac)):
        _find(frac[i], slot[i], lattice[i], max_sites, atoms[i], mean[i], size[i], figures[i])


@njit(**EXACT)
def _find(
    frac: FloatArray,
    slot: NDArray[np.int64],
    lattice: FloatArray,
    max_sites: int,
    atoms: NDArray[np.int64],
    mean: FloatArray,
    size: FloatArray,
    figures: FloatArray,
) -> None:
    """One cloud: a tree of clusters for each element, cut for each number of atoms that counts allow; the likeliest."""
    points, elements = len(frac), len(atoms)
    counts = np.zeros(elements, dtype=np.int64)
    for p in range(points):
        counts[slot[p]] += 1
    core, inner, joins = _trees(frac, counts, lattice, max(1, min(3, points // max_sites - 1)))

    trial = np.zeros(elements, dtype=np.int64)
    excess = np.full(max_sites + 1, np.inf)
    for n in range(1, max_sites + 1):
        excess[n] = apportion(counts, n, trial)
    limit = excess.min() + UNEXPLAINED
    scores = np.full(max_sites + 1, -np.inf)
    best = -np.inf
    start = np.zeros(elements, dtype=np.int64)
    label = np.empty(points, dtype=np.int64)
    share = np.empty((points, max_sites))
    place, weight, spread = np.empty((max_sites, 3)), np.empty(max_sites), np.empty(2)
    atoms[:] = 0
    figures[:] = 0.0
    for n in np.argsort(excess, kind="mergesort"):  # the likeliest first: the others are given up the sooner
        if excess[n] > limit:
            break
        apportion(counts, n, trial)
        if not _first_assignment(frac, core, inner, joins, trial, start, label, share, place):
            continue
        cost = EXCESS * excess[n]
        scores[n] = fit(frac, slot, trial, start, lattice, share, place[:n], weight[:n], spread, best + cost) - cost
        if scores[n] > best:
            best = scores[n]
            atoms[:] = trial
            mean[:n], size[:n] = place[:n], weight[:n]
            figures[1] = _strays(slot, trial, share)
            figures[2] = math.sqrt(spread[0] / spread[1])
    if best > -np.inf:
        figures[0] = 1.0 / np.exp(scores - best).sum()


@njit(**EXACT)
def _trees(
    frac: FloatArray, counts: NDArray[np.int64], lattice: FloatArray, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Trees of the points that have near neighbours of their element, for each element.

    Returns:
        (E,) how many such points there are, (P,) which, by element, and (P, 2) the joins of each element's tree, from
        where its points begin.
    """
    points = len(frac)
    lonely = np.empty(points)
    begin = 0
    for e in range(len(counts)):
        end = begin + counts[e]
        loneliness(frac[begin:end], lattice, k, lonely[begin:end])
        begin = end
    limit = LONELY * max(np.sort(lonely)[points // 2], FLOOR)
    core = np.zeros(len(counts), dtype=np.int64)
    inner = np.empty(points, dtype=np.int64)
    joins = np.empty((points, 2), dtype=np.int64)
    begin = first = 0
    for e in range(len(counts)):
        for p in range(begin, begin + counts[e]):
            if lonely[p] <= limit:
                inner[first + core[e]] = p
                core[e] += 1
        begin += counts[e]
        end = first + core[e]
        if core[e] > 1:
            joins[first : end - 1] = tree(frac[inner[first:end]], lattice)
        first = end
    return core, inner, joins


@njit(**EXACT)
def _first_assignment(
    frac: FloatArray,
    core: NDArray[np.int64],
    inner: NDArray[np.int64],
    joins: NDArray[np.int64],
    atoms: NDArray[np.int64],
    start: NDArray[np.int64],
    label: NDArray[np.int64],
    share: FloatArray,
    place: FloatArray,
) -> bool:
    """Writes the clusters that the trees have for so many atoms, and a point of each; False if there are not enough."""
    share[:] = 0.0
    begin = atom = 0
    for e in range(len(atoms)):
        start[e] = atom
        if atoms[e] > core[e]:
            return False
        end = begin + core[e]
        if atoms[e] > 0:
            cut(joins[begin : end - 1], atoms[e], label[begin:end])
            for i in range(end - 1, begin - 1, -1):
                share[inner[i], label[i]] = 1.0
                place[atom + label[i]] = frac[inner[i]]
        begin = end
        atom += atoms[e]
    return True


@njit(**EXACT)
def _strays(slot: NDArray[np.int64], atoms: NDArray[np.int64], share: FloatArray) -> int:
    """How many points more likely belong to no atom than to one."""
    strays = 0
    for p in range(len(slot)):
        total = 0.0
        for j in range(atoms[slot[p]]):
            total += share[p, j]
        strays += total < 0.5
    return strays
