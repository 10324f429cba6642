"""From clouds of points back to crystals; `hpcgen.pointcloud.cloud` says what a cloud is.

    cell      the midmean (mean of the middle half) of each lattice parameter's rows
    elements  argmax over the slots, point by point
    atoms     clusters on the torus, in angstrom: as many as counts, multiplicity and widths together make most likely

A cloud of n atoms has P // n points for each, or one more, of *every* element. So n is one question to the whole cloud:
the points of each element say which n are possible, and for each of those a mixture of n atoms of one common width is
fitted to the points (`mixture.py`), starting from the clusters of a tree (`kernels.py`). The n with the highest
evidence is taken; its posterior probability is the confidence. No threshold in angstrom decides which points are an
atom; only that no two atoms lie within `mixture.NEAREST` of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray, lattice_from_parameters
from hpcgen.pointcloud.cloud import DEGREES, Cloud, CloudScales
from hpcgen.pointcloud.search import find_atoms
from hpcgen.represent.lattice import build_lattice

SCATTERED = 0.5  # share of points without an atom from which on a cloud is noise
TRIMMED = 0.25  # share of rows left out at either end: of outliers so many do no harm
_CHUNK = 64  # clouds that a thread takes at a time


@dataclass(frozen=True, eq=False)
class Decoded:
    """A crystal found in a cloud.

    Attributes:
        crystal: atoms by slot.
        multiplicity: (n,) points of each atom; not whole where two atoms share points.
        noise_points: points that belong to no atom.
        confidence: posterior probability of the number of atoms times the share of points that belong to one.
        spread_A: root mean square distance of the points to their atoms, angstrom.
        margin: (P,) by how much each point's element leads over the next likely one, 1 in an exact cloud.
    """

    crystal: Crystal
    multiplicity: FloatArray
    noise_points: int
    confidence: float
    spread_A: float  # noqa: N815 - the unit
    margin: FloatArray


def decode(cloud: Cloud, slots: Sequence[int], scales: CloudScales) -> Decoded | str:
    """The crystal that one cloud stands for, or why it stands for none; see `decode_many`."""
    return decode_many([cloud], [slots], scales)[0]


def decode_many(
    clouds: Sequence[Cloud], slots: Sequence[Sequence[int]], scales: CloudScales, *, threads: int = 1
) -> list[Decoded | str]:
    """The crystals that clouds stand for. Each result depends on its own cloud alone, bit by bit.

    Args:
        clouds: in scaled units, (P, 3), (P, E) and (P, 3) each.
        slots: for each cloud the atomic numbers of its slots, at most E; columns of empty slots are not looked at.
        scales: of the clouds.
        threads: that search at the same time.

    Returns:
        For each cloud a crystal, or the reason why there is none: numbers that are not finite, a cell that is none or
        that no atoms could fill, or points that form no atoms.

    Raises:
        ValueError: for arrays of other shapes, slots that are no different elements, or no thread.
    """
    if threads < 1:
        raise ValueError(f"at least one thread is needed, not {threads}")
    out: list[Decoded | str] = ["" for _ in clouds]
    ready: list[tuple[int, FloatArray, FloatArray]] = []
    for i, (cloud, elements) in enumerate(zip(clouds, slots, strict=True)):
        _check(cloud, elements, scales)
        if not all(np.isfinite(values).all() for values in cloud):
            out[i] = "a position, an element or a lattice row is not finite"
            continue
        parameters = cell_parameters(cloud.lattice, scales.length_unit)
        try:
            ready.append((i, parameters, lattice_from_parameters(parameters)))
        except ValueError as error:
            out[i] = str(error)

    def work(begin: int) -> None:
        part = ready[begin : begin + _CHUNK]
        of = [clouds[i] for i, _, _ in part]
        found = _search(of, [slots[i] for i, _, _ in part], np.array([cell for _, _, cell in part]), scales)
        for (i, parameters, _), result in zip(part, found, strict=True):
            out[i] = result if isinstance(result, str) else _crystal(result, parameters, slots[i])

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, begin) for begin in range(0, len(ready), _CHUNK)]:
            done.result()
    return out


@dataclass(frozen=True, eq=False)
class _Found:
    atoms: NDArray[np.int64]  # (E,)
    frac: FloatArray  # (n, 3)
    size: FloatArray  # (n,)
    figures: FloatArray  # (3,), see `find_atoms`
    margin: FloatArray  # (P,)


def cell_parameters(lattice: FloatArray, length_unit: float) -> FloatArray:
    """(..., P, 3) lattice rows of clouds to (..., 6) a, b, c, alpha, beta, gamma (angstrom, degrees): midmeans."""
    half = lattice.shape[-2] // 2
    return np.concatenate(
        [midmean(lattice[..., half:, :]) * length_unit, midmean(lattice[..., :half, :]) * DEGREES], axis=-1
    )


def midmean(rows: FloatArray) -> FloatArray:
    """(..., R, 3) to (..., 3): the mean of the middle half of each column.

    Next to the mean it loses a sixth of the efficiency on normal noise, and gains where tails are heavy (Stigler,
    Ann. Stat. 5, 1055, 1977).
    """
    cut = int(rows.shape[-2] * TRIMMED)
    ordered = np.sort(rows, axis=-2)
    return ordered[..., cut : rows.shape[-2] - cut, :].mean(axis=-2)


def warm_up() -> None:
    """Compile the kernels, or load them from their cache."""
    from hpcgen.pointcloud.cloud import CloudCodec

    scales = CloudScales()
    salt = Crystal(np.eye(3) * 4.0, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17], dtype=np.uint8))
    decode(CloudCodec(scales).encode(salt, (55, 17)), (55, 17), scales)


def _check(cloud: Cloud, slots: Sequence[int], scales: CloudScales) -> None:
    shapes = tuple(np.shape(values) for values in cloud)
    expected = ((scales.points, 3), (scales.points, scales.elements), (scales.points, 3))
    if shapes != expected:
        raise ValueError(f"position, element and lattice are {shapes}, not {expected}")
    if not 1 <= len(slots) <= scales.elements or len(set(slots)) < len(slots):
        raise ValueError(f"slots {list(slots)} must be 1 to {scales.elements} different elements")


def _search(
    clouds: Sequence[Cloud], slots: Sequence[Sequence[int]], lattice: FloatArray, scales: CloudScales
) -> list[_Found | str]:
    """Atoms of clouds whose cells are known."""
    many, points, most = len(clouds), scales.points, scales.max_sites
    frac, slot = np.empty((many, points, 3)), np.empty((many, points), dtype=np.int64)
    margin = np.empty((many, points))
    for i, (cloud, elements) in enumerate(zip(clouds, slots, strict=True)):
        likely = np.asarray(cloud.element, dtype=np.float64)[:, : len(elements)]
        chosen = likely.argmax(axis=1)
        first_two = np.sort(likely, axis=1)[:, -2:]
        margin[i] = np.ptp(first_two, axis=1) if len(elements) > 1 else 1.0
        order = np.argsort(chosen, kind="stable")
        frac[i], slot[i] = cloud.position[order], chosen[order]
    atoms = np.zeros((many, scales.elements), dtype=np.int64)
    mean, size, figures = np.empty((many, most, 3)), np.empty((many, most)), np.empty((many, 3))
    find_atoms(frac, slot, np.ascontiguousarray(lattice), most, atoms, mean, size, figures)
    out: list[_Found | str] = []
    for i in range(many):
        n = int(atoms[i].sum())
        if n == 0 or figures[i, 1] > SCATTERED * points:
            out.append(f"the points form no atoms: {figures[i, 1]:.0f} of {points} belong to none")
        else:
            out.append(_Found(atoms[i], mean[i, :n], size[i, :n], figures[i], margin[i]))
    return out


def _crystal(found: _Found, parameters: FloatArray, slots: Sequence[int]) -> Decoded | str:
    numbers = np.repeat(np.asarray(slots, dtype=np.int64), found.atoms[: len(slots)])
    try:
        crystal = Crystal(build_lattice(parameters, len(numbers)), found.frac, numbers.astype(np.uint8))
    except ValueError as error:
        return str(error)
    probability, strays, spread = found.figures
    return Decoded(
        crystal=crystal,
        multiplicity=found.size,
        noise_points=int(strays),
        confidence=float(probability * (1 - strays / len(found.margin))),
        spread_A=float(spread),
        margin=found.margin,
    )
