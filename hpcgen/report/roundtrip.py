"""What a round trip of real structures came to, as text: rates and times, misses, failures."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcgen import store
from hpcgen.flow import RoundTrip

ATOMS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 52, 64, 96, 128)  # last numbers of atoms of the rows of `table`
LISTED = 20  # failures and misses that `summary` names


def summary(file: Path) -> list[str]:
    """What roundtrip.h5 says, for a terminal: rates, a table by number of atoms, the misses and the failures."""
    with store.open(file, RoundTrip) as f:
        atoms = np.diff(f.crystals.offset)
        source, rms, residual = f.column("source"), f.column("rms"), f.column("residual")
        reason, confidence, seconds = f.column("stop_reason"), f.column("confidence"), f.column("seconds")
        failures = f.failures
    lines = table(atoms, rms, seconds)
    missed = [
        f"{source[i]}: {atoms[i]} atoms, residual {residual[i]:.2g}, {reason[i]}, confidence {confidence[i]:.2f}"
        for i in np.flatnonzero(np.isnan(rms))
    ]
    failed = [f"{x.id}: {x.kind}, {x.message}" for x in failures]
    for heading, items in (("not matched", missed), ("failures, not counted above", failed)):
        if items:
            rest = [f"  and {len(items) - LISTED} more in {file.name}"] if len(items) > LISTED else []
            lines += ["", f"{heading}: {len(items)}", *(f"  {item}" for item in items[:LISTED]), *rest]
    return lines


def table(n_atoms: ArrayLike, rms: ArrayLike, seconds: ArrayLike) -> list[str]:
    """Match rate, RMSE and CPU time by number of atoms, and of all.

    Args:
        n_atoms: (M,) of each structure.
        rms: (M,) NaN where there is no match; the RMSE is its mean over the matches.
        seconds: (M,) CPU time of each.
    """
    n, error, cpu = np.asarray(n_atoms), np.asarray(rms, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    lines = [f"{'atoms':>7} {'n':>7} {'match %':>8} {'RMSE':>8} {'median s':>9} {'mean s':>9}"]

    def add(label: str, rows: NDArray[np.bool_]) -> None:
        found = error[rows & ~np.isnan(error)]
        mean = f"{found.mean():8.5f}" if len(found) else f"{'-':>8}"
        times = f"{np.median(cpu[rows]):9.4f} {cpu[rows].mean():9.4f}"
        lines.append(f"{label:>7} {rows.sum():7d} {100 * len(found) / rows.sum():8.2f} {mean} {times}")

    bounds = [0, *ATOMS, np.iinfo(np.int64).max]
    for low, high in pairwise(bounds):
        rows = (n > low) & (n <= high)
        if rows.any():
            add(f"> {low}" if high == bounds[-1] else f"{low + 1}-{high}" if high > low + 1 else f"{high}", rows)
    if len(n):
        add("all", np.ones(len(n), dtype=bool))
    return lines
