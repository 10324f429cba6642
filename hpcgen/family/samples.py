"""Samples of the family `representation`: the record that samples.h5 holds, made from what the networks return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.crystal import FloatArray
from hpcgen.flow import array, column
from hpcgen.represent import lattice as lattices
from hpcgen.represent.composition import GeneratedComposition, whole_counts
from hpcgen.represent.descriptor import relabel

if TYPE_CHECKING:
    from hpcgen.family.representation import RepresentationFamily

_GROUP = "representation"


@dataclass(frozen=True, eq=False)
class RepresentationSample:
    """One generated representation in physical units, as samples.h5 holds it; usable without the model.

    Channel k of the descriptor is the k-th element with a composition above 0, in (electronegativity, Z) order. Of
    `sample.attempts` cells and descriptors that were drawn for the composition the first stand alone, for those who
    want one; reconstruction looks at the others too.
    """

    id: str
    n_atoms: np.float32 = array("f4", "number of atoms, as generated: not rounded", shape=(), group=_GROUP)
    composition: NDArray[np.float32] = array(
        "f4", "atoms of each element of the attribute `elements`, as generated", shape=("E",), group=_GROUP
    )
    lattice: NDArray[np.float32] = array(
        "f4", "a, b, c in angstrom and alpha, beta, gamma in degrees", shape=(6,), group=_GROUP
    )
    descriptor: NDArray[np.float32] = array(
        "f4", "the descriptor; the attributes name it, its settings and its dimensions", shape=("D",), group=_GROUP
    )
    more_lattices: NDArray[np.float32] = array(
        "f4",
        "further cells drawn for the same composition, likewise",
        shape=("A", 6),
        group=_GROUP,
        empty=(0, 6),
        since=2,
    )
    more_descriptors: NDArray[np.float32] = array(
        "f4", "the descriptors drawn for them", shape=("A", "D"), group=_GROUP, empty=(0, 0), since=2
    )
    composition_confidence: float = column("f8", "smallest lead of a channel's element over the next", unit="1")
    repair: str = column("text", "what was odd in the generated composition; empty if nothing")


VERSION = 2  # since 2: further attempts
store.register(RepresentationSample, "hpcgen.samples", VERSION, oldest=1)


def of_vectors(family: RepresentationFamily, ids: Sequence[str], x: NDArray[np.float32]) -> list[RepresentationSample]:
    """Generated vectors (M, L) as samples, with elements named and descriptor channels in their order."""
    lengths = [block.length for block in (family.bits, family.counts, family.lattice, family.descriptor)]
    bits, counts, cells, vectors = np.split(np.asarray(x, dtype=np.float64), np.cumsum(lengths)[:-1], axis=1)
    compositions = np.concatenate([family.bits.inverse(bits), family.counts.inverse(counts)], axis=1)
    cells, vectors = family.lattice.inverse(cells), family.descriptor.inverse(vectors)
    samples = []
    for id_, composition, cell, vector in zip(ids, compositions, cells, vectors, strict=True):
        decoded = family.codec.decode(composition)
        # all channels are kept, those in use first: every sample of a file has the same length
        mixing = np.zeros((family.codec.channels, family.codec.channels))
        mixing[: len(decoded.mixing)] = decoded.mixing
        samples.append(
            RepresentationSample(
                id=id_,
                n_atoms=np.float32(decoded.n_atoms),
                composition=decoded.counts.astype(np.float32),
                lattice=lattices.decode_lattice(cell, _atoms(family, decoded)).astype(np.float32),
                descriptor=relabel(family.settings, vector, mixing).astype(np.float32),
                more_lattices=np.zeros((0, 6), np.float32),
                more_descriptors=np.zeros((0, len(vector)), np.float32),
                composition_confidence=decoded.confidence,
                repair=decoded.repair,
            )
        )
    return samples


def of_stages(
    family: RepresentationFamily,
    ids: Sequence[str],
    counts: NDArray[np.int64],
    elements: NDArray[np.int64],
    parameters: FloatArray,
    vectors: FloatArray,
) -> list[RepresentationSample]:
    """Samples of whole compositions, counts and elements (M, C), with A lattices (A, M, 6) and descriptors (A, M, D).

    What the descriptor has in channels that are not in use is set to zero.
    """
    channels = family.codec.channels
    in_use = [
        relabel(family.settings, np.ones(vectors.shape[2]), np.diag((np.arange(channels) < k).astype(float))) > 0.5
        for k in range(channels + 1)
    ]
    samples = []
    drawn = zip(ids, counts, elements, parameters.swapaxes(0, 1), vectors.swapaxes(0, 1), strict=True)
    for id_, count, element, cells, many in drawn:
        composition = np.zeros(len(family.codec.elements), dtype=np.float32)
        composition[element[count > 0]] = count[count > 0]
        descriptors = np.where(in_use[int((count > 0).sum())], many, 0.0).astype(np.float32)
        samples.append(
            RepresentationSample(
                id=id_,
                n_atoms=np.float32(count.sum()),
                composition=composition,
                lattice=cells[0].astype(np.float32),
                descriptor=descriptors[0],
                more_lattices=cells[1:].astype(np.float32),
                more_descriptors=descriptors[1:],
                composition_confidence=1.0,
                repair="",
            )
        )
    return samples


def _atoms(family: RepresentationFamily, decoded: GeneratedComposition) -> float:
    """The whole number of atoms that volume per atom is meant for; as generated where no crystal is meant."""
    counts = decoded.counts[decoded.counts > 0]
    if not len(counts) or max(counts.sum(), decoded.n_atoms) > 2 * family.max_atoms:
        return decoded.n_atoms
    return float(whole_counts(counts, decoded.n_atoms)[0].sum())
