"""What every descriptor of the representation family answers, and how one is made from a configuration or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import EadConfig, PairSpectrumConfig, RepresentationConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import StoreError


class Descriptor(Protocol):
    """An invariant vector of a crystal: the same for every rotation, translation, order of atoms and choice of cell.

    `n_channels` is C, the number of species channels of the vector; `species` gives the channel of each atom.
    """

    def length(self, n_channels: int) -> int:
        """D, the number of dimensions."""
        ...

    def names(self, n_channels: int) -> list[str]:
        """The D names of the dimensions."""
        ...

    def encode(self, crystal: Crystal, species: NDArray[np.int64], n_channels: int) -> FloatArray:
        """(D,) float64 of `crystal`; `species` (n,) in 0..n_channels-1."""
        ...


def make_descriptor(config: RepresentationConfig) -> Descriptor:
    """The descriptor that the configuration asks for."""
    if config.descriptor == "ead":
        from hpcgen.represent.ead import EmbeddedAtomDensity

        return EmbeddedAtomDensity(config.ead)
    from hpcgen.represent.pair_spectrum import PairSpectrum

    return PairSpectrum(config.pair_spectrum)


def descriptor_attrs(config: RepresentationConfig) -> dict[str, str]:
    """Name and settings of the descriptor as text, for files and checkpoints."""
    section = config.ead if config.descriptor == "ead" else config.pair_spectrum
    return {"descriptor": config.descriptor, "descriptor_settings": json.dumps(section.model_dump(mode="json"))}


def representation_config(attrs: Mapping[str, Any]) -> RepresentationConfig:
    """The descriptor's configuration from what `descriptor_attrs` stored: files need no model and no guess.

    Raises:
        StoreError: if the attributes are missing or name no descriptor of this version.
    """
    try:
        name, settings = str(attrs["descriptor"]), json.loads(attrs["descriptor_settings"])
        if name == "ead":
            return RepresentationConfig(descriptor="ead", ead=EadConfig(**settings))
        if name == "pair-spectrum":
            return RepresentationConfig(descriptor="pair-spectrum", pair_spectrum=PairSpectrumConfig(**settings))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the file's descriptor settings cannot be read: {error}",
            expected="attributes `descriptor` and `descriptor_settings` as hpcgen writes them",
        ) from None
    raise StoreError(f"the file's descriptor is {name!r}", expected="`pair-spectrum` or `ead`")


def same_unit(config: RepresentationConfig) -> bool:
    """Whether all dimensions share one unit, so that their variances may be compared as they are.

    The pair spectrum is built so; EAD mixes squares of different widths with a distance.
    """
    return config.descriptor == "pair-spectrum"


def relabel(config: RepresentationConfig, values: FloatArray, mixing: FloatArray) -> FloatArray:
    """The descriptor after its channels are permuted, merged or dropped.

    Args:
        config: the descriptor's settings.
        values: (D,) for C channels.
        mixing: (C', C) of zeros and ones; row a collects the old channels that become channel a.

    Returns:
        (D',) for C' channels. Exact for pair blocks: with `R_cd = sum over i in c, j in d, i != j` (which is the
        stored block, times sqrt(2) on the diagonal), merging species is `M R M^T`. EAD knows no channels.
    """
    if config.descriptor == "ead":
        return values.copy()
    new, old = mixing.shape
    section = config.pair_spectrum
    rows, columns = np.triu_indices(old)
    new_rows, new_columns = np.triu_indices(new)
    out, start = [], 0
    for bins in (section.rdf_bins, section.s_bins):
        block = values[start : start + len(rows) * bins].reshape(len(rows), bins)
        start += len(rows) * bins
        block = block * np.where(rows == columns, np.sqrt(2.0), 1.0)[:, None]
        full = np.zeros((old, old, bins))
        full[rows, columns] = full[columns, rows] = block
        mixed = np.einsum("ac,cdk,bd->abk", mixing, full, mixing)[new_rows, new_columns]
        out.append((mixed * np.where(new_rows == new_columns, np.sqrt(0.5), 1.0)[:, None]).ravel())
    return np.concatenate(out)
