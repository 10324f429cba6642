"""Sets of crystals from whatever a generator writes; what cannot be read stays in the set as a `Failure`.

| source | what is taken |
|---|---|
| a run folder of hpcgen | candidates.h5 with its failures and those of samples.h5: everything that was asked for |
| an HDF5 file of hpcgen | its crystals and failures |
| `.pt` | the layout of CDVAE and DiffCSP: tensors `frac_coords`, `atom_types`, `lengths`, `angles`, `num_atoms` |
| the rest | what `data.source` takes: a folder of CIFs or POSCARs, one of them, a CSV, an extxyz, an ASE database |

Nothing is reduced, checked or dropped: a metric counts over everything that was generated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import store
from hpcgen.crystal import Crystal, lattice_from_parameters
from hpcgen.data.gate import parse
from hpcgen.data.sources import raw_items, source_digest
from hpcgen.errors import DataError, Failure, StoreError
from hpcgen.evaluate.parallel import mapped

STAGE = "evaluate"
CDVAE_KEYS = ("frac_coords", "atom_types", "lengths", "angles", "num_atoms")


@dataclass(frozen=True, eq=False)
class CrystalSet:
    """One set.

    Attributes:
        name: of the file or folder.
        labels: M labels: `row:N`, `file:PATH` or an id.
        items: M crystals as they are written, or why there is none.
        digest: of the content that was read.
    """

    name: str
    labels: list[str]
    items: list[Crystal | Failure]
    digest: str

    @property
    def crystals(self) -> list[Crystal]:
        """Those that are."""
        return [item for item in self.items if isinstance(item, Crystal)]

    @property
    def failures(self) -> list[Failure]:
        """The others."""
        return [item for item in self.items if isinstance(item, Failure)]

    def rows(self, chosen: Sequence[int]) -> CrystalSet:
        """The set of these rows."""
        return CrystalSet(
            self.name,
            [self.labels[i] for i in chosen],
            [self.items[i] for i in chosen],
            self.digest,
        )


def read_sets(path: Path, *, processes: int = 1) -> list[CrystalSet]:
    """The sets of a file or folder: one, except for a `.pt` with several evaluations (its first dimension).

    Raises:
        DataError: if it is missing, empty or of no known layout.
        StoreError: if an HDF5 file is damaged or holds no crystals.
    """
    if not path.exists():
        raise DataError(f"there is nothing at {path}", expected="a run folder, or a file or folder of crystals")
    if path.suffix == ".pt":
        return read_cdvae(path)
    return [read_set(path, processes=processes)]


def read_set(path: Path, *, processes: int = 1) -> CrystalSet:
    """The one set of a run folder, an HDF5 file, or anything that `data.source` may name; see `read_sets`."""
    if path.is_dir() and (path / "candidates.h5").is_file():
        return _read_run(path)
    if path.suffix in (".h5", ".hdf5"):
        return _read_hdf5(path)
    if path.suffix == ".pt":
        sets = read_cdvae(path)
        if len(sets) > 1:
            raise DataError(f"{path} holds {len(sets)} evaluations", expected="one, for a reference")
        return sets[0]
    items = list(raw_items(path))
    if not items:
        raise DataError(f"{path} holds no structures")
    crystals = list(mapped(parse, items, processes=processes if len(items) > 500 else 1, label=f"reading {path.name}"))
    crystals = [Failure(c.id, STAGE, c.kind, c.message) if isinstance(c, Failure) else c for c in crystals]
    return CrystalSet(path.name, [i.label for i in items], crystals, source_digest(path))


def _read_run(folder: Path) -> CrystalSet:
    candidates = _read_hdf5(folder / "candidates.h5")
    labels, items = list(candidates.labels), list(candidates.items)
    if (folder / "samples.h5").is_file():
        with store.open(folder / "samples.h5") as f:
            lost = f.failures
        labels += [failure.id for failure in lost]
        items += lost
    return CrystalSet(folder.name, labels, items, candidates.digest)


def _read_hdf5(path: Path) -> CrystalSet:
    with store.open(path) as f:
        crystals, labels, failures = list(f.crystals), f.ids, f.failures
        digest = f.content_digest
        if "source" in {column.name for column in f.layout.columns}:
            labels = [str(s) for s in f.column("source")]
    labels += [failure.id for failure in failures]
    if not labels:
        raise StoreError(f"{path} holds no crystals")
    return CrystalSet(path.name, labels, [*crystals, *failures], digest)


def read_cdvae(path: Path) -> list[CrystalSet]:
    """The sets of a `.pt` of CDVAE or DiffCSP, one for each evaluation. Only tensors are read, no code is run.

    Raises:
        DataError: if it holds anything that needs code to be read (such as the `input_data_batch` of a reconstruction),
            lacks a tensor, or its shapes do not fit.
    """
    import torch

    try:
        # the settings that CDVAE's scripts keep beside the tensors are a plain Namespace
        with torch.serialization.safe_globals([argparse.Namespace]):
            tree = torch.load(path, map_location="cpu", weights_only=True)
        missing = [key for key in CDVAE_KEYS if key not in tree]
        if missing:
            raise DataError(f"{path} has no {', '.join(missing)}", expected=f"tensors {', '.join(CDVAE_KEYS)}")
        arrays = {key: np.asarray(tree[key]) for key in CDVAE_KEYS}
    except DataError:
        raise
    except Exception as error:  # torch raises nearly any type on a file that it refuses
        raise DataError(
            f"{path} cannot be read safely: {str(error).splitlines()[0][:200]}",
            expected=f"a dictionary of tensors ({', '.join(CDVAE_KEYS)})",
            remedy="where it was written, load it and save these tensors alone under another name",
        ) from None
    if arrays["num_atoms"].ndim == 1:
        arrays = {key: value[None] for key, value in arrays.items()}
    counts = arrays["num_atoms"].astype(int)
    evaluations, crystals = counts.shape
    atoms = int(counts[0].sum())
    wanted = {
        "frac_coords": (evaluations, atoms, 3),
        "atom_types": (evaluations, atoms),
        "lengths": (evaluations, crystals, 3),
        "angles": (evaluations, crystals, 3),
    }
    for key, shape in wanted.items():
        if arrays[key].shape != shape or (counts.sum(axis=1) != atoms).any():
            raise DataError(f"{path}: {key} has the shape {arrays[key].shape}", expected=f"{shape}")
    digest = source_digest(path)
    sets = []
    for k in range(evaluations):
        ends = np.cumsum(counts[k])
        items: list[Crystal | Failure] = []
        for i, end in enumerate(ends):
            part = slice(end - counts[k, i], end)
            cell = np.concatenate([arrays["lengths"][k, i], arrays["angles"][k, i]])
            items.append(_crystal(f"row:{i + 1}", cell, arrays["frac_coords"][k, part], arrays["atom_types"][k, part]))
        labels = [f"row:{i + 1}" for i in range(crystals)]
        name = path.name if evaluations == 1 else f"{path.name}[{k}]"
        sets.append(CrystalSet(name, labels, items, digest))
    return sets


def _crystal(label: str, cell: Any, frac: Any, numbers: Any) -> Crystal | Failure:
    try:
        return Crystal(lattice_from_parameters(cell), frac, numbers)
    except (ValueError, ArithmeticError) as error:
        return Failure(label, STAGE, "impossible-cell", str(error))
