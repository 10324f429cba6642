"""A periodic crystal, and the one place that converts it to and from pymatgen and ASE.

Conventions, everywhere in hpcgen: lattice vectors are the rows of a (3, 3) matrix in angstrom; fractional
coordinates are wrapped to [0, 1); lattice parameters are (a, b, c, alpha, beta, gamma) in angstrom and degrees.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Composition, Structure
    from spglib import SpglibDataset

FloatArray = NDArray[np.float64]
SYMPREC = 0.1  # angstrom, distance tolerance of the space groups in files, conditions and report
AVOGADRO_DENSITY = 1.66053906892  # g/cm^3 of one unified atomic mass unit per cubic angstrom (CODATA 2022)


@dataclass(frozen=True, eq=False)
class Crystal:
    """An ordered crystal.

    Attributes:
        lattice: (3, 3) float64, rows are the lattice vectors, angstrom.
        frac: (n, 3) float64, fractional coordinates in [0, 1).
        numbers: (n,) uint8, atomic numbers.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, a cell without volume,
            an atomic number outside 1-118, or no atoms at all.
    """

    lattice: FloatArray
    frac: FloatArray
    numbers: NDArray[np.uint8]

    def __post_init__(self) -> None:
        lattice = np.array(self.lattice, dtype=np.float64)
        frac = np.array(self.frac, dtype=np.float64)
        numbers = np.asarray(self.numbers)
        if lattice.shape != (3, 3):
            raise ValueError(f"lattice must have shape (3, 3), not {lattice.shape}")
        if frac.ndim != 2 or frac.shape[1] != 3 or numbers.shape != (len(frac),):
            raise ValueError(f"frac must be (n, 3) and numbers (n,), not {frac.shape} and {numbers.shape}")
        if len(numbers) == 0:
            raise ValueError("a crystal needs at least one atom")
        if not (np.isfinite(lattice).all() and np.isfinite(frac).all()):
            raise ValueError("lattice or coordinates are not finite")
        if abs(np.linalg.det(lattice)) < 1e-6:
            raise ValueError("the cell has no volume")
        if numbers.min() < 1 or numbers.max() > 118:
            raise ValueError(f"atomic numbers must lie in 1-118, found {numbers.min()}-{numbers.max()}")
        frac = frac - np.floor(frac)
        frac[frac >= 1.0] = 0.0  # -1e-17 wraps to exactly 1.0
        for name, value in (("lattice", lattice), ("frac", frac), ("numbers", numbers.astype(np.uint8))):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume, cubic angstrom."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def cart(self) -> FloatArray:
        """(n, 3) Cartesian coordinates, angstrom."""
        return self.frac @ self.lattice

    @property
    def parameters(self) -> FloatArray:
        """(6,) a, b, c in angstrom and alpha, beta, gamma in degrees."""
        return lattice_parameters(self.lattice)

    @property
    def density(self) -> float:
        """Mass density, g/cm^3."""
        from ase.data import atomic_masses

        return float(atomic_masses[self.numbers].sum() * AVOGADRO_DENSITY / self.volume)

    @property
    def formula(self) -> str:
        """Reduced formula as pymatgen writes it, such as `SrTiO3`."""
        return composition_of(self.numbers).reduced_formula

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols, alphabetically: the chemical system."""
        from ase.data import chemical_symbols

        return tuple(sorted(chemical_symbols[z] for z in np.unique(self.numbers)))

    def niggli(self) -> Crystal:
        """The same crystal in its Niggli-reduced cell (same number of atoms)."""
        reduced = to_structure(self).get_reduced_structure(reduction_algo="niggli")
        return from_structure(reduced)

    def smallest_distance(self) -> float:
        """Smallest distance between two atoms, an atom's own periodic images included, angstrom.

        All lattice translations of the Niggli-like range -2..2 of an LLL-reduced cell are looked at, which
        is enough for the shortest vector of any cell.
        """
        structure = to_structure(self)
        lattice = structure.lattice.get_lll_reduced_lattice()
        frac = lattice.get_fractional_coords(structure.cart_coords)
        shifts = _SHIFTS @ lattice.matrix
        smallest = float(np.linalg.norm(shifts[_SHIFTS.any(axis=1)], axis=1).min())
        for i in range(1, len(frac)):
            delta = frac[:i] - frac[i]
            cart = (delta - np.rint(delta)) @ lattice.matrix
            smallest = min(smallest, float(np.linalg.norm(cart[:, None] + shifts, axis=2).min()))
        return smallest


_SHIFTS = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """M crystals as ragged arrays, the layout of the HDF5 files.

    Attributes:
        lattice: (M, 3, 3) float64, angstrom.
        offset: (M + 1,) int64, crystal i owns atoms offset[i]:offset[i + 1].
        frac: (sum n, 3) float64.
        numbers: (sum n,) uint8.
    """

    lattice: FloatArray
    offset: NDArray[np.int64]
    frac: FloatArray
    numbers: NDArray[np.uint8]

    @classmethod
    def of(cls, crystals: Sequence[Crystal]) -> CrystalBatch:
        """The ragged batch of `crystals`, in their order."""
        sizes = np.array([len(c) for c in crystals], dtype=np.int64)
        return cls(
            lattice=np.array([c.lattice for c in crystals], dtype=np.float64).reshape(-1, 3, 3),
            offset=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            frac=np.concatenate([c.frac for c in crystals]) if crystals else np.zeros((0, 3)),
            numbers=np.concatenate([c.numbers for c in crystals]) if crystals else np.zeros(0, np.uint8),
        )

    def __len__(self) -> int:
        return len(self.lattice)

    def __getitem__(self, index: int) -> Crystal:
        if not 0 <= index < len(self):
            raise IndexError(index)
        atoms = slice(self.offset[index], self.offset[index + 1])
        return Crystal(self.lattice[index], self.frac[atoms], self.numbers[atoms])

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> CrystalBatch:
        """The batch of these crystals only, in this order."""
        rows = np.asarray(indices, dtype=np.int64)
        sizes = np.diff(self.offset)[rows]
        offset = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        atoms = np.arange(offset[-1]) + np.repeat(self.offset[rows] - offset[:-1], sizes)
        return CrystalBatch(self.lattice[rows], offset, self.frac[atoms], self.numbers[atoms])

    def __iter__(self) -> Iterator[Crystal]:
        return (self[i] for i in range(len(self)))


