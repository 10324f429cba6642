"""Pair spectrum with a three-body block: the densities around each atom and their angles, per species of the centre.

In the scaled lengths of the pair spectrum (V/N = 2.5^3 cubic angstrom), with N atoms, centres i of channel c, and
neighbours j, k that run over all other atoms of the crystal within r_c, an atom's own images included:

    q_c,nn'L = (w/N) sum_{i in c} sum_{jk} h_n(r_ij) h_n'(r_ik) cos^L(theta_jik)
    h_n      = exp(-((r - r_n)/sigma)^2 / 2) (1 + cos(pi r/r_c))/2

with n' = n or n + 1, and r_n from 1.2 to r_c - 0.7. This is the embedded atom density (EAD: Zhang, Hu, Jiang, J. Phys.
Chem. Lett. 10, 4962 (2019)) of an atom, with the product of two shells besides the square of one, summed over the
atoms of a species, where EAD takes the largest and the smallest: so it is smooth in all positions, and as a mean over
the atoms it is invariant under supercells too. Layout: [rdf], [s],
[centre species x L x (all (n, n), then all (n, n + 1))].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.config import PairSpectrumConfig, ThreeBodyConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.represent.batch import encode_each
from hpcgen.represent.images import lattice_images
from hpcgen.represent.pair_kernels import PairTables, pair_spectrum
from hpcgen.represent.pair_spectrum import PairSpectrum, check_species
from hpcgen.represent.three_body_kernels import ThreeBodyTables, three_body

R_FIRST, R_MARGIN = 1.2, 0.7  # angstrom (scaled): first shell, and the last one's distance from the cutoff


class PairSpectrumThreeBody:
    """The descriptor for one choice of bins and shells; a `hpcgen.represent.descriptor.Descriptor`.

    Args:
        pair: settings of the pair blocks.
        config: settings of the three-body block.

    Attributes:
        pair: the `PairSpectrum` of the first two blocks.
    """

    name = "pair-spectrum+3body"
    invariances = PairSpectrum.invariances

    def __init__(self, pair: PairSpectrumConfig, config: ThreeBodyConfig) -> None:
        self.pair = PairSpectrum(pair)
        self.config = config
        self.centres: FloatArray = np.linspace(R_FIRST, config.cutoff - R_MARGIN, config.shells)
        exponents = [
            (lx, ly, order - lx - ly)
            for order in range(config.l_max + 1)
            for lx in range(order, -1, -1)
            for ly in range(order - lx, -1, -1)
        ]
        place = {e: m for m, e in enumerate(exponents)}
        self.multinomials: FloatArray = np.array(
            [math.factorial(sum(e)) / math.prod(math.factorial(v) for v in e) for e in exponents]
        )
        self.orders = np.array([math.comb(order + 2, 3) for order in range(config.l_max + 2)], dtype=np.int64)
        unit = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        self.raised = np.array([[place.get(_plus(e, z), -1) for z in unit] for e in exponents], dtype=np.int64)
        lowered = [(-1, -1)] * len(exponents)
        for m, above in enumerate(self.raised.tolist()):
            for z, raised in enumerate(above):
                if raised >= 0:
                    lowered[raised] = (z, m)
        self.lowered = np.array(lowered, dtype=np.int64)

    def length(self, n_channels: int) -> int:
        """D: the number of components for `n_channels` species."""
        return self.pair.length(n_channels) + n_channels * (self.config.l_max + 1) * (2 * self.config.shells - 1)

    def blocks(self, n_channels: int) -> dict[str, slice]:
        """`rdf`, `s` and `three_body`, where they are in the vector."""
        return {
            **self.pair.blocks(n_channels),
            "three_body": slice(self.pair.length(n_channels), self.length(n_channels)),
        }

    def names(self, n_channels: int) -> list[str]:
        """(D,) names of the pair spectrum, then such as `three_body 0 L2 1.20 1.92` (centre's channel, two shells)."""
        last = self.config.shells
        pairs = [(k, k) for k in range(last)] + [(k, k + 1) for k in range(last - 1)]
        return self.pair.names(n_channels) + [
            f"three_body {c} L{order} {self.centres[k]:.2f} {self.centres[m]:.2f}"
            for c in range(n_channels)
            for order in range(self.config.l_max + 1)
            for k, m in pairs
        ]

    def encode(self, crystal: Crystal, species: ArrayLike, n_channels: int) -> FloatArray:
        """(D,) float64 vector of a crystal; see `PairSpectrum.encode`."""
        return self.evaluate(crystal.lattice, crystal.cart, species, n_channels, jacobian=False)[0]

    def encode_batch(self, crystals: Sequence[Crystal], n_channels: int, threads: int = 1) -> FloatArray:
        """(M, D) vectors of crystals; see `PairSpectrum.encode_batch`."""
        return encode_each(self.encode, crystals, n_channels, self.length(n_channels), threads)

    def evaluate(
        self, lattice: ArrayLike, cart: ArrayLike, species: ArrayLike, n_channels: int, *, jacobian: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Value q (D,) and Jacobian J (D, 3n) = dq/dcart in 1/angstrom, at fixed lattice; see `PairSpectrum.evaluate`.

        Raises:
            ValueError: on shapes or channels that do not fit, or a cell without volume.
        """
        x = np.asarray(cart, dtype=np.float64)
        channels = check_species(species, n_channels, len(x))
        tables, scale = self.pair.prepare(lattice, len(x))
        x = np.ascontiguousarray(x * scale)
        q = np.empty(self.length(n_channels))
        jt = np.empty((3 * len(x) if jacobian else 0, len(q)))
        pair_spectrum(x, channels, n_channels, tables, q, jt, jacobian)
        three_body(x, channels, n_channels, self.prepare(tables), q, jt, jacobian)
        q += self.self_terms(tables, np.bincount(channels, minlength=n_channels), n_channels)
        return q, jt.T * scale

    def self_terms(self, tables: PairTables, counts: ArrayLike, n_channels: int) -> FloatArray:
        """(D,) `PairSpectrum.self_terms`, then zeros: the kernel of the three-body block counts own images itself."""
        out = np.zeros(self.length(n_channels))
        out[: self.pair.length(n_channels)] = self.pair.self_terms(tables, counts, n_channels)
        return out

    def prepare(self, tables: PairTables) -> ThreeBodyTables:
        """The three-body block's tables of a cell that `PairSpectrum.prepare` has scaled."""
        config = self.config
        return ThreeBodyTables(
            cell=tables.cell,
            inverse=tables.inverse,
            images=lattice_images(tables.cell, config.cutoff),
            centres=self.centres,
            width=config.width,
            cutoff=config.cutoff,
            multinomials=self.multinomials,
            orders=self.orders,
            lowered=self.lowered,
            raised=self.raised,
            weight=config.weight,
        )


def _plus(e: tuple[int, int, int], z: tuple[int, int, int]) -> tuple[int, int, int]:
    return (e[0] + z[0], e[1] + z[1], e[2] + z[2])
