"""What the metrics ask of each crystal of a set: validity, density, elements, fingerprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.errors import Failure
from hpcgen.evaluate.cache import Cache, crystal_key
from hpcgen.evaluate.coverage import known
from hpcgen.evaluate.fingerprint import (
    COMPOSITION_SIZE,
    STRUCTURE_SIZE,
    composition_fingerprinter,
    structure_fingerprinter,
)
from hpcgen.evaluate.parallel import mapped
from hpcgen.screen import composition_valid
from hpcgen.screen.validity import MIN_VOLUME

MIN_DISTANCE = 0.5  # angstrom, CDVAE's
BATCH = 250  # fingerprints that are kept on disk at a time


@dataclass(frozen=True, eq=False)
class Measured:
    """Columns over the M items of a set, failures included: they are valid in nothing and have no fingerprint.

    Attributes:
        structure_valid: (M,) CDVAE: distances between different atoms of at least 0.5 angstrom, volume of 0.1 A^3.
        own_images_valid: (M,) the same with an atom's own periodic images, which CDVAE never looks at.
        composition_valid: (M,) SMACT with the table `smact14`; of failures false.
        density: (M,) g/cm^3, NaN for failures.
        n_elements: (M,) 0 for failures.
        formula: M reduced formulas, empty for failures.
        structure: (M, 61) fingerprints, NaN where there is none.
        composition: (M, 132) likewise.
    """

    structure_valid: NDArray[np.bool_]
    own_images_valid: NDArray[np.bool_]
    composition_valid: NDArray[np.bool_]
    density: FloatArray
    n_elements: NDArray[np.int64]
    formula: list[str]
    structure: FloatArray
    composition: FloatArray

    def __len__(self) -> int:
        return len(self.formula)

    @property
    def has_fingerprint(self) -> NDArray[np.bool_]:
        """(M,)"""
        return known(self.structure, self.composition)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(M,) CDVAE: structure and composition are valid, and there is a fingerprint."""
        return self.structure_valid & self.composition_valid & self.has_fingerprint

    @classmethod
    def together(cls, sets: Sequence[Measured]) -> Measured:
        """The items of several sets as one."""
        return cls(
            np.concatenate([s.structure_valid for s in sets]),
            np.concatenate([s.own_images_valid for s in sets]),
            np.concatenate([s.composition_valid for s in sets]),
            np.concatenate([s.density for s in sets]),
            np.concatenate([s.n_elements for s in sets]),
            [formula for s in sets for formula in s.formula],
            np.concatenate([s.structure for s in sets]),
            np.concatenate([s.composition for s in sets]),
        )

    def take(self, rows: ArrayLike) -> Measured:
        """The set of these rows, by index."""
        index = np.asarray(rows, dtype=int)
        return Measured(
            self.structure_valid[index],
            self.own_images_valid[index],
            self.composition_valid[index],
            self.density[index],
            self.n_elements[index],
            [self.formula[i] for i in index],
            self.structure[index],
            self.composition[index],
        )


def measure(items: Sequence[Crystal | Failure], *, processes: int, cache: Cache, label: str = "crystals") -> Measured:
    """Measure a set; equal crystals are measured once, and fingerprints in the cache are not computed again.

    Args:
        items: the crystals, as they are written, and what could not be read or built.
        processes: for the fingerprints.
        cache: of structure fingerprints.
        label: of the progress bar.

    Raises:
        DependencyError: if matminer is not installed.
        LaunchError: if a process is killed.
    """
    n = len(items)
    keys = [crystal_key(item) if isinstance(item, Crystal) else b"" for item in items]
    todo: dict[bytes, Crystal] = {}
    for key, item in zip(keys, items, strict=True):
        if isinstance(item, Crystal) and cache.get(key) is None:
            todo.setdefault(key, item)
    names = list(todo)
    try:
        work = mapped(structure_fingerprint, list(todo.values()), processes=processes, label=f"fingerprints of {label}")
        for done, (key, vector) in enumerate(zip(names, work, strict=True), start=1):
            cache.put(key, vector)
            if done % BATCH == 0:
                cache.flush()
    finally:
        cache.flush()
    simple = list(map(partial(_simple, distance=MIN_DISTANCE), items))
    structure = np.full((n, STRUCTURE_SIZE), np.nan)
    composition = np.full((n, COMPOSITION_SIZE), np.nan)
    for i, (key, item) in enumerate(zip(keys, items, strict=True)):
        if isinstance(item, Crystal):
            found = cache.get(key)
            assert found is not None
            structure[i], composition[i] = found, composition_fingerprinter().of(item)
    return Measured(
        structure_valid=np.array([s[0] for s in simple], dtype=bool),
        own_images_valid=np.array([s[1] for s in simple], dtype=bool),
        composition_valid=np.array([s[2] for s in simple], dtype=bool),
        density=np.array([s[3] for s in simple], dtype=float),
        n_elements=np.array([s[4] for s in simple], dtype=np.int64),
        formula=[s[5] for s in simple],
        structure=structure,
        composition=composition,
    )


def structure_fingerprint(crystal: Crystal) -> FloatArray:
    """(61,) in a process of its own fingerprinter."""
    return structure_fingerprinter().of(crystal)


def distances_valid(crystal: Crystal, distance: float = MIN_DISTANCE) -> bool:
    """CDVAE's structure validity: volume, and distances (angstrom) between different atoms but not own images."""
    if crystal.volume < MIN_VOLUME:
        return False
    matrix = to_structure(crystal).distance_matrix
    return bool(matrix[~np.eye(len(crystal), dtype=bool)].min(initial=np.inf) >= distance)


def _simple(item: Crystal | Failure, distance: float) -> tuple[bool, bool, bool, float, int, str]:
    if isinstance(item, Failure):
        return False, False, False, float("nan"), 0, ""
    valid = distances_valid(item, distance)
    return (
        valid,
        valid and item.smallest_distance() >= distance,
        composition_valid(item.numbers),
        item.density,
        len(np.unique(item.numbers)),
        item.formula,
    )
