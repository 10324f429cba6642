"""Where an attempt begins: at the last geometry of an earlier one, or at the start.

Every attempt has a folder of its own; nothing is taken from an earlier one but a geometry with the right atoms, the
steps whose outputs are complete, and the corrections that helped. Two attempts that went wrong in themselves discredit
what they left, so the third starts over.
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgen.vasp.jobs import read_progress
from hpcgen.vasp.outputs import read_structure

if TYPE_CHECKING:
    from pymatgen.core import Structure

DISCREDITED = 2
STEP_FILES = ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR", "INCAR", "KPOINTS", "POSCAR", "vasp.out")


@dataclass
class Start:
    """What an attempt begins with.

    Attributes:
        structure: the geometry, atoms in the order of `POSCAR`.
        finished: steps that need not be done again.
        carry: corrected INCAR tags.
        source: the earlier attempt that it comes from; None if there was nothing to take.
    """

    structure: Structure
    finished: list[str] = field(default_factory=list)
    carry: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None


def find_start(folder: Path, asked: Structure, counted: int) -> Start:
    """Look through earlier attempts, the last one first.

    Args:
        folder: of this attempt; its siblings are the earlier ones.
        asked: the structure that was ordered, sorted as POSCAR is.
        counted: attempts that went wrong in themselves.
    """
    if counted >= DISCREDITED:
        return Start(asked)
    earlier = sorted((p for p in folder.parent.iterdir() if p.is_dir() and p.name < folder.name), reverse=True)
    for attempt in earlier:
        geometry = read_structure(attempt / "CONTCAR") or read_structure(attempt / "CONTCAR.gz")
        if geometry is None or [s.symbol for s in geometry.species] != [s.symbol for s in asked.species]:
            continue
        progress = read_progress(attempt)
        return Start(geometry, list(progress["finished"]), dict(progress["carry"]), attempt)
    return Start(asked)


def take_over(start: Start, folder: Path) -> None:
    """Copy the outputs of finished steps into the new attempt, so that its folder tells the whole story."""
    if start.source is None:
        return
    for step in start.finished:
        for name in STEP_FILES:
            plain, packed = start.source / f"{name}.{step}", start.source / f"{name}.{step}.gz"
            if plain.exists():
                shutil.copy(plain, folder / plain.name)
            elif packed.exists():
                with gzip.open(packed, "rb") as source, (folder / plain.name).open("wb") as target:
                    shutil.copyfileobj(source, target)
