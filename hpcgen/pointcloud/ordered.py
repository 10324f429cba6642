"""Decoding clouds whose points lie in the order of their atoms, as they are encoded without random numbers.

Where n atoms share P points in order, atom by atom, n alone says which points belong together (`cloud.repeats`), and
nothing has to be found but n. So for each possible n the points of each would-be atom are averaged, and the n is taken
that explains positions and elements best for the number of its parameters. A network's clouds are smeared where it is
not sure, and a cluster then falls apart into several; its place in the order does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray, lattice_from_parameters
from hpcgen.pointcloud.cloud import Cloud, CloudScales, repeats
from hpcgen.pointcloud.decode import Decoded, cell_parameters
from hpcgen.represent.lattice import build_lattice

# Errors of neighbouring points are alike, so they count for less than as many independent ones would.
POSITIONS, ELEMENTS = 0.25, 0.5  # share of the points that positions and elements count for
FLOOR, ELEMENT_FLOOR = 0.1, 0.02  # angstrom, and in units of a likelihood: widths below are as good as none
NEAREST = 0.8  # angstrom: atoms nearer than this are one atom that was cut
CROWDED = 100.0  # nats that two atoms in one place cost, falling to nothing at `NEAREST`
DISORDER = 20.0  # nats that elements cost that are not in the order of their slots
STRAY = 4.0  # root mean square distances from which on a point belongs to no atom


def decode_ordered(cloud: Cloud, slots: Sequence[int], scales: CloudScales) -> Decoded | str:
    """The crystal that an ordered cloud stands for, or why it stands for none.

    `confidence` of the result is the posterior probability of the number of atoms times the share of points that
    belong to one; `noise_points` lie far from their atom, or look like another element.

    Args:
        cloud: one cloud in scaled units, (P, 3), (P, E) and (P, 3); finite.
        slots: atomic numbers of its slots, at most E, in the order in which their atoms lie.
        scales: of the cloud.
    """
    parameters = cell_parameters(cloud.lattice, scales.length_unit)
    try:
        lattice = lattice_from_parameters(parameters)
    except ValueError as error:
        return str(error)
    atom, share = _layout(scales.points, scales.max_sites)
    position, element = np.asarray(cloud.position, float), np.asarray(cloud.element, float)[:, : len(slots)]
    mean = _circular_mean(position, share)
    kind = np.einsum("ap,pe->ae", share, element).argmax(1)
    apart = _wrapped(position - mean[atom])  # (N, P, 3)
    square = (np.einsum("npi,ij->npj", apart, lattice) ** 2).sum(-1)
    wrong = ((element - np.eye(len(slots))[kind][atom]) ** 2).sum(-1)
    evidence = _evidence(square, wrong, mean, kind, lattice)
    best = int(evidence.argmax())
    n, own = best + 1, atom[best]
    stray = element.argmax(1) != kind[own]
    stray |= square[best] > (STRAY * max(FLOOR, float(np.sqrt(square[best].mean())))) ** 2
    kept = share[_first(n) : _first(n) + n] * ~stray
    whole = kept.sum(1) > 0  # an atom of strays alone stays where they are
    frac = np.where(whole[:, None], _circular_mean(position, kept), mean[_first(n) : _first(n) + n])
    numbers = np.asarray(slots, dtype=np.int64)[kind[_first(n) : _first(n) + n]]
    try:
        crystal = Crystal(build_lattice(parameters, n), frac, numbers)
    except ValueError as error:
        return str(error)
    likely = np.sort(element, axis=1)
    probability = 1.0 / np.exp(evidence - evidence[best]).sum()
    return Decoded(
        crystal=crystal,
        multiplicity=(share[_first(n) : _first(n) + n] > 0).sum(1).astype(np.float64),
        noise_points=int(stray.sum()),
        confidence=float(probability * (1 - stray.mean())),
        spread_A=float(np.sqrt(square[best][~stray].mean()))
        if not stray.all()
        else float(np.sqrt(square[best].mean())),
        margin=likely[:, -1] - likely[:, -2] if len(slots) > 1 else np.ones(scales.points),
    )


@cache
def _layout(points: int, most: int) -> tuple[NDArray[np.int64], FloatArray]:
    """For n = 1 ... `most` atoms: which of all would-be atoms each point is of, (most, P), and its share, (A, P)."""
    atom = np.array([np.repeat(np.arange(n), repeats(n, points)) + _first(n) for n in range(1, most + 1)])
    share = np.zeros((_first(most + 1), points))
    for row in atom:
        share[row, np.arange(points)] = 1.0
    return atom, share / share.sum(1, keepdims=True)


def _first(n: int) -> int:
    """Where the n would-be atoms of n begin among those of all numbers."""
    return n * (n - 1) // 2


def _circular_mean(position: FloatArray, share: FloatArray) -> FloatArray:
    """(A, 3) in [-0.5, 0.5] of fractional coordinates (P, 3) by weights (A, P)."""
    phase = 2 * np.pi * position
    return np.arctan2(np.einsum("ap,pi->ai", share, np.sin(phase)), np.einsum("ap,pi->ai", share, np.cos(phase))) / (
        2 * np.pi
    )


def _wrapped(difference: FloatArray) -> FloatArray:
    return difference - np.rint(difference)


def _evidence(
    square: FloatArray, wrong: FloatArray, mean: FloatArray, kind: NDArray[np.int64], lattice: FloatArray
) -> FloatArray:
    """(N,) logarithm of the evidence of each number of atoms, by Schwarz's criterion (Ann. Stat. 6, 461, 1978).

    Args:
        square: (N, P) squared distances to the atoms, square angstrom.
        wrong: (N, P) squared errors of the likelihoods.
        mean: (A, 3) positions of all would-be atoms.
        kind: (A,) their slots.
        lattice: (3, 3) angstrom.
    """
    points = square.shape[1]
    out = np.zeros(len(square))
    for i in range(len(square)):
        n = i + 1
        these = slice(_first(n), _first(n) + n)
        out[i] -= 1.5 * POSITIONS * points * np.log(square[i].mean() / 3 + FLOOR**2)
        out[i] -= ELEMENTS * points * np.log(wrong[i].mean() / 3 + ELEMENT_FLOOR**2)
        out[i] -= 1.5 * n * np.log(POSITIONS * points)
        a, b = np.triu_indices(n, 1)
        between = np.einsum("ki,ij->kj", _wrapped(mean[these][a] - mean[these][b]), lattice)
        out[i] -= CROWDED * np.maximum(0.0, 1.0 - np.sqrt((between**2).sum(1)) / NEAREST).sum()
        if (np.diff(kind[these]) < 0).any():
            out[i] -= DISORDER
    return out
