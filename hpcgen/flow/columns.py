"""What a field of a record is in the HDF5 files.

A field made with `column` is one scalar per record, with `per_atom` one row per atom, with `per_step` one number per
step of an optimiser, with `array` one array of a fixed shape per record. `volatile` columns (times) are not part of a
record's identity.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal


def column(
    dtype: str, doc: str, *, unit: str = "", volatile: bool = False, default: Any = MISSING, since: int = 0
) -> Any:  # a dataclass field
    """A scalar per record. `dtype`: a numpy type string, `id` for an id or `text` for UTF-8 text.

    `since`: the version of the schema that it came with; records of older files have the default.
    """
    meta = {"kind": "column", "dtype": dtype, "doc": doc, "unit": unit, "volatile": volatile, "shape": ()}
    return field(default=default, metadata={**meta, "since": since})


def per_atom(dtype: str, doc: str, *, shape: tuple[int, ...] = (), unit: str = "") -> Any:
    """One row of `shape` per atom, stored ragged beside the atoms."""
    return field(
        metadata={"kind": "per_atom", "dtype": dtype, "doc": doc, "unit": unit, "shape": shape, "volatile": False}
    )


def per_step(dtype: str, doc: str, *, unit: str = "", since: int = 0) -> Any:
    """One number per step, stored ragged: all fields of a record that are per step are equally long, or empty."""
    meta = {"kind": "per_step", "dtype": dtype, "doc": doc, "unit": unit, "volatile": False, "shape": ()}
    empty = partial(np.zeros, 0, dtype)
    return field(default_factory=empty, kw_only=True, metadata={**meta, "since": since})


def array(
    dtype: str,
    doc: str,
    *,
    shape: tuple[str | int, ...],
    unit: str = "",
    group: str = "array",
    empty: tuple[int, ...] | None = None,
    since: int = 0,
) -> Any:
    """One array per record. `shape` names its dimensions; `group` is the HDF5 group it lies in.

    `empty`: shape of what a record has that lacks it, as those of files older than version `since` do.
    """
    facts = {"kind": "array", "dtype": dtype, "doc": doc, "unit": unit, "shape": shape, "group": group}
    meta = {**facts, "volatile": False, "since": since}
    if empty is None:
        return field(metadata=meta)
    return field(default_factory=partial(np.zeros, empty, dtype), kw_only=True, metadata=meta)


def content(record: Any) -> dict[str, NDArray[Any] | str | float | int | bool]:
    """The identity of a record: all columns but the volatile ones, with the crystal taken apart.

    Two runs agree when these are equal record by record.
    """
    out: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, Crystal):
            out |= {"lattice": value.lattice, "frac": value.frac, "numbers": value.numbers}
        elif not f.metadata.get("volatile", False):
            out[f.name] = np.asarray(value) if f.metadata.get("kind") in ("array", "per_atom", "per_step") else value
    return out