def lattice_parameters(lattice: ArrayLike) -> FloatArray:
    """(..., 3, 3) lattice vectors in angstrom to (..., 6) a, b, c, alpha, beta, gamma (angstrom, degrees)."""
    m = np.asarray(lattice, dtype=np.float64)
    lengths = np.linalg.norm(m, axis=-1)
    unit = m / lengths[..., None]
    cosines = np.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], axis=-1)
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))], axis=-1)


def lattice_from_parameters(parameters: ArrayLike) -> FloatArray:
    """(6,) a, b, c, alpha, beta, gamma (angstrom, degrees) to (3, 3) rows; a along x, b in the xy plane.

    Raises:
        ValueError: if a length is not positive or the three angles do not close to a cell.
    """
    a, b, c, alpha, beta, gamma = (float(v) for v in np.asarray(parameters, dtype=np.float64))
    if not (min(a, b, c) > 0 and all(0 < v < 180 for v in (alpha, beta, gamma))):
        raise ValueError(f"impossible lattice parameters {a:.3f} {b:.3f} {c:.3f} {alpha:.1f} {beta:.1f} {gamma:.1f}")
    ca, cb, cg = (np.cos(np.radians(v)) for v in (alpha, beta, gamma))
    sg = np.sin(np.radians(gamma))
    cy = (ca - cb * cg) / sg
    z2 = 1 - cb * cb - cy * cy
    if z2 < 1e-6:
        raise ValueError(f"the angles {alpha:.1f} {beta:.1f} {gamma:.1f} do not close to a cell")
    return np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * cy, c * np.sqrt(z2)]])


def find_symmetry(lattice: FloatArray, frac: FloatArray, numbers: ArrayLike, tolerance: float) -> SpglibDataset | None:
    """What spglib (arXiv 1808.01590) finds within `tolerance` (angstrom), None if nothing.

    Args:
        lattice: (3, 3) angstrom.
        frac: (n, 3).
        numbers: (n,) atomic numbers.
        tolerance: on distances, angstrom.
    """
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it prints what it also returns, once per crystal
    import spglib

    cell = (lattice.tolist(), frac.tolist(), np.asarray(numbers).tolist())
    try:
        return spglib.get_symmetry_dataset(cell, symprec=tolerance)
    except Exception as error:  # spglib >= 2.7 raises where older versions return None
        if type(error).__module__.partition(".")[0] != "spglib":
            raise
        return None


def space_group(crystal: Crystal, tolerance: float = SYMPREC) -> int:
    """International number of the space group within `tolerance` (angstrom), 0 if none is found."""
    found = find_symmetry(crystal.lattice, crystal.frac, crystal.numbers, tolerance)
    return 0 if found is None else int(found.number)


def composition_of(numbers: ArrayLike) -> Composition:
    """pymatgen Composition of atomic numbers."""
    from ase.data import chemical_symbols
    from pymatgen.core import Composition

    z, counts = np.unique(np.asarray(numbers), return_counts=True)
    return Composition({chemical_symbols[int(i)]: int(n) for i, n in zip(z, counts, strict=True)})


def to_structure(crystal: Crystal) -> Structure:
    """pymatgen Structure of a crystal, atoms in the same order."""
    from pymatgen.core import Element, Lattice, Structure

    return Structure(Lattice(crystal.lattice), [Element.from_Z(int(z)) for z in crystal.numbers], crystal.frac)


def from_structure(structure: Structure) -> Crystal:
    """Crystal of an ordered pymatgen Structure.

    Raises:
        ValueError: if a site is partially occupied or holds several species, or is no element.
    """
    if not structure.is_ordered:
        raise ValueError("the structure has partially occupied or mixed sites")
    numbers = [getattr(site.specie, "Z", 0) for site in structure]
    return Crystal(structure.lattice.matrix, structure.frac_coords, np.array(numbers))


def to_atoms(crystal: Crystal) -> Atoms:
    """ASE Atoms of a crystal, atoms in the same order, periodic in three directions."""
    from ase import Atoms

    return Atoms(numbers=crystal.numbers, scaled_positions=crystal.frac, cell=crystal.lattice, pbc=True)


def from_atoms(atoms: Atoms) -> Crystal:
    """Crystal of periodic ASE Atoms.

    Raises:
        ValueError: if the atoms are not periodic in all three directions.
    """
    if not all(atoms.pbc):
        raise ValueError("the atoms are not periodic in three directions")
    return Crystal(atoms.cell.array, atoms.get_scaled_positions(wrap=True), atoms.numbers)
