"""A run folder as tables (pandas) and crystals (pymatgen, ASE), read from HDF5 when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal, to_atoms, to_structure
from hpcgen.errors import RunFolderError, UsageError
from hpcgen.flow import Relaxation

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure

VERDICT = "stability"
"""The table that `Run.joined` starts from."""

BEFORE = ("dataset", "samples", "reference", "roundtrip", "structures")
"""Tables that hold no candidates, which `Run.joined` need not open."""

LINK = "candidate_id"
"""The column by which the tables of later stages name the crystal that they speak of."""


class Run:
    """A run folder. Files are opened when first used and stay open until `close`, or the end of a `with` block.

    Attributes:
        folder: the folder.
        tables: the path of every HDF5 file in it by its name without suffix, such as `relaxed-mlip`.

    Raises:
        RunFolderError: if there is no such folder, or no HDF5 file in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.tables = {path.stem: path for path in sorted(self.folder.glob("*.h5"))}
        self._files: dict[str, store.File] = {}
        self._numbers: dict[str, dict[str, int]] = {}
        if not self.tables:
            state = "holds no HDF5 file" if self.folder.is_dir() else "is not there"
            raise RunFolderError(
                f"{self.folder} {state}",
                expected="a run folder of hpcgen",
                remedy="give the folder of a run, runs/<name>",
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hpcgen run {self.folder}: {', '.join(self.tables)}>"

    def close(self) -> None:
        """Close all files; tables already read stay valid."""
        while self._files:
            self._files.popitem()[1].close()

    @cached_property
    def config(self) -> Config:
        """The configuration of the run.

        Raises:
            RunFolderError: if the folder has none, or one of another version.
        """
        try:
            return Config.model_validate(yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RunFolderError(
                f"{self.folder / 'config.yaml'} cannot be read as a configuration: {str(error).splitlines()[0]}",
                remedy="open the folder with the version of hpcgen that made it",
            ) from None

    def file(self, name: str) -> store.File:
        """The open file of a table; see `hpcgen.store.File`.

        Raises:
            UsageError: if there is no such table; the message lists those there are.
            StoreError: if the file is damaged, or of a newer version.
        """
        if name not in self.tables:
            raise UsageError(
                f"{self.folder} has no table {name!r}",
                expected=f"one of {', '.join(self.tables)}",
                remedy="`hpcgen run` writes what is missing",
            )
        if name not in self._files:
            self._files[name] = store.open(self.tables[name])
        return self._files[name]

    def attrs(self, name: str) -> dict[str, Any]:
        """What a file says about itself: versions, digests, seed, configuration, energy scale."""
        return dict(self.file(name).attrs)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The scalar columns of a table, one row a record, indexed by id.

        Args:
            name: one of `tables`.
            columns: those wanted; default all. Nothing else is read.

        Raises:
            UsageError: if there is no such table or scalar column.
        """
        import pandas as pd

        f = self.file(name)
        scalars = [c.name for c in f.layout.columns if c.kind == "column"]
        unknown = [c for c in columns or () if c not in scalars]
        if unknown:
            raise UsageError(
                f"{name} has no scalar column {' and '.join(unknown)}", expected=f"some of {', '.join(scalars)}"
            )
        wanted = scalars if columns is None else list(columns)
        return pd.DataFrame({c: f.column(c) for c in wanted}, index=pd.Index(f.ids, name="id"), columns=wanted)

    def array(self, name: str, column: str) -> NDArray[Any]:
        """A column that is no scalar: (M, ...) of each record, (sum n, ...) of each atom or (sum s,) of each step.

        Raises:
            UsageError: if there is no such table or column.
        """
        try:
            return self.file(name).column(column)
        except KeyError as error:
            raise UsageError(str(error.args[0])) from None

    def steps(self, name: str, key: int | str) -> pd.DataFrame:
        """One relaxation step by step: a row a step, 0 the crystal that went in; nothing else is read.

        Args:
            name: a table of relaxations, such as `relaxed-mlip`.
            key: number or id of the relaxation, or the id of its candidate.

        Returns:
            `step_energy` (eV/atom), `step_max_force` (eV/angstrom), for VASP `step_run`; empty if the file is older
            than these columns.

        Raises:
            UsageError: if there is no such table or relaxation, or it holds no relaxations.
        """
        import pandas as pd

        f = self.file(name)
        if not issubclass(f.record_type, Relaxation):
            raise UsageError(f"{name} holds no relaxations", expected="a table such as relaxed-mlip")
        index = key if isinstance(key, int) else self._places(name).get(key, -1)
        if not 0 <= index < len(f):
            raise UsageError(f"{name} has no relaxation {key!r}", expected="its number or id, or that of its candidate")
        return pd.DataFrame(f.steps(index)).rename_axis("step")

    def _places(self, name: str) -> dict[str, int]:
        """The number of each relaxation of a table by its id and by its candidate's."""
        if name not in self._numbers:
            f = self.file(name)
            self._numbers[name] = {key: i for keys in (f.column(LINK), f.ids) for i, key in enumerate(keys)}
        return self._numbers[name]

    def joined(self, name: str = VERDICT) -> pd.DataFrame:
        """One row a crystal of `name`, with what every other table of the run knows of it.

        Other tables are joined by candidate. A column that an earlier table has already is called `table.column`:
        `spacegroup` is the one of stability.h5, `survivors.spacegroup` the one before relaxation. A table that names a
        candidate more than once is left out.
        """
        out = self.table(name)
        if LINK not in out:
            raise UsageError(f"{name} does not say which candidates it holds", expected=f"a table such as {VERDICT}")
        for other in (t for t in self.tables if t not in (name, *BEFORE)):
            columns = {c.name for c in self.file(other).layout.columns}
            if other != "candidates" and LINK not in columns:
                continue
            facts = self.table(other)
            if other != "candidates":
                facts = facts.rename_axis(f"{other}.id").reset_index().set_index(LINK)
            if not facts.index.is_unique:
                continue
            facts = facts.rename(columns={c: f"{other}.{c}" for c in facts.columns if c in out.columns})
            out = out.join(facts, on=LINK)
        return out

    def crystals(self, name: str = VERDICT) -> Crystals:
        """The crystals of a table, read one by one when asked for.

        Raises:
            UsageError: if there is no such table, or its records have no crystal.
        """
        f = self.file(name)
        if not f.layout.has_crystal:
            raise UsageError(f"the records of {name} have no crystal", expected="a table such as candidates")
        return Crystals(f)

    def failures(self) -> pd.DataFrame:
        """Every item that a stage gave up on: columns table, id, stage, kind, message."""
        import pandas as pd

        rows = [(name, f.id, f.stage, f.kind, f.message) for name in self.tables for f in self.file(name).failures]
        return pd.DataFrame(rows, columns=["table", "id", "stage", "kind", "message"])

    def balance(self) -> pd.DataFrame:
        """What entered each stage and what left it, in the order of the stages; `failures` by kind."""
        import pandas as pd

        record = self.folder / "stages.json"
        entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else []
        rows = [
            (e["stage"], b["entered"], b["left"], b["failures"], e["seconds"]) for e in entries if (b := e["balance"])
        ]
        return pd.DataFrame(rows, columns=["stage", "entered", "left", "failures", "seconds"]).set_index("stage")


class Crystals(Sequence[Crystal]):
    """The crystals of one file, by number or id, each read when asked for."""

    def __init__(self, file: store.File) -> None:
        self._file = file

    @cached_property
    def ids(self) -> list[str]:
        """Their ids, in the order of the file."""
        return self._file.ids

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, key: int | str | slice) -> Any:
        """The crystal of that number or id (KeyError if there is none), or a list for a slice."""
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        return self._file[self._numbers[key] if isinstance(key, str) else key].crystal

    def __iter__(self) -> Iterator[Crystal]:
        return (record.crystal for record in self._file)

    def structure(self, key: int | str) -> Structure:
        """As pymatgen's Structure."""
        return to_structure(self[key])

    def atoms(self, key: int | str) -> Atoms:
        """As ASE's Atoms."""
        return to_atoms(self[key])

    def structures(self) -> Iterator[Structure]:
        """All as pymatgen's, one after the other."""
        return map(to_structure, self)

    def all_atoms(self) -> Iterator[Atoms]:
        """All as ASE's, one after the other."""
        return map(to_atoms, self)
