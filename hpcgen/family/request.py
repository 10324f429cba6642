"""What samples are asked for: a formula, a set of elements, a number of atoms, a cell, and properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcgen.errors import ConfigError
from hpcgen.represent.lattice import PARAMETER_NAMES


@dataclass(frozen=True)
class Request:
    """One request, for all samples of a run.

    Attributes:
        counts: atoms of each element by atomic number; None: a model draws the composition.
        elements: atomic numbers that must occur, and no others; None: any.
        among: atomic numbers of which those of each sample are a set; None: any.
        n_atoms: in the cell; None: any.
        lattice: given values of a, b, c (angstrom), alpha, beta, gamma (degrees); the others are drawn.
        columns: values of columns of the training data by name, such as `{"band_gap": 1.5}`.
    """

    counts: dict[int, int] | None = None
    elements: tuple[int, ...] | None = None
    among: tuple[int, ...] | None = None
    n_atoms: int | None = None
    lattice: dict[str, float] = field(default_factory=dict)
    columns: dict[str, float | str] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Request:
        """From a mapping as the configuration has it.

        Keys: `formula` (of the cell: SrTiO3 has 5 atoms, Sr2Ti2O6 has 10), `elements`, `among`, `n_atoms`,
        `lattice`; every other key is a column.

        Raises:
            ConfigError: for a value that cannot be read, or requests that contradict each other.
        """
        rest = dict(asked)
        formula, symbols, n_atoms = rest.pop("formula", None), rest.pop("elements", None), rest.pop("n_atoms", None)
        lattice = rest.pop("lattice", None) or {}
        counts = None if formula is None else _counts(formula)
        elements = None if symbols is None else _elements(symbols)
        among = rest.pop("among", None)
        if among is not None and (elements is not None or formula is not None):
            raise ConfigError("`among` is given beside the elements themselves", remedy="give one of them")
        if n_atoms is not None and (isinstance(n_atoms, bool) or not isinstance(n_atoms, int) or n_atoms < 1):
            raise ConfigError(f"`n_atoms` is {n_atoms!r}", expected="a whole number of atoms in the cell")
        if not isinstance(lattice, Mapping) or set(lattice) - set(PARAMETER_NAMES):
            raise ConfigError(f"`lattice` is {lattice!r}", expected=f"values of {', '.join(PARAMETER_NAMES)}")
        for name, value in lattice.items():
            limit = 180.0 if name in PARAMETER_NAMES[3:] else 1000.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < limit:
                raise ConfigError(f"`lattice.{name}` is {value!r}", expected=f"a number between 0 and {limit:.0f}")
        if counts is not None:
            total = sum(counts.values())
            if n_atoms not in (None, total) or (elements is not None and set(elements) != set(counts)):
                raise ConfigError(
                    f"`formula` {formula} has {total} atoms of {len(counts)} elements, and `n_atoms` or `elements` say "
                    "otherwise",
                    remedy="give the formula alone",
                )
        palette = None if among is None else _elements(among, "among")
        return cls(counts, elements, palette, n_atoms, {k: float(v) for k, v in lattice.items()}, rest)


def _counts(formula: Any) -> dict[int, int]:
    from pymatgen.core import Composition

    try:
        amounts = Composition(str(formula), strict=True).get_el_amt_dict() if formula else {}
        counts = {_elements([symbol])[0]: round(amount) for symbol, amount in amounts.items()}
        if not counts or any(abs(n - round(n)) > 1e-6 or n < 1 for n in amounts.values()):
            raise ValueError
    except (ValueError, ConfigError):
        raise ConfigError(
            f"`formula` is {formula!r}", expected="whole numbers of atoms of elements, such as SrTiO3"
        ) from None
    return counts


def _elements(symbols: Any, key: str = "elements") -> tuple[int, ...]:
    from ase.data import atomic_numbers

    listed = [symbols] if isinstance(symbols, str) else symbols
    if not isinstance(listed, list | tuple) or not listed or any(not atomic_numbers.get(s) for s in listed):
        raise ConfigError(
            f"`{key}` is {symbols!r}",
            expected="element symbols such as [Sr, Ti, 'O'] (quote No and Y: YAML may read them as false and true)",
        )
    return tuple(sorted({atomic_numbers[s] for s in listed}))
