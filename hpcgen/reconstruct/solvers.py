"""The solver that belongs to a descriptor."""

from __future__ import annotations

import math

from hpcgen.config import ReconstructConfig
from hpcgen.reconstruct.solution import Solver
from hpcgen.represent.descriptor import Descriptor


def make_solver(descriptor: Descriptor, config: ReconstructConfig, *, share: float = 1.0) -> Solver:
    """Basin hopping for embedded atom densities, grid annealing for everything built on the pair spectrum.

    Args:
        descriptor: to invert.
        config: the section `reconstruct`.
        share: of the starts, or trials, that the configuration allows.
    """
    from hpcgen.represent.ead import EmbeddedAtomDensity

    if isinstance(descriptor, EmbeddedAtomDensity):
        from hpcgen.reconstruct.basin_hopping import BasinHopping

        trials = math.ceil(share * config.basin_hopping.trials)
        return BasinHopping(descriptor, config.basin_hopping.model_copy(update={"trials": trials}))
    from hpcgen.reconstruct.anneal import AnnealSolver
    from hpcgen.represent.pair_spectrum import PairSpectrum
    from hpcgen.represent.three_body import PairSpectrumThreeBody

    if not isinstance(descriptor, PairSpectrum | PairSpectrumThreeBody):
        raise TypeError(f"no solver inverts the descriptor {descriptor.name!r}")
    starts = math.ceil(share * config.anneal.starts)
    return AnnealSolver(descriptor, config.anneal.model_copy(update={"starts": starts}))
