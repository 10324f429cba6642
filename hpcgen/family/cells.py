"""Cells for compositions that are given or drawn, by either model of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcgen.crystal import FloatArray
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.lattice_model import LatticePart
from hpcgen.represent import lattice as lattices
from hpcgen.represent.lattice_tokens import parameters_of

if TYPE_CHECKING:
    from hpcgen.family.representation import RepresentationFamily


def draw_cells(
    family: RepresentationFamily,
    trained: Trained,
    how: Draw,
    ids: Sequence[str],
    c: Tensor,
    n_atoms: NDArray[np.int64],
    fixed: FloatArray,
) -> Tensor:
    """(M, 6) scaled lattice features; not finite where a network's output was not.

    Args:
        family: as fitted.
        trained: the part `lattice`.
        how: seed and settings.
        ids: of at most `sample.micro_batch` samples.
        c: (M, Dc) what the cells are conditioned on.
        n_atoms: (M,)
        fixed: (6,) a, b, c (angstrom), alpha, beta, gamma (degrees) that are given, NaN for those to be drawn.
    """
    if isinstance(trained.part, LatticePart):
        assert family.lattice_tokens is not None
        values = how.cells(trained, ids, c, n_atoms, fixed, family.lattice_tokens)
        parameters = parameters_of(values, n_atoms)
        return scaled(family, np.where(np.isfinite(fixed), fixed, parameters), n_atoms)
    given = np.isfinite(fixed)

    def clamp(x: Tensor) -> Tensor:
        rows = family.lattice.inverse(x.double().cpu().numpy())
        for row, n in zip(rows, n_atoms, strict=True):
            parameters = lattices.decode_lattice(row, float(n))
            try:
                row[:] = _encode(np.where(given, fixed, parameters), int(n))
            except (ValueError, np.linalg.LinAlgError):
                continue  # free parameters that do not go with the given ones: a later estimate may do
        return torch.from_numpy(family.lattice.forward(rows)).to(x)

    return how.arrays(trained, ids, c, clamp if given.any() else None)[: len(ids)]


def scaled(family: RepresentationFamily, parameters: FloatArray, n_atoms: NDArray[np.int64]) -> Tensor:
    """(M, 6) scaled lattice features of parameters (M, 6); not finite where they are no cell."""
    features = np.full((len(parameters), 6), np.nan)
    for row, p, n in zip(features, parameters, n_atoms, strict=True):
        try:
            row[:] = _encode(p, int(n))
        except (ValueError, np.linalg.LinAlgError):
            continue
    return torch.from_numpy(family.lattice.forward(features).astype(np.float32))


def _encode(parameters: FloatArray, n_atoms: int) -> FloatArray:
    """(6,) features of lattice parameters.

    Raises:
        ValueError: if they are no cell.
    """
    return lattices.encode_lattice(lattices.build_lattice(parameters, n_atoms), n_atoms)
