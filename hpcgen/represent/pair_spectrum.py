"""The pair spectrum: a radial distribution and a smeared structure factor, per pair of species channels.

Lengths are taken in a cell scaled to V/N = 2.5^3 cubic angstrom, so that the vector describes the arrangement
and the lattice alone carries the size. With channels c <= d (one-hot species), N atoms, s = sqrt(2) for c = d
and 1 otherwise:

    RDF   q_cd,k = (1/N) sum_{i<j,T} s phi_k(r),   phi_k = exp(-((r - r_k)/w)^2 / 2) (1 + cos(pi r/r_c))/2 3/max(r, 0.6)
    S     q_cd,m = (1/N) sum_{G, half space} a_m(|G|) X_cd,   X_cc = (sqrt(2)/2) (|F_c|^2 - n_c),   X_cd = Re F_c F_d*
          a_m = (2 A/N)/|G| exp(-(|G|/6)^2) exp(-((|G| - k_m)/w_s)^2 / 2)

with r_k from 0.75 to r_c - 0.35, k_m from 0.8 to 4.0 per angstrom, F_c = sum over atoms of c of exp(i G . x).
Both blocks are (1/N) sum_{i<j} s Phi(x_j - x_i) of one function Phi on the lattice torus, which is what the grid
annealing of `hpcgen.reconstruct` uses. Layout: [pair x rdf_bins], then [pair x s_bins].

Invariant under rotation, translation, permutation of like atoms and choice of basis. An atom's terms with its
own images, constants of the cell, are left out: one atom alone gives zeros, and a supercell another vector.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import PairSpectrumConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.images import inverse3, lattice_images, reciprocal_half_space
from hpcgen.represent.pair_kernels import TAIL, PairTables, pair_spectrum

SPACING = 2.5  # angstrom: cells are scaled to SPACING^3 per atom
R_FIRST, R_MARGIN = 0.75, 0.35  # angstrom: first RDF centre, and the last one's distance from the cutoff
K_FIRST, K_LAST, K_DAMP = 0.8, 4.0, 6.0  # 1/angstrom: S centres and damping


class PairSpectrum:
    """The descriptor for one choice of bins.

    Args:
        config: bins, widths, amplitude and cutoff.
    """

    def __init__(self, config: PairSpectrumConfig) -> None:
        self.config = config
        self.centres: FloatArray = np.linspace(R_FIRST, config.cutoff - R_MARGIN, config.rdf_bins)
        self.wave_numbers: FloatArray = np.linspace(K_FIRST, K_LAST, config.s_bins)

    def length(self, n_channels: int) -> int:
        """D: the number of components for `n_channels` species."""
        return n_channels * (n_channels + 1) // 2 * (self.config.rdf_bins + self.config.s_bins)

    def names(self, n_channels: int) -> list[str]:
        """(D,) names such as `rdf 0-1 2.55` (channels, centre in angstrom) and `s 0-1 1.42` (1/angstrom)."""
        pairs = [(c, d) for c in range(n_channels) for d in range(c, n_channels)]
        blocks = (("rdf", self.centres), ("s", self.wave_numbers))
        return [f"{block} {c}-{d} {centre:.2f}" for block, centres in blocks for c, d in pairs for centre in centres]

    def encode(self, crystal: Crystal, species: ArrayLike, n_channels: int) -> FloatArray:
        """(D,) float64 vector of a crystal.

        Args:
            crystal: any number of atoms, any basis.
            species: (n,) channel of each atom, 0 to n_channels - 1.
            n_channels: channels of the vector; those without atoms stay zero.

        Raises:
            ValueError: on channels that do not fit.
        """
        return self.evaluate(crystal.lattice, crystal.cart, species, n_channels, jacobian=False)[0]

    def evaluate(
        self, lattice: ArrayLike, cart: ArrayLike, species: ArrayLike, n_channels: int, *, jacobian: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Value q (D,) and Jacobian J (D, 3n) = dq/dcart in 1/angstrom, at fixed lattice.

        Args:
            lattice: (3, 3) rows in angstrom.
            cart: (n, 3) angstrom.
            species: (n,) channels.
            n_channels: number of channels.
            jacobian: without it J is empty, (D, 0).

        Raises:
            ValueError: on shapes or channels that do not fit, or a cell without volume.
        """
        x = np.asarray(cart, dtype=np.float64)
        channels = check_species(species, n_channels, len(x))
        tables, scale = self.prepare(lattice, len(x))
        q = np.empty(self.length(n_channels))
        jt = np.empty((3 * len(x) if jacobian else 0, len(q)))
        pair_spectrum(np.ascontiguousarray(x * scale), channels, n_channels, tables, q, jt, jacobian)
        return q, jt.T * scale

    def prepare(self, lattice: ArrayLike, n_atoms: int) -> tuple[PairTables, float]:
        """Tables of a cell with `n_atoms` atoms, and the factor from angstrom to its scaled lengths.

        Raises:
            ValueError: if the cell has no volume.
        """
        matrix = np.array(lattice, dtype=np.float64)
        volume = abs(float(np.linalg.det(matrix)))
        if matrix.shape != (3, 3) or not np.isfinite(volume) or volume < 1e-6:
            raise ValueError(f"the cell has no volume ({volume:.3g} cubic angstrom)")
        scale = SPACING / (volume / n_atoms) ** (1 / 3)
        cell = matrix * scale
        config = self.config
        inverse = inverse3(cell)
        miller = reciprocal_half_space(cell, K_LAST + TAIL * config.s_width)
        waves = (
            2
            * math.pi
            * (miller[:, 0:1] * inverse[:, 0] + miller[:, 1:2] * inverse[:, 1] + miller[:, 2:] * inverse[:, 2])
        )
        k = np.sqrt((waves**2).sum(axis=1))
        z = (k[:, None] - self.wave_numbers) / config.s_width
        inside = np.abs(z) <= TAIL
        amplitude = 2 * config.s_amplitude / n_atoms / k * np.exp(-((k / K_DAMP) ** 2))
        first = inside.argmax(axis=1)
        tables = PairTables(
            cell=cell,
            inverse=inverse,
            images=lattice_images(cell, config.cutoff),
            miller=miller,
            waves=waves,
            weights=np.where(inside, amplitude[:, None] * np.exp(-0.5 * z * z), 0.0),
            first=first,
            last=first + inside.sum(axis=1),
            centres=self.centres,
            width=config.rdf_width,
            cutoff=config.cutoff,
        )
        return tables, scale


def check_species(species: ArrayLike, n_channels: int, n_atoms: int) -> NDArray[np.int64]:
    """Channels of the atoms as (n,) int64.

    Raises:
        ValueError: on a wrong number, no atoms, or a channel outside 0 to n_channels - 1.
    """
    channels = np.ascontiguousarray(species, dtype=np.int64)
    if channels.shape != (n_atoms,) or n_atoms == 0:
        raise ValueError(f"species must have shape ({n_atoms},) with at least one atom, not {channels.shape}")
    if channels.min() < 0 or channels.max() >= n_channels:
        raise ValueError(f"channels must lie in 0-{n_channels - 1}, found {channels.min()}-{channels.max()}")
    return channels
