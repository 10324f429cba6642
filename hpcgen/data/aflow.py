"""The AFLOW prototype library as pymatgen ships it: 288 crystals that many compounds are variations of.

Source: M. J. Mehl et al., Comput. Mater. Sci. 136, S1 (2017), doi:10.1016/j.commatsci.2017.01.017.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal
from hpcgen.errors import DependencyError

# pymatgen has moved and compressed the file over time.
_PLACES = ("prototypes/aflow_prototypes.json.gz", "aflow_prototypes.json.gz", "aflow_prototypes.json")


@dataclass(frozen=True, eq=False)
class Prototype:
    """One crystal of the library in its Niggli cell.

    Attributes:
        name: AFLOW label and the compound it was taken from, such as `AB_cF8_225_a_b/NaCl`; unique.
        label: AFLOW label alone.
        crystal: the original compound, with the original lattice parameters.
        symbols: the original elements, one per species.
        species: (n,) index into `symbols` of each atom.
    """

    name: str
    label: str
    crystal: Crystal
    symbols: tuple[str, ...]
    species: NDArray[np.int64]

    @property
    def counts(self) -> tuple[int, ...]:
        """Atoms of each species in the cell."""
        return tuple(int(n) for n in np.bincount(self.species, minlength=len(self.symbols)))


def library_path() -> Path:
    """The file of the installed pymatgen.

    Raises:
        DependencyError: if this version of pymatgen has none at the places known.
    """
    spec = find_spec("pymatgen.analysis")
    folders = [Path(p) for p in (spec.submodule_search_locations if spec else None) or []]
    for folder in folders:
        for place in _PLACES:
            if (folder / place).is_file():
                return folder / place
    raise DependencyError(
        "the installed pymatgen ships no AFLOW prototypes",
        expected=f"one of {', '.join(_PLACES)} in {', '.join(map(str, folders)) or 'pymatgen.analysis'}",
        remedy="install a pymatgen between 2024.8 and the newest that hpcgen was tested with",
    )


@cache
def library() -> tuple[Prototype, ...]:
    """All ordered prototypes, in the order of the file. Takes about a second the first time."""
    path = library_path()
    raw = path.read_bytes()
    entries = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    seen: Counter[str] = Counter()
    out = []
    for entry in entries:
        sites = entry["snl"]["sites"]
        if any(len(s["species"]) != 1 or s["species"][0]["occu"] != 1 for s in sites):
            continue
        out.append(_prototype(entry["tags"]["aflow"], entry["snl"]["lattice"]["matrix"], sites, seen))
    return tuple(out)


def _prototype(label: str, lattice: list[list[float]], sites: list[dict], seen: Counter[str]) -> Prototype:
    from ase.data import atomic_numbers, chemical_symbols

    numbers = np.array([atomic_numbers[s["species"][0]["element"]] for s in sites])
    crystal = Crystal(np.array(lattice), np.array([s["abc"] for s in sites]), numbers)
    name = f"{label}/{crystal.formula}"
    seen[name] += 1
    if seen[name] > 1:
        name += f"#{seen[name]}"
    crystal = crystal.niggli()
    present, species = np.unique(crystal.numbers, return_inverse=True)
    return Prototype(name, label, crystal, tuple(chemical_symbols[z] for z in present), species)
