"""Properties of a structure that samples can be asked for: columns of the source, and what the crystal itself tells.

A value that is missing is left out, which is no mistake. A value that is there but does not fit its kind is one: half a
column read as missing would be found out only by what the model generates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcgen.config import ConditionsConfig
from hpcgen.crystal import Crystal, space_group
from hpcgen.errors import DataError

COMPUTED = ("space_group", "crystal_system")
"""Found by spglib where the source has no such column: international number, and its crystal system."""

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "-"})
SYSTEMS = (
    (2, "triclinic"),
    (15, "monoclinic"),
    (74, "orthorhombic"),
    (142, "tetragonal"),
    (167, "trigonal"),
    (194, "hexagonal"),
    (230, "cubic"),
)
"""Last space group of each crystal system (International Tables for Crystallography A, table 2.1.1.1)."""


def known(raw: Mapping[str, Any], crystal: Crystal, conditions: ConditionsConfig, label: str) -> dict[str, float | str]:
    """What is known of one structure in the configured columns.

    Args:
        raw: its columns as the source gives them.
        crystal: the structure, for what is computed.
        conditions: which columns hold numbers and which categories.
        label: where it came from, for messages.

    Raises:
        DataError: if a value is neither missing nor of the column's kind.
    """
    out: dict[str, float | str] = {}
    for name in conditions.scalars:
        value = _given(raw.get(name), name, label)
        if value is None:
            continue
        try:
            number = float(value)
        except ValueError:
            raise DataError(
                f"{label}: `{name}` is {str(value)[:60]!r}",
                expected="a number, for conditions.scalars names the column",
                remedy="name it in conditions.categories, or mend the value",
            ) from None
        if not math.isfinite(number):
            raise DataError(f"{label}: `{name}` is {value!r}", expected="a finite number, or nothing")
        out[name] = number
    for name in conditions.categories:
        value = _given(raw.get(name), name, label)
        if value is None and name in COMPUTED:
            group = space_group(crystal)
            value = None if group == 0 else group if name == "space_group" else crystal_system(group)
        if value is not None:
            out[name] = category_of(value)
    return out


def category_of(value: object) -> str:
    """A category as text: 225, 225.0 and `225` are the same."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def crystal_system(number: int) -> str:
    """The crystal system of a space group, such as `cubic` for 225."""
    return next(name for last, name in SYSTEMS if number <= last)


def _given(value: Any, name: str, label: str) -> str | float | int | None:
    """The value of a column, None if it is missing.

    Raises:
        DataError: if it is no scalar.
    """
    if value is None:
        return None
    if np.ndim(value) != 0:
        raise DataError(f"{label}: `{name}` is an array of shape {np.shape(value)}", expected="a number or a word")
    plain = value.item() if isinstance(value, np.generic) else value
    return None if str(plain).strip().lower() in MISSING else plain
