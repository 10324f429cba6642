"""Embedded atom density (EAD), the descriptor of StructRepDiff (arXiv 2408.07213), with its analytic gradient.

For atom i, order L, width eta and centre Rs (the paper's equation, its lost symbols restored):

    rho_i = sum over lx+ly+lz=L of  L!/(lx! ly! lz!) * [ sum_j Z_j x^lx y^ly z^lz exp(-eta (r - Rs)^2) fc(r) ]^2

j runs over *all* periodic images within the cutoff Rc (however many cells that takes), the atom's own images
included; (x, y, z) is the vector from i to j in angstrom, fc the cosine cutoff. A structure is the maximum over
atoms, the minimum over atoms, and the smallest interatomic distance.

Shapes: n atoms, M monomials of degree <= l_max, E widths, K centres. Per-atom features (n, l_max+1, E, K).
The paper's preset (the defaults of `EadConfig`): Rc 20, L = 0, eta 1, 20, 90, K = 200: 1200 numbers and a distance.

The radial functions are evaluated as piecewise polynomials (`ead_tables`): 2e-7 of the vector's length off at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import EadConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.batch import encode_each
from hpcgen.represent.ead_gradient import jacobian_of
from hpcgen.represent.ead_kernels import Cell, brackets, densities, prepare
from hpcgen.represent.ead_tables import radial_tables
from hpcgen.represent.images import volume3


class EmbeddedAtomDensity:
    """EAD of a crystal. Species channels do not enter: atoms weigh by their atomic number.

    Attributes:
        config: the settings.
        centres: (K,) Rs, angstrom.
        exponents: (M, 3) of the monomials, and their `weights` (M,).
        tables: the radial functions.
    """

    name = "ead"
    invariances = ("rotation", "reflection", "translation", "permutation", "basis", "supercell")

    def __init__(self, config: EadConfig) -> None:
        self.config = config
        self.centres: FloatArray = np.arange(config.centres, dtype=np.float64) * (config.cutoff / config.centres)
        self.exponents, self.weights = monomials(config.l_max)
        self.tables = radial_tables(config.cutoff, np.array(config.eta, dtype=np.float64), self.centres)

    def length(self, n_channels: int = 1) -> int:
        """2 (l_max + 1) E K + 1, whatever the channels."""
        return 2 * self._pooled + 1

    @property
    def _pooled(self) -> int:
        return (self.config.l_max + 1) * len(self.config.eta) * self.config.centres

    def names(self, n_channels: int = 1) -> list[str]:
        """Names such as `max:L0:eta20:R3.10`, then `smallest_distance`."""
        per_atom = [
            f"L{order}:eta{eta:g}:R{centre:.2f}"
            for order in range(self.config.l_max + 1)
            for eta in self.config.eta
            for centre in self.centres
        ]
        return [f"{pool}:{n}" for pool in ("max", "min") for n in per_atom] + ["smallest_distance"]

    def blocks(self, n_channels: int = 1) -> dict[str, slice]:
        """`max`, `min` and `distance`, where they are in the vector."""
        end = 2 * self._pooled
        return {"max": slice(0, end // 2), "min": slice(end // 2, end), "distance": slice(end, end + 1)}

    def encode(self, crystal: Crystal, species: ArrayLike | None = None, n_channels: int = 1) -> FloatArray:
        """(D,) float64: max ‖ min over atoms ‖ smallest distance (angstrom; the cutoff if no atom is within it).

        The channels `species` are not looked at.
        """
        return self.vector(self.prepare(crystal.lattice), crystal.frac, crystal.numbers)

    def encode_batch(self, crystals: Sequence[Crystal], n_channels: int, threads: int = 1) -> FloatArray:
        """(M, D) vectors of crystals; the same bits for any number of threads.

        Raises:
            ValueError: on a crystal with more elements than channels.
        """
        for crystal in crystals:
            if len(crystal.elements) > n_channels:
                raise ValueError(f"{crystal.formula} has {len(crystal.elements)} elements for {n_channels} channels")
        return encode_each(self.encode, crystals, n_channels, self.length(), threads)

    def evaluate(
        self, lattice: ArrayLike, cart: ArrayLike, species: ArrayLike, n_channels: int = 1, *, jacobian: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Value (D,), and Jacobian (D, 3n) by the Cartesian positions, at fixed `lattice`; (D, 0) if not asked for.

        Where several atoms share a maximum or minimum, the derivative is that of the first. The Jacobian costs a
        gradient for each of its rows; the gradient of a loss is had for the price of one (`ead_gradient.pull_back`).

        Args:
            lattice: (3, 3) rows, angstrom.
            cart: (n, 3) angstrom.
            species: (n,) *atomic numbers*, since these are the weights of EAD.
            n_channels: not looked at.
            jacobian: whether to compute it.

        Raises:
            ValueError: on shapes that do not fit, numbers below 1, or a cell without volume.
        """
        x, z = np.asarray(cart, dtype=np.float64), np.asarray(species, dtype=np.float64)
        if z.ndim != 1 or x.shape != (len(z), 3) or len(z) == 0:
            raise ValueError(f"positions have shape {x.shape} and atomic numbers {z.shape}, not (n, 3) and (n,)")
        if not (z >= 1).all():
            raise ValueError("EAD weighs atoms by their atomic numbers, which are at least 1")
        cell = self.prepare(lattice)
        frac = x @ cell.inverse
        if not jacobian:
            q = self.vector(cell, frac, z)
            return q, np.empty((len(q), 0))
        sums, closest = self._brackets(cell, frac, z)
        rho = densities(sums, self.exponents, self.weights).reshape(len(z), -1)
        q = np.concatenate([rho.max(0), rho.min(0), closest[:1]])
        chosen = np.concatenate([rho.argmax(0), rho.argmin(0)])
        return q, jacobian_of(frac, cell, z, sums, chosen, closest, self.exponents, self.weights, self.tables)

    def vector(self, cell: Cell, frac: FloatArray, numbers: ArrayLike) -> FloatArray:
        """(D,) of atoms at `frac` (n, 3) in a prepared cell."""
        rho, closest = self._rho(cell, frac, numbers)
        rho = rho.reshape(len(rho), -1)
        return np.concatenate([rho.max(0), rho.min(0), closest[:1]])

    def per_atom(self, crystal: Crystal) -> FloatArray:
        """(n, l_max+1, E, K) rho of every atom; invariant under supercells."""
        return self._rho(self.prepare(crystal.lattice), crystal.frac, crystal.numbers)[0]

    def prepare(self, lattice: ArrayLike) -> Cell:
        """What all positions in one cell share.

        Raises:
            ValueError: on a lattice that is not (3, 3), not finite, or has no volume.
        """
        rows = np.array(lattice, dtype=np.float64, order="C")
        if rows.shape != (3, 3) or not np.isfinite(rows).all():
            raise ValueError(f"the lattice is not a finite (3, 3) matrix: {rows.tolist()}")
        if not volume3(rows) > 1e-6 * np.prod(np.sqrt((rows**2).sum(axis=1))):
            raise ValueError(f"the cell has no volume: {rows.tolist()}")
        cell: Cell = prepare(rows, self.exponents, self.tables)
        return cell

    def _rho(self, cell: Cell, frac: FloatArray, numbers: ArrayLike) -> tuple[FloatArray, FloatArray]:
        sums, closest = self._brackets(cell, frac, numbers)
        return densities(sums, self.exponents, self.weights), closest

    def _brackets(self, cell: Cell, frac: FloatArray, numbers: ArrayLike) -> tuple[FloatArray, FloatArray]:
        closest = np.empty(6)
        z = np.asarray(numbers, dtype=np.float64)
        return brackets(np.ascontiguousarray(frac), cell, z, self.exponents, self.tables, closest), closest


def monomials(l_max: int) -> tuple[NDArray[np.int64], FloatArray]:
    """(M, 3) exponents (lx, ly, lz) of degree <= l_max, by degree, and (M,) multinomial weights L!/(lx! ly! lz!)."""
    exponents = [
        (lx, ly, order - lx - ly)
        for order in range(l_max + 1)
        for lx in range(order, -1, -1)
        for ly in range(order - lx, -1, -1)
    ]
    weights = [math.factorial(sum(e)) / math.prod(math.factorial(v) for v in e) for e in exponents]
    return np.array(exponents, dtype=np.int64), np.array(weights)
