"""The pair spectrum: a radial distribution and a smeared structure factor, per pair of species channels.

Lengths are taken in a cell scaled to V/N = 2.5^3 cubic angstrom, so that the vector describes the arrangement
and the lattice alone carries the size. With channels c <= d (one-hot species), N atoms, s = sqrt(2) for c = d
and 1 otherwise:

    RDF   q_cd,k = (1/N) sum_{pairs} s phi_k(r),   phi_k = exp(-((r - r_k)/w)^2 / 2) (1 + cos(pi r/r_c))/2 3/max(r, 0.6)
    S     q_cd,m = (1/N) sum_{G, half space} a_m(|G|) X_cd,   X_cc = (sqrt(2)/2) |F_c|^2,   X_cd = Re F_c F_d*
          a_m = (2 A/N)/|G| exp(-(|G|/6)^2) exp(-((|G| - k_m)/w_s)^2 / 2)

with r_k from 0.75 to r_c - 0.35, k_m from 0.8 per angstrom to the last that is configured, and F_c the sum over
atoms of c of exp(i G . x).
The pairs are those of one atom of the cell with every other atom of the crystal, each pair once: i < j with all
translations T, and every atom with its own images, counted half because an image sees the same. Layout:
[pair x rdf_bins], then [pair x s_bins].

Invariant under rotation, translation, permutation of like atoms, choice of basis, and supercells. The terms of
atoms with their own images are constants of cell and composition (`PairSpectrum.self_terms`). Without them both
blocks are (1/N) sum_{i<j} s Phi(x_j - x_i) of one function Phi on the lattice torus, which is what the kernels
compute and what the grid annealing of `hpcgen.reconstruct` uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.config import PairSpectrumConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.batch import encode_each
from hpcgen.represent.images import volume3
from hpcgen.represent.pair_kernels import PairTables, pair_spectrum, pair_tables, self_terms

SPACING = 2.5  # angstrom: cells are scaled to SPACING^3 per atom
R_FIRST, R_MARGIN = 0.75, 0.35  # angstrom: first RDF centre, and the last one's distance from the cutoff
K_FIRST, K_DAMP = 0.8, 6.0  # 1/angstrom: first S centre, and damping


class PairSpectrum:
    """The descriptor for one choice of bins; a `hpcgen.represent.descriptor.Descriptor`.

    Args:
        config: bins, widths, amplitude and cutoff; what it leaves open is as for several elements, see
            `RepresentationConfig.resolved`.
    """

    name = "pair-spectrum"
    invariances = ("rotation", "reflection", "translation", "permutation", "basis", "supercell", "scale")

    def __init__(self, config: PairSpectrumConfig) -> None:
        self.config = config.resolved(2)
        self.structure_factor = bins = config.structure_factor()
        self.centres: FloatArray = np.linspace(R_FIRST, config.cutoff - R_MARGIN, config.rdf_bins)
        self.wave_numbers: FloatArray = np.linspace(K_FIRST, bins.last, bins.bins)

    def length(self, n_channels: int) -> int:
        """D: the number of components for `n_channels` species."""
        return n_channels * (n_channels + 1) // 2 * (self.config.rdf_bins + self.structure_factor.bins)

    def blocks(self, n_channels: int) -> dict[str, slice]:
        """`rdf` and `s`, where they are in the vector."""
        split = n_channels * (n_channels + 1) // 2 * self.config.rdf_bins
        return {"rdf": slice(0, split), "s": slice(split, self.length(n_channels))}

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

    def encode_batch(self, crystals: Sequence[Crystal], n_channels: int, threads: int = 1) -> FloatArray:
        """(M, D) vectors of crystals, channels by `species_channels`; the same bits for any number of threads.

        Raises:
            ValueError: on a crystal with more elements than channels.
        """
        return encode_each(self.encode, crystals, n_channels, self.length(n_channels), threads)

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
        q += self.self_terms(tables, np.bincount(channels, minlength=n_channels), n_channels)
        return q, jt.T * scale

    def self_terms(self, tables: PairTables, counts: ArrayLike, n_channels: int) -> FloatArray:
        """(D,) what atoms and their own periodic images add to the vector, wherever the atoms are.

        An atom of channel c adds (1/2) sum_{T != 0} sqrt(2) phi_k(|T|) / N to the RDF of (c, c), and the 1 that
        |F_c|^2 holds of it, (sqrt(2)/2) sum_G a_m / N, to the S.

        Args:
            tables: of the cell, made for as many atoms as `counts` adds up to.
            counts: (C,) atoms of each channel.
            n_channels: C.
        """
        return self_terms(tables, np.ascontiguousarray(counts, dtype=np.float64), n_channels)

    def prepare(self, lattice: ArrayLike, n_atoms: int) -> tuple[PairTables, float]:
        """Tables of a cell with `n_atoms` atoms, and the factor from angstrom to its scaled lengths.

        Raises:
            ValueError: if the cell has no volume.
        """
        config = self.config
        cell, scale = scaled_cell(lattice, n_atoms)
        tables = pair_tables(
            cell,
            n_atoms,
            self.centres,
            config.rdf_width,
            config.cutoff,
            self.wave_numbers,
            self.structure_factor.width,
            self.structure_factor.amplitude,
            K_DAMP,
        )
        return tables, scale


def scaled_cell(lattice: ArrayLike, n_atoms: int) -> tuple[FloatArray, float]:
    """The (3, 3) cell scaled to `SPACING`^3 per atom, and the factor from angstrom to its lengths.

    Raises:
        ValueError: if the cell has no volume.
    """
    matrix = np.array(lattice, dtype=np.float64, order="C")
    volume = float(volume3(matrix)) if matrix.shape == (3, 3) else 0.0
    if not (1e-6 < volume < np.inf):
        raise ValueError(f"the cell has no volume ({volume:.3g} cubic angstrom)")
    scale = SPACING / (volume / n_atoms) ** (1 / 3)
    return matrix * scale, scale


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
