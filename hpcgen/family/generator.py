"""Samples of the representation family from its trained parts, as they are asked for.

What is given is not drawn: a formula replaces the stage of the composition, a whole cell that of the lattice, and of a
partly given cell every estimate is set to what is given. Elements and number of atoms hold by construction too, for
only such patterns of counts are drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcgen.crystal import FloatArray, lattice_from_parameters
from hpcgen.errors import ConfigError, Failure
from hpcgen.family.cells import draw_cells, scaled
from hpcgen.family.conditions import ELEMENTS, N_ATOMS, Conditions, ElementSet
from hpcgen.family.draw import Draw, Trained
from hpcgen.family.parts import COMPOSITION, DESCRIPTOR, JOINT, LATTICE, features
from hpcgen.family.samples import of_stages, of_vectors
from hpcgen.represent import lattice as lattices

if TYPE_CHECKING:
    from hpcgen.family.representation import RepresentationFamily, RepresentationSample
    from hpcgen.family.request import Request

Whole = NDArray[np.int64]


class Generator(Protocol):
    """Draws samples of one request."""

    def __call__(self, ids: Sequence[str]) -> list[RepresentationSample | Failure]:
        """A sample for each of at most `sample.micro_batch` ids; a failure where a number is not finite."""
        ...


def make_generator(
    family: RepresentationFamily, models: Mapping[str, Trained], how: Draw, request: Request
) -> Generator:
    """The generator for a request, which is checked here.

    Raises:
        ConfigError: if the model does not know what is asked for, or cannot be asked for it.
    """
    if request.among is not None:
        raise ConfigError(
            "samples are asked for by `among`, and this family draws the elements itself",
            expected="`elements`, or train.family: pointcloud",
        )
    return Joint(family, models[JOINT], how, request) if JOINT in models else Staged(family, models, how, request)


class Joint:
    """The joint vector, which can be asked for conditions but not for a formula or a cell."""

    def __init__(self, family: RepresentationFamily, trained: Trained, how: Draw, request: Request) -> None:
        if request.counts or request.lattice:
            raise ConfigError(
                "samples are asked for by `formula` or `lattice`, and the model generates everything at once",
                expected="model.stages: factorised",
            )
        if how.settings.attempts > 1:
            raise ConfigError(
                f"sample.attempts is {how.settings.attempts}, and the model generates composition and cell at once",
                expected="1, or model.stages: factorised",
            )
        self.family, self.trained, self.how = family, trained, how
        self.asked = _ask(family.conditions, _wanted(request)) if family.conditions.fields else None
        if self.asked is None:
            family.conditions.ask(_wanted(request))  # nothing may be asked for

    def __call__(self, ids: Sequence[str]) -> list[RepresentationSample | Failure]:
        """See `Generator`."""
        c = None if self.asked is None else self.asked.expand(len(ids), -1)
        x = self.how.arrays(self.trained, ids, c).numpy()
        finite = np.isfinite(x).all(1)
        # the padding goes back to physical units too: matrix products there depend on the number of rows as well
        names = [*ids, *[""] * (len(x) - len(ids))]
        samples = of_vectors(self.family, names, np.where(finite[:, None], x, 0.0))
        return _checked(ids, samples, finite)


class Staged:
    """Composition, then lattice, then descriptor."""

    def __init__(
        self, family: RepresentationFamily, models: Mapping[str, Trained], how: Draw, request: Request
    ) -> None:
        self.family, self.models, self.how = family, models, how
        self.patterns = np.array(family.tokens.patterns)
        self.columns = _ask(family.conditions.columns(), request.columns)
        self.fixed = np.array([request.lattice.get(name, np.nan) for name in lattices.PARAMETER_NAMES])
        if np.isfinite(self.fixed).all():
            _build(self.fixed)
        self.given = None if request.counts is None else _formula(family, request.counts)
        if self.given is not None:
            return
        ElementSet(family.codec.elements).encode(request.elements or ())  # raises for those it does not know
        wanted = _wanted(request)
        for name in (ELEMENTS, N_ATOMS):
            if name not in family.conditions.names:
                wanted.pop(name, None)  # it holds by construction all the same
        self.asked = _ask(family.conditions, wanted)
        self.allowed = torch.from_numpy(_allowed(self.patterns, request))
        self.elements = sorted(family.tokens.elements.index(z) for z in request.elements or ())

    def __call__(self, ids: Sequence[str]) -> list[RepresentationSample | Failure]:
        """See `Generator`."""
        counts, elements = self.compositions(ids)
        attempts = [
            self.attempt([f"{id_}/{number}" if number else id_ for id_ in ids], counts, elements)
            for number in range(self.how.settings.attempts)
        ]
        parameters, vectors, finite = (np.stack(drawn) for drawn in zip(*attempts, strict=True))
        samples = of_stages(self.family, ids, counts, elements, parameters, vectors)
        return _checked(ids, samples, np.all(finite, axis=0))

    def attempt(
        self, names: Sequence[str], counts: Whole, elements: Whole
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """A cell and a descriptor for compositions (M, C): parameters (M, 6), vectors (M, D), whether all is finite."""
        count = len(names)
        cells = self.cells(names, counts, elements)
        c = torch.cat([self._given(names, counts, elements), cells], 1)
        x = self.how.arrays(self.models[DESCRIPTOR], names, c).numpy()
        finite = np.isfinite(x).all(1)
        finite[:count] &= np.isfinite(cells.numpy()).all(1)
        # with its padding: the product with the components depends on the number of rows
        vectors = self.family.descriptor.inverse(np.where(finite[:, None], x, 0.0).astype(np.float64))[:count]
        return self.parameters(cells, counts.sum(1)), vectors, finite[:count]

    def compositions(self, ids: Sequence[str]) -> tuple[Whole, Whole]:
        """Counts and elements (M, C) of every sample, given or drawn."""
        if self.given is not None:
            counts, elements = self.given
            return counts.repeat(len(ids), 0), elements.repeat(len(ids), 0)
        c = self.asked.expand(len(ids), -1)
        drawn = self.how.compositions(self.models[COMPOSITION], ids, c, self.allowed, self.elements).numpy()
        return self.patterns[drawn[:, 0]], drawn[:, 1:]

    def cells(self, ids: Sequence[str], counts: Whole, elements: Whole) -> Tensor:
        """(M, 6) scaled lattice features for compositions (M, C), given or drawn."""
        n_atoms = counts.sum(1)
        if np.isfinite(self.fixed).all():
            return scaled(self.family, np.tile(self.fixed, (len(ids), 1)), n_atoms)
        c = self._given(ids, counts, elements)
        return draw_cells(self.family, self.models[LATTICE], self.how, ids, c, n_atoms, self.fixed)

    def parameters(self, cells: Tensor, n_atoms: Whole) -> FloatArray:
        """(M, 6) a, b, c (angstrom), alpha, beta, gamma (degrees) from scaled features; what was given is exact."""
        physical = self.family.lattice.inverse(cells.double().numpy())
        parameters = np.stack([lattices.decode_lattice(f, float(n)) for f, n in zip(physical, n_atoms, strict=True)])
        return np.where(np.isfinite(self.fixed), self.fixed, parameters)

    def _given(self, ids: Sequence[str], counts: Whole, elements: Whole) -> Tensor:
        """(M, Dc) what lattice and descriptor are conditioned on: columns asked for, and the composition."""
        known = torch.from_numpy(features(self.family).encode(counts, elements))
        return torch.cat([self.columns.expand(len(ids), -1), known], 1)


def _ask(conditions: Conditions, wanted: Mapping[str, Any]) -> Tensor:
    """(1, Dc) condition vector of what is wanted.

    Raises:
        ConfigError: if the model does not know it.
    """
    return torch.from_numpy(conditions.ask(wanted))[None]


def _wanted(request: Request) -> dict[str, Any]:
    """The request as the fields of the condition vector."""
    out: dict[str, Any] = dict(request.columns)
    if request.elements is not None:
        out[ELEMENTS] = request.elements
    if request.n_atoms is not None:
        out[N_ATOMS] = request.n_atoms
    return out


def _formula(family: RepresentationFamily, counts: Mapping[int, int]) -> tuple[Whole, Whole]:
    """Counts and elements (1, C) of a formula.

    Raises:
        ConfigError: for an element that does not occur in the training split, or a cell that is too large.
    """
    ElementSet(family.codec.elements).encode(list(counts))
    total, channels = sum(counts.values()), family.codec.channels
    if total > family.max_atoms or len(counts) > channels:
        raise ConfigError(
            f"`formula` has {total} atoms of {len(counts)} elements",
            expected=f"at most {family.max_atoms} atoms of {channels} elements, as in the training data",
        )
    return family.tokens.encode([np.repeat(list(counts), list(counts.values()))])


def _allowed(patterns: Whole, request: Request) -> NDArray[np.bool_]:
    """(P,) which patterns of counts have as many atoms and elements as are asked for.

    Raises:
        ConfigError: if none has.
    """
    allowed = np.ones(len(patterns), dtype=bool)
    said = []
    if request.n_atoms is not None:
        allowed &= patterns.sum(1) == request.n_atoms
        said.append(f"{request.n_atoms} atoms")
    if request.elements is not None:
        allowed &= (patterns > 0).sum(1) == len(request.elements)
        said.append(f"{len(request.elements)} elements")
    if not allowed.any():
        raise ConfigError(
            f"no composition of the training data has {' and '.join(said)}",
            remedy="ask for another number, or for a `formula`",
        )
    return allowed


def _build(parameters: FloatArray) -> None:
    """Return if six given parameters are a cell.

    Raises:
        ConfigError: if they are not.
    """
    try:
        lattices.encode_lattice(lattice_from_parameters(parameters), 1)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise ConfigError(f"`lattice` is no cell: {error}", expected="lengths and angles that go together") from None


def _checked(
    ids: Sequence[str], samples: Sequence[RepresentationSample], finite: NDArray[np.bool_]
) -> list[RepresentationSample | Failure]:
    """The samples whose numbers are finite, failures for the others; what is beyond the ids is padding."""
    why = "the network returned values that are not finite numbers"
    return [
        sample if good else Failure(id_, "sample", "not-finite", why)
        for id_, sample, good in zip(ids, samples, finite, strict=False)
    ]
