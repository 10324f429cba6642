"""What a structure must be to enter the data set: parsing, limits, validation and Niggli reduction of one item.

A structure that does not get through becomes a `Failure` whose kind says at which check it stopped.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgen.config import DataConfig
from hpcgen.crystal import Crystal, from_atoms, from_structure
from hpcgen.data.sources import RawItem
from hpcgen.errors import ConfigError, Failure

STAGE = "data"
MAX_ATOMIC_NUMBER = 103  # lawrencium: beyond it there are neither radii nor potentials
MIN_DISTANCE = 0.1  # angstrom; closer atoms are one atom written twice, or a broken file
MIN_VOLUME = 0.5  # cubic angstrom per atom; the densest solid, carbon at megabars, has more than 2
MAX_MESSAGE = 240


class UnusableError(Exception):
    """A structure that stops at a check: `kind` and message of its `Failure`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Limits:
    """What the configuration allows.

    Attributes:
        max_atoms: atoms in the cell as given.
        max_elements: different elements.
        elements: atomic numbers allowed.
    """

    max_atoms: int
    max_elements: int
    elements: frozenset[int]

    @classmethod
    def of(cls, config: DataConfig) -> Limits:
        """The limits of a configuration; `elements: null` allows hydrogen to lawrencium.

        Raises:
            ConfigError: if `data.elements` is empty or names something that is no element.
        """
        if config.elements is None:
            elements = frozenset(range(1, MAX_ATOMIC_NUMBER + 1))
        else:
            elements = frozenset(atomic_numbers_of(config.elements, "data.elements"))
        return cls(config.max_atoms, config.max_elements, elements)


def atomic_numbers_of(symbols: list[str], key: str) -> list[int]:
    """Atomic numbers of element symbols, in their order.

    Raises:
        ConfigError: naming `key`, if the list is empty or one is no element symbol.
    """
    from ase.data import atomic_numbers

    unknown = [s for s in symbols if not 1 <= atomic_numbers.get(s, 0) <= MAX_ATOMIC_NUMBER]
    if unknown or not symbols:
        raise ConfigError(
            f"{key}: {', '.join(map(repr, unknown))} no element" if unknown else f"{key} is an empty list",
            expected="element symbols such as [Sr, Ti, 'O'] (quote No and Y: YAML may read them as false and true)",
        )
    return [atomic_numbers[s] for s in symbols]


def admit(item: RawItem, limits: Limits) -> Crystal | Failure:
    """One raw item as a valid, Niggli-reduced crystal with a right-handed cell, or the reason why not."""
    return _guarded(item, lambda crystal: check(crystal, limits))


def parse(item: RawItem) -> Crystal | Failure:
    """One raw item as the crystal that is written there, unchecked and unreduced, or why it is none."""
    return _guarded(item, lambda crystal: crystal)


def _guarded(item: RawItem, finish: Callable[[Crystal], Crystal]) -> Crystal | Failure:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return finish(_parse(item))
    except UnusableError as error:
        message = " ".join(str(error).split())
        return Failure(item.label, STAGE, error.kind, message[:MAX_MESSAGE])


def check(crystal: Crystal, limits: Limits) -> Crystal:
    """The crystal in its right-handed Niggli cell, if it is within the limits and physically possible.

    Raises:
        UnusableError: with kind `too-many-atoms`, `too-many-elements`, `element-not-allowed`, `impossible-cell`
            or `atoms-overlap`.
    """
    if len(crystal) > limits.max_atoms:
        raise UnusableError("too-many-atoms", f"{len(crystal)} atoms, data.max_atoms is {limits.max_atoms}")
    if len(crystal.elements) > limits.max_elements:
        found = f"{len(crystal.elements)} elements ({', '.join(crystal.elements)})"
        raise UnusableError("too-many-elements", f"{found}, data.max_elements is {limits.max_elements}")
    if foreign := sorted({int(z) for z in crystal.numbers} - limits.elements):
        from ase.data import chemical_symbols

        allowed = "outside data.elements" if max(foreign) <= MAX_ATOMIC_NUMBER else "beyond lawrencium"
        raise UnusableError("element-not-allowed", f"{', '.join(chemical_symbols[z] for z in foreign)} {allowed}")
    if crystal.volume < MIN_VOLUME * len(crystal):
        raise UnusableError("impossible-cell", f"{crystal.volume:.3f} cubic angstrom for {len(crystal)} atoms")
    try:
        reduced = crystal.niggli()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise UnusableError("impossible-cell", f"the cell has no Niggli reduction: {error}") from None
    if (distance := reduced.smallest_distance()) < MIN_DISTANCE:
        raise UnusableError("atoms-overlap", f"two atoms are {distance:.3f} angstrom apart")
    return right_handed(reduced)


