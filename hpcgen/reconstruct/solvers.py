"""The solver that belongs to a descriptor."""

from __future__ import annotations

from hpcgen.config import ReconstructConfig
from hpcgen.reconstruct.solution import Solver
from hpcgen.represent.descriptor import Descriptor


def make_solver(descriptor: Descriptor, config: ReconstructConfig) -> Solver:
    """Basin hopping for embedded atom densities, grid annealing for everything built on the pair spectrum."""
    from hpcgen.represent.ead import EmbeddedAtomDensity

    if isinstance(descriptor, EmbeddedAtomDensity):
        from hpcgen.reconstruct.basin_hopping import BasinHopping

        return BasinHopping(descriptor, config.basin_hopping)
    from hpcgen.reconstruct.anneal import AnnealSolver
    from hpcgen.represent.pair_spectrum import PairSpectrum
    from hpcgen.represent.three_body import PairSpectrumThreeBody

    if not isinstance(descriptor, PairSpectrum | PairSpectrumThreeBody):
        raise TypeError(f"no solver inverts the descriptor {descriptor.name!r}")
    return AnnealSolver(descriptor, config.anneal)
