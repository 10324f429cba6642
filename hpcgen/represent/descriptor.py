"""What every descriptor of the representation family answers, and how one is made from a configuration or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.config import EadConfig, PairSpectrumConfig, RepresentationConfig, ThreeBodyConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import StoreError

VERSIONS = {"pair-spectrum": 2, "pair-spectrum+3body": 1, "ead": 1}
"""Of each definition: a crystal has the same vector in all files of one version, up to the descriptor's settings."""


class Descriptor(Protocol):
    """An invariant vector of a crystal.

    `n_channels` is C, the number of species channels of the vector; `species` (n,) gives the channel of each atom, 0
    to C - 1. Channels without atoms hold zeros. All arrays are float64.
    """

    @property
    def name(self) -> str:
        """As in the configuration."""
        ...

    @property
    def invariances(self) -> tuple[str, ...]:
        """What leaves the vector as it is.

        Of `rotation`, `reflection`, `translation`, `permutation` (of like atoms), `basis` (another cell of the same
        lattice), `supercell`, and `scale` (of all lengths).
        """
        ...

    def length(self, n_channels: int) -> int:
        """D, the number of dimensions."""
        ...

    def names(self, n_channels: int) -> list[str]:
        """The D names of the dimensions, all different."""
        ...

    def blocks(self, n_channels: int) -> dict[str, slice]:
        """The contiguous parts that the vector consists of, in their order, by name."""
        ...

    def encode(self, crystal: Crystal, species: ArrayLike, n_channels: int) -> FloatArray:
        """(D,) vector of `crystal`.

        Raises:
            ValueError: on channels that do not fit.
        """
        ...

    def encode_batch(self, crystals: Sequence[Crystal], n_channels: int, threads: int = 1) -> FloatArray:
        """(M, D) vectors of crystals, channels by `species_channels`; the same bits for any number of threads.

        Raises:
            ValueError: on a crystal with more elements than channels.
        """
        ...

    def evaluate(
        self, lattice: ArrayLike, cart: ArrayLike, species: ArrayLike, n_channels: int, *, jacobian: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Value (D,), and Jacobian (D, 3n) by the Cartesian positions `cart` (n, 3), angstrom, at fixed `lattice`.

        The Jacobian is (D, 0) if it is not asked for.

        Raises:
            ValueError: on shapes or channels that do not fit, or a cell without volume.
        """
        ...


def make_descriptor(config: RepresentationConfig) -> Descriptor:
    """The descriptor that the configuration asks for."""
    if config.descriptor == "ead":
        from hpcgen.represent.ead import EmbeddedAtomDensity

        return EmbeddedAtomDensity(config.ead)
    if config.descriptor == "pair-spectrum+3body":
        from hpcgen.represent.three_body import PairSpectrumThreeBody

        return PairSpectrumThreeBody(config.pair_spectrum, config.three_body)
    from hpcgen.represent.pair_spectrum import PairSpectrum

    return PairSpectrum(config.pair_spectrum)


_SECTIONS: dict[str, tuple[str, ...]] = {
    "pair-spectrum": ("pair_spectrum",),
    "pair-spectrum+3body": ("pair_spectrum", "three_body"),
    "ead": ("ead",),
}
_MODELS = {"pair_spectrum": PairSpectrumConfig, "three_body": ThreeBodyConfig, "ead": EadConfig}


def descriptor_attrs(config: RepresentationConfig) -> dict[str, str]:
    """Name, version of the definition and settings of the descriptor as text, for files and checkpoints."""
    name = config.descriptor
    settings = {section: getattr(config, section).model_dump(mode="json") for section in _SECTIONS[name]}
    return {
        "descriptor": name,
        "descriptor_version": str(VERSIONS[name]),
        "descriptor_settings": json.dumps(settings),
    }


def representation_config(attrs: Mapping[str, Any]) -> RepresentationConfig:
    """The descriptor's configuration from what `descriptor_attrs` stored: files need no model and no guess.

    Raises:
        StoreError: if the attributes are missing, name no descriptor of this hpcgen, or another version of one.
    """
    name = str(attrs.get("descriptor"))
    if name not in VERSIONS:
        raise StoreError(f"the file's descriptor is {name!r}", expected=", ".join(f"`{n}`" for n in VERSIONS))
    version = attrs.get("descriptor_version", "unknown")
    if str(version) != str(VERSIONS[name]):
        raise StoreError(
            f"the file's descriptor `{name}` has version {version}",
            expected=f"version {VERSIONS[name]}: the definition has changed, and vectors of both cannot be compared",
            remedy="train and sample again, or use the hpcgen that wrote the file (attribute `hpcgen_version`)",
        )
    try:
        settings = json.loads(attrs["descriptor_settings"])
        sections = {section: _MODELS[section](**settings[section]) for section in _SECTIONS[name]}
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the file's descriptor settings cannot be read: {error}",
            expected="attributes `descriptor` and `descriptor_settings` as hpcgen writes them",
        ) from None
    return RepresentationConfig.model_validate({"descriptor": name, **sections})


def same_unit(config: RepresentationConfig) -> bool:
    """Whether all dimensions share one unit, so that their variances may be compared as they are.

    The pair spectrum is built so; EAD mixes squares of different widths with a distance.
    """
    return config.descriptor != "ead"


def relabel(config: RepresentationConfig, values: FloatArray, mixing: FloatArray) -> FloatArray:
    """The descriptor after its channels are permuted, merged or dropped.

    Args:
        config: the descriptor's settings.
        values: (D,) for C channels.
        mixing: (C', C) of zeros and ones; row a collects the old channels that become channel a.

    Returns:
        (D',) for C' channels. Permuting and merging is exact. The pair blocks are, up to 1/sqrt(2) on the diagonal,
        sums R_cd over all ordered pairs of an atom of c and one of d, own images included, so that merging species
        is `M R M^T`; the three-body block is a sum over centres, and merging is `M R`. Dropping a channel leaves its
        atoms among the neighbours of the three-body block. EAD knows no channels.
    """
    if config.descriptor == "ead":
        return values.copy()
    new, old = mixing.shape
    rows, columns = np.triu_indices(old)
    new_rows, new_columns = np.triu_indices(new)
    out = []
    for name, part in make_descriptor(config).blocks(old).items():
        if name == "three_body":
            out.append((mixing @ values[part].reshape(old, -1)).ravel())
            continue
        block = values[part].reshape(len(rows), -1) * np.where(rows == columns, np.sqrt(2.0), 1.0)[:, None]
        full = np.zeros((old, old, block.shape[1]))
        full[rows, columns] = full[columns, rows] = block
        mixed = np.einsum("ac,cdk,bd->abk", mixing, full, mixing)[new_rows, new_columns]
        out.append((mixed * np.where(new_rows == new_columns, np.sqrt(0.5), 1.0)[:, None]).ravel())
    return np.concatenate(out)
