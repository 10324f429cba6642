"""Crystals of a run in the formats of other programs (`hpcgen export`).

cif       a folder of CIF files
poscar    a folder of POSCAR files, atoms sorted by element
extxyz    one extended XYZ file with all scalar columns; energy, forces and stress where the table has them
ase       an ASE database (SQLite): numbers and flags as keys, everything under `data`
lemat     the CSV that LeMat-GenBench reads (`run_benchmarks.py --csv`): pymatgen structures as JSON
cdvae     eval_gen.pt as CDVAE's compute_metrics.py reads it (keys of its get_crystal_array_list), with tensors only:
          it loads with weights_only=True

Benchmarks count shares of everything generated, so lemat and cdvae take the candidates as they were built, unless
told otherwise. What is written is one file or folder, by rename: it is there as a whole or not at all.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.analysis.run import VERDICT, Run
from hpcgen.crystal import Crystal, to_atoms, to_structure
from hpcgen.errors import UsageError
from hpcgen.flow import Relaxation
from hpcgen.report.data import FAR_BELOW
from hpcgen.report.files import cif_name, write_cif

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms

log = logging.getLogger("hpcgen")
GPA = 160.21766208  # of 1 eV/angstrom^3, as hpcgen.relax counts


@dataclass(frozen=True, eq=False)
class Item:
    """One crystal to be written.

    Attributes:
        rank: 1 for the first.
        record: as stored.
        facts: its scalar columns, `id` first; no NaN.
    """

    rank: int
    record: Any
    facts: dict[str, Any]

    @property
    def crystal(self) -> Crystal:
        """The crystal."""
        return self.record.crystal

    @property
    def stem(self) -> str:
        """A safe file name without suffix: rank, formula, id."""
        return cif_name(self.rank, self.crystal.formula, self.record.id).removesuffix(".cif")


def export(
    run: Run,
    form: str,
    out: Path,
    *,
    table: str | None = None,
    max_e_hull: float | None = None,
    flags: tuple[str, ...] = (),
) -> int:
    """Write crystals of a run in a foreign format.

    Args:
        run: the run.
        form: one of `FORMATS`.
        out: the file or folder to be made.
        table: where the crystals come from; default stability, or candidates for benchmarks (`FORMATS`).
        max_e_hull: eV/atom, only crystals at or below it.
        flags: boolean columns that must hold, such as `unique`, `novel`, `converged`; those of other tables are found
            by candidate.

    Returns:
        how many were written.

    Raises:
        UsageError: if `out` exists, the format, table or a column is unknown, or nothing is left to write.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", expected=f"one of {', '.join(FORMATS)}")
    if out.exists():
        raise UsageError(f"{out} exists", remedy="give another name, or move it away: nothing is overwritten")
    chosen = FORMATS[form]
    name = table or chosen.table
    run.crystals(name)  # or an error
    kept = _selected(run, name, max_e_hull, flags)
    if not kept.any():
        raise UsageError(f"no crystal of {name} is left to write", remedy="select less strictly")
    _warn_of_doubtful(run, name, kept)
    items = _items(run, name, kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        chosen.write(building, items)
        building.rename(out)
    finally:
        if building.is_dir():
            shutil.rmtree(building)
        else:
            building.unlink(missing_ok=True)
    return int(kept.sum())


def _warn_of_doubtful(run: Run, name: str, kept: np.ndarray) -> None:
    """Say how many lie so far below the hull that they are no discoveries: somebody will compute them."""
    if any(c.name == "e_hull" for c in run.file(name).layout.columns):
        doubtful = int((run.file(name).column("e_hull")[kept] < FAR_BELOW).sum())
        if doubtful:
            text = "%d of the crystals written lie more than %g eV/atom below the hull: its reference must lack phases"
            log.warning(text, doubtful, -FAR_BELOW)


def _items(run: Run, name: str, kept: np.ndarray) -> Iterator[Item]:
    """The records of a table that are kept, read block by block."""
    facts = run.table(name)
    rows = zip(*(facts[column] for column in facts), strict=True)
    rank = 0
    for record, keep, row in zip(run.file(name), kept, rows, strict=True):
        if keep:
            rank += 1
            yield Item(rank, record, {"id": record.id, **_facts(dict(zip(facts.columns, row, strict=True)))})


def _selected(run: Run, name: str, max_e_hull: float | None, flags: tuple[str, ...]) -> np.ndarray:
    """(M,) whether each record of a table is asked for."""
    if max_e_hull is None and not flags:
        return np.ones(len(run.file(name)), dtype=bool)
    known: pd.DataFrame = run.joined(name) if name == VERDICT or "candidate_id" in run.table(name) else run.table(name)
    unknown = [c for c in (*flags, *(["e_hull"] if max_e_hull is not None else [])) if c not in known]
    not_flags = [c for c in flags if c in known and not known[c].dropna().map(lambda v: v in (True, False)).all()]
    if unknown or not_flags:
        raise UsageError(
            f"the table {name} cannot be selected by {' and '.join(unknown + not_flags)}",
            expected="e_hull and flags such as unique, novel, converged, which the table stability has",
        )
    mask = np.ones(len(known), dtype=bool)
    for flag in flags:
        mask &= (known[flag] == True).to_numpy()  # noqa: E712 - what another table does not know is not true
    if max_e_hull is not None:
        mask &= (known["e_hull"] <= max_e_hull + 1e-8).to_numpy()
    return mask


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    """Plain values, without what is not known."""
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
    return {k: v for k, v in values.items() if not (isinstance(v, float) and math.isnan(v))}


def _atoms(item: Item) -> Atoms:
    """ASE's, with the energy, forces and stress that are known (eV, eV/angstrom, eV/angstrom^3)."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = to_atoms(item.crystal)
    if isinstance(item.record, Relaxation):
        r = item.record
        atoms.calc = SinglePointCalculator(atoms, energy=r.energy, forces=r.forces, stress=r.stress / GPA)
    elif "energy_per_atom" in item.facts:
        atoms.calc = SinglePointCalculator(atoms, energy=item.facts["energy_per_atom"] * len(atoms))
    return atoms


def _cif(path: Path, items: Iterator[Item]) -> None:
    path.mkdir()
    for item in items:
        write_cif(path / f"{item.stem}.cif", item.crystal)


def _poscar(path: Path, items: Iterator[Item]) -> None:
    from pymatgen.io.vasp import Poscar

    path.mkdir()
    for item in items:
        comment = f"{item.crystal.formula} hpcgen {item.record.id}"
        poscar = Poscar(to_structure(item.crystal), comment=comment, sort_structure=True)
        (path / f"{item.stem}.vasp").write_text(poscar.get_str(significant_figures=12), encoding="utf-8")


def _extxyz(path: Path, items: Iterator[Item]) -> None:
    from ase.io import write

    with path.open("w", encoding="utf-8") as stream:
        for item in items:
            atoms = _atoms(item)
            atoms.info = {k: _plain(v) for k, v in item.facts.items() if v != "" and not (k == "energy" and atoms.calc)}
            write(stream, atoms, format="extxyz")


def _plain(value: Any) -> Any:
    """A value that readers of extxyz give back as it was: ids and digests such as 12e4 look like numbers otherwise."""
    return f"hpcgen-{value}" if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8,}", value) else value


def _ase(path: Path, items: Iterator[Item]) -> None:
    from ase.db import connect
    from ase.db.core import reserved_keys

    with tempfile.TemporaryDirectory() as local:  # SQLite's locks do not work on every parallel file system
        file = Path(local) / "crystals.db"
        with connect(str(file), type="db") as database:
            for item in items:
                keys = {
                    f"{k}_" if k in reserved_keys else k: v
                    for k, v in item.facts.items()
                    if isinstance(v, (bool, int, float))
                }
                database.write(_atoms(item), identity=_plain(item.record.id), data=item.facts, **keys)
        shutil.copyfile(file, path)


def _lemat(path: Path, items: Iterator[Item]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "structure", "formula"])
        for item in items:
            structure = json.dumps(to_structure(item.crystal).as_dict())
            writer.writerow([item.record.id, structure, item.crystal.formula])


def _cdvae(path: Path, items: Iterator[Item]) -> None:
    import torch

    crystals = [item.crystal for item in items]
    parameters = torch.tensor(np.array([c.parameters for c in crystals]), dtype=torch.float32)
    content = {  # the leading 1 is CDVAE's number of samples for each latent vector
        "frac_coords": torch.tensor(np.concatenate([c.frac for c in crystals]), dtype=torch.float32)[None],
        "atom_types": torch.tensor(np.concatenate([c.numbers for c in crystals]).astype(np.int64))[None],
        "lengths": parameters[None, :, :3].contiguous(),
        "angles": parameters[None, :, 3:].contiguous(),
        "num_atoms": torch.tensor([len(c) for c in crystals])[None],
    }
    torch.save(content, path)


@dataclass(frozen=True)
class Format:
    """A foreign format: its writer, the table it takes by default, and the suffix of its file (none: a folder)."""

    write: Callable[[Path, Iterator[Item]], None]
    table: str
    suffix: str


FORMATS = {
    "cif": Format(_cif, VERDICT, ""),
    "poscar": Format(_poscar, VERDICT, ""),
    "extxyz": Format(_extxyz, VERDICT, ".extxyz"),
    "ase": Format(_ase, VERDICT, ".db"),
    "lemat": Format(_lemat, "candidates", ".csv"),
    "cdvae": Format(_cdvae, "candidates", ".pt"),
}


def default_name(run: Run, form: str) -> Path:
    """Where `hpcgen export` writes if it is not told: in the run folder. CDVAE's script wants its file's own name."""
    stem = "eval_gen" if form == "cdvae" else f"export-{form}"
    return run.folder / f"{stem}{FORMATS[form].suffix}"
