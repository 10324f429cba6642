"""What `hpcgen inspect FILE` prints."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.store.docs import h5py_lines
from hpcgen.store.opening import DAMAGE, damaged
from hpcgen.store.reader import File
from hpcgen.store.schema import Column, type_name

_LONG = ("config", "host", "packages", "inputs", "balance")
_OWN = ("schema", "schema_version", "record_type", "count")
_WIDTH = 72


def describe_file(path: str | Path) -> str:
    """Schema, counts, columns with their ranges, failures, provenance, and how to read the file.

    Raises:
        StoreError: if it is no readable file of a known schema.
    """
    with File(path) as f:
        try:
            return "\n".join(_lines(f))
        except DAMAGE as error:
            raise damaged(f.path, error) from error


def _lines(f: File) -> list[str]:
    failures = Counter(x.kind for x in f.failures)
    lines = [
        str(f.path),
        f"  {f.schema} version {f.attrs['schema_version']}: {len(f)} records of type {f.record_type.__name__}, "
        f"{failures.total()} failures, {f.path.stat().st_size:,} bytes",
        "",
        "columns",
    ]
    if f.layout.has_crystal:
        lines.append(f"  {'crystal':<22} {_crystals(f)}")
    lines += [f"  {c.name:<22} {_column(f, c)}" for c in f.layout.columns]
    if failures:
        lines += ["", "failures", *(f"  {count:>7}  {kind}" for kind, count in failures.most_common())]
    lines += ["", "attributes"]
    for key, value in f.attrs.items():
        if key not in _OWN:
            lines.append(f"  {key:<22} {_attribute(key, value)}")
    name = f.path.name
    lines += ["", "read it", *(f"  {line}" for line in h5py_lines(name, f.layout.has_crystal))]
    return lines


def _crystals(f: File) -> str:
    crystals = f.crystals
    if not len(crystals):
        return "none"
    from ase.data import chemical_symbols

    sizes = np.diff(crystals.offset)
    common = Counter(crystals.numbers.tolist()).most_common()
    shown = " ".join(chemical_symbols[z] for z, _ in common[:12]) + (" ..." if len(common) > 12 else "")
    return f"{sizes.min()}-{sizes.max()} atoms, {len(sizes)} cells, {len(common)} elements: {shown}"


def _column(f: File, column: Column) -> str:
    """Type, shape, and what the values are like."""
    dataset = f.array(column.name)
    shape = f" {tuple(dataset.shape[1:])}" if column.shape else ""
    where = {"per_atom": " per atom", "per_step": " per step"}.get(column.kind, "")
    unit = f" {column.unit}" if column.unit not in ("", "1") else ""
    head = f"{type_name(column.dtype)}{shape}{where}"
    return f"{head:<26} {_summary(f.column(column.name), unit)}"


def _summary(values: NDArray[Any], unit: str) -> str:
    if values.size == 0:
        return "no values"
    if values.dtype == object:
        counts = Counter(values.tolist())
        if len(counts) == len(values) > 1:
            return f"{len(counts)} different, such as {_short(str(values[0]))}"
        top = ", ".join(f"{_short(str(text)) or '(empty)'} {n}" for text, n in counts.most_common(4))
        return top + (f", {len(counts) - 4} more" if len(counts) > 4 else "")
    if values.dtype.kind == "b":
        return f"true {np.count_nonzero(values)}, false {np.count_nonzero(~values)}"
    finite = values[np.isfinite(values)]
    text = "no finite value"
    if finite.size:
        text = f"{finite.min():.5g} / {np.median(finite):.5g} / {finite.max():.5g}{unit} (min / median / max)"
    return text + (f", {values.size - finite.size} not finite" if finite.size < values.size else "")


def _attribute(key: str, value: Any) -> str:
    if key == "config":
        return f"YAML, {len(value.splitlines())} lines: f.attrs['config']"
    if key in _LONG:
        try:
            value = json.loads(value)
        except ValueError:
            return _short(value)
        if key == "balance" and isinstance(value, dict) and {"entered", "left", "failures"} <= set(value):
            rest = "".join(f" + {n} {kind}" for kind, n in value["failures"].items())
            return f"{value['entered']} in = {value['left']} out{rest}"
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    if isinstance(value, list):
        return f"{len(value)} values: {_short(' '.join(map(str, value)))}"
    return _short(str(value))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."
