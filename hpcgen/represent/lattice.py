"""Lattice parameters as numbers a network can generate, and back.

With the metric tensor G = A A^T of the cell (rows of A are the vectors), S = log G (the matrix logarithm) is any
symmetric matrix: every generated S is a cell, none is impossible, and small errors stay small. Its trace is 2 log V;
the other five numbers are the shape, the coordinates of S - (tr S / 3) 1 in an orthonormal basis of traceless
symmetric matrices. All are zero for a cube.

    features (6,) = [log(V / N), shape (5,)]      V in cubic angstrom, N atoms
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.crystal import FloatArray, lattice_from_parameters

NAMES = ("log_volume_per_atom", "shape:a-b", "shape:ab-c", "shape:bc", "shape:ac", "shape:ab")
PARAMETER_NAMES = ("a", "b", "c", "alpha", "beta", "gamma")
VOLUME_PER_ATOM = (1.0, 1000.0)  # cubic angstrom: outside, no crystal of atoms is meant
FLATTEST = 0.05  # V / (a b c) of the flattest cell accepted; Niggli-reduced cells have at least 0.5

_BASIS = np.array(
    [
        np.diag([1.0, -1.0, 0.0]) / np.sqrt(2),
        np.diag([1.0, 1.0, -2.0]) / np.sqrt(6),
        *(np.array(m) / np.sqrt(2) for m in (
            [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
            [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
            [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        )),
    ]
)  # fmt: skip


def encode_lattice(lattice: ArrayLike, n_atoms: int) -> FloatArray:
    """(3, 3) rows in angstrom and the number of atoms to (6,) features."""
    a = np.asarray(lattice, dtype=np.float64)
    values, vectors = np.linalg.eigh(a @ a.T)
    s = (vectors * np.log(values)) @ vectors.T
    return np.concatenate([[np.trace(s) / 2 - np.log(n_atoms)], np.einsum("kij,ij->k", _BASIS, s)])


def decode_lattice(features: ArrayLike, n_atoms: float) -> FloatArray:
    """(6,) features and the number of atoms to (6,) a, b, c (angstrom), alpha, beta, gamma (degrees).

    NaN where the numbers are not finite or beyond what floating point holds.
    """
    f = np.asarray(features, dtype=np.float64)
    if not (np.isfinite(f).all() and np.abs(f).max() < 100 and n_atoms > 0):
        return np.full(6, np.nan)
    trace = 2 * (f[0] + np.log(n_atoms))
    s = np.einsum("k,kij->ij", f[1:], _BASIS) + np.eye(3) * trace / 3
    values, vectors = np.linalg.eigh(s)
    metric = (vectors * np.exp(values)) @ vectors.T
    lengths = np.sqrt(np.diag(metric))
    cosines = [metric[i, j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))])


def squared_share(angles: ArrayLike) -> FloatArray:
    """(M,) square of V / (a b c) of angles (M, 3) in degrees; negative where they are no cell."""
    cosines = np.cos(np.radians(np.asarray(angles, dtype=np.float64)))
    square: FloatArray = 1 - (cosines**2).sum(1) + 2 * cosines.prod(1)
    return square


def build_lattice(parameters: ArrayLike, n_atoms: int) -> FloatArray:
    """(3, 3) rows of generated parameters (angstrom, degrees), checked to be a cell that atoms could fill.

    Raises:
        ValueError: for numbers that are not finite, no cell, a cell too flat, or an absurd volume per atom.
    """
    p = np.asarray(parameters, dtype=np.float64)
    if not np.isfinite(p).all():
        raise ValueError("the lattice parameters are not finite")
    lattice = lattice_from_parameters(p)
    volume = abs(float(np.linalg.det(lattice)))
    if volume < FLATTEST * float(p[:3].prod()):
        raise ValueError(f"the cell is flat: {_text(p)}")
    low, high = VOLUME_PER_ATOM
    if not low <= volume / n_atoms <= high:
        raise ValueError(f"{volume / n_atoms:.3g} cubic angstrom per atom: {_text(p)} with {n_atoms} atoms")
    return lattice


def _text(p: FloatArray) -> str:
    return " ".join(f"{v:.3g}" for v in p)