def right_handed(crystal: Crystal) -> Crystal:
    """The same crystal with det(lattice) > 0: all three vectors and all coordinates change sign."""
    if np.linalg.det(crystal.lattice) > 0:
        return crystal
    return Crystal(-crystal.lattice, -crystal.frac, crystal.numbers)


def _parse(item: RawItem) -> Crystal:
    if item.layout == "unreadable":
        raise UnusableError("unreadable-file", str(item.payload))
    try:
        return _PARSERS[item.layout](item.payload)
    except UnusableError:
        raise
    # pymatgen and ASE raise nearly any type on text that is broken, NotImplementedError and IndexError included.
    except Exception as error:
        kind = {"atoms": "broken-entry"}.get(item.layout, f"broken-{item.layout}")
        raise UnusableError(kind, f"{type(error).__name__}: {error}") from None


def _from_cif(text: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    if not text.strip():
        raise UnusableError("broken-cif", "there is no text")
    parser = CifParser.from_str(text)
    try:
        structures = parser.parse_structures(primitive=False, on_error="ignore")
    except ValueError as error:
        raise UnusableError("broken-cif", "; ".join(getattr(parser, "warnings", [])) or str(error)) from None
    if len(structures) > 1:
        raise UnusableError(
            "several-structures", f"the CIF holds {len(structures)} structures: write one file for each"
        )
    structure = structures[0]
    if not structure.is_ordered:
        raise UnusableError("partial-occupancy", f"{structure.formula}: sites are partially occupied or mixed")
    if "implicit_hydrogens" in structure.site_properties:
        raise UnusableError("missing-atoms", "hydrogen atoms are named but have no coordinates")
    # pymatgen leaves out sites whose symbol it cannot read: the sum formula of the same CIF tells.
    if reason := parser.check(structure):
        raise UnusableError("inconsistent-cif", reason)
    return _from_structure(structure)


def _from_poscar(text: str) -> Crystal:
    from pymatgen.io.vasp import Poscar

    return _from_structure(Poscar.from_str(text).structure)


def _from_structure(structure: Any) -> Crystal:
    dummies = sorted({str(s.specie) for s in structure if not getattr(s.specie, "Z", 0)})
    if dummies:
        raise UnusableError("element-not-allowed", f"{', '.join(dummies)}: no chemical element")
    return _crystal(from_structure, structure)


def _from_extxyz(text: str) -> Crystal:
    from ase.io import read

    return _from_ase(read(io.StringIO(text), index=0, format="extxyz"))


def _from_ase(atoms: Any) -> Crystal:
    if not all(atoms.pbc):
        raise UnusableError("not-periodic", f"periodic along {int(sum(atoms.pbc))} of three directions")
    if (atoms.numbers == 0).any():
        raise UnusableError("element-not-allowed", "X: no chemical element")
    return _crystal(from_atoms, atoms)


def _crystal(convert: Callable[[Any], Crystal], source: Any) -> Crystal:
    try:
        return convert(source)
    except (ValueError, np.linalg.LinAlgError) as error:  # LinAlgError: a singular cell
        raise UnusableError("impossible-cell", str(error)) from None


_PARSERS: dict[str, Callable[[Any], Crystal]] = {
    "cif": _from_cif,
    "poscar": _from_poscar,
    "extxyz": _from_extxyz,
    "atoms": _from_ase,
}
