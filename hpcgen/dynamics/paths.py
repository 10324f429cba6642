"""Is there a way for an ion through a framework at rest? The cheap filter before molecular dynamics.

The widest way is found on a grid: every point has a clearance, its distance from the nearest surface of a framework
ion (a sphere of Shannon's crystal radius). Points are flooded from the roomiest down until the flooded region is
connected to its own periodic image: the clearance at that moment is the bottleneck of the widest way through the
crystal. An ion squeezes through openings narrower than itself; `dynamics.min_path` says by how much.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from hpcgen.crystal import Crystal, FloatArray, composition_of

SPACING = 0.15  # angstrom between grid points, at most; the clearance is found up to half of it too small
POINTS = 300_000  # of the grid at most; in larger cells they are farther apart
PRECISION = 0.01  # angstrom
FALLBACK = 1.0  # angstrom, for an element without any known radius


def ionic_radii(crystal: Crystal) -> FloatArray:
    """(n,) Shannon's crystal radii, angstrom, in the likeliest oxidation states; mean ones if none balance."""
    guesses = composition_of(crystal.numbers).oxi_state_guesses()
    states = tuple(sorted(guesses[0].items())) if guesses else ()
    known = {
        z: _radius(chemical_symbols[z], dict(states).get(chemical_symbols[z])) for z in set(crystal.numbers.tolist())
    }
    return np.array([known[int(z)] for z in crystal.numbers])


@lru_cache(maxsize=1024)
def _radius(symbol: str, state: float | None) -> float:
    from pymatgen.core import Element, Species

    element = Element(symbol)
    radius = Species(symbol, round(state)).ionic_radius if state and abs(state - round(state)) < 1e-6 else None
    return float(radius or element.average_ionic_radius or element.atomic_radius or FALLBACK)


def bottleneck(crystal: Crystal, ion: int) -> tuple[float, int]:
    """The narrowest point of the widest way of an ion through the crystal.

    Args:
        crystal: the crystal.
        ion: atomic number of what moves; its own sites are no obstacle.

    Returns:
        clearance at the bottleneck, angstrom (negative: framework ions overlap there); and in how many dimensions the
        region is connected at 95 % of that clearance.

    Raises:
        ValueError: if there is no framework, or no such ion.
    """
    fixed = crystal.numbers != ion
    if fixed.all() or not fixed.any():
        raise ValueError("a path needs both an ion that moves and a framework")
    clearance = _clearance(crystal, fixed)
    low, high = float(clearance.min()), float(clearance.max())
    if not _dimensions(clearance >= low):
        return low, 0
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if _dimensions(clearance >= middle) else (low, middle)
    return low, _dimensions(clearance >= low - 0.05 * abs(low))


def _clearance(crystal: Crystal, fixed: NDArray[np.bool_]) -> FloatArray:
    """Distance of each grid point from the nearest surface of a framework ion, angstrom."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    spacing = max(SPACING, (crystal.volume / POINTS) ** (1 / 3))
    shape = np.maximum(np.ceil(lengths / spacing).astype(int), 4)
    axes = [np.arange(n) / n for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.lattice
    radii, frac = ionic_radii(crystal)[fixed], crystal.frac[fixed]
    # every point of the cell has an atom within the longest diagonal of the cell
    reach = float(np.linalg.norm(np.array(list(product((-1, 0, 1), repeat=3))) @ crystal.lattice, axis=1).max()) / 2
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    n = np.ceil((reach + float(np.ptp(radii))) / heights).astype(int)
    shifts = np.array(list(product(*[range(-k, k + 1) for k in n])))
    out = np.full(len(points), np.inf)
    for radius in np.unique(radii):
        images = (frac[radii == radius][:, None] + shifts).reshape(-1, 3) @ crystal.lattice
        out = np.minimum(out, cKDTree(images).query(points)[0] - radius)
    return out.reshape(shape)


def _dimensions(open_: NDArray[np.bool_]) -> int:
    """In how many dimensions a periodic region is connected to its own images: 0 for closed pockets."""
    labels, count = ndimage.label(open_)
    if not count:
        return 0
    edges: dict[int, set[tuple[int, tuple[int, ...]]]] = {}
    for axis in range(3):
        first, last = np.take(labels, 0, axis), np.take(labels, -1, axis)
        step = tuple(int(axis == k) for k in range(3))
        back = tuple(-v for v in step)
        for a, b in set(
            zip(last[(last > 0) & (first > 0)].tolist(), first[(last > 0) & (first > 0)].tolist(), strict=True)
        ):
            edges.setdefault(a, set()).add((b, step))
            edges.setdefault(b, set()).add((a, back))
    best = 0
    seen: dict[int, NDArray[np.int64]] = {}
    for root in edges:
        if root in seen:
            continue
        seen[root] = np.zeros(3, np.int64)
        queue, loops = [root], []
        while queue:
            here = queue.pop()
            for there, step in edges[here]:
                cell = seen[here] + step
                if there not in seen:
                    seen[there] = cell
                    queue.append(there)
                elif (loop := cell - seen[there]).any():
                    loops.append(loop)
        best = max(best, int(np.linalg.matrix_rank(np.array(loops))) if loops else 0)
    return best
