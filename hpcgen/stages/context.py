"""The run folder: which configuration it belongs to, and where each stage finds its files."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpcgen import store
from hpcgen.config import Config, resolve_path
from hpcgen.errors import Failure, RunFolderError
from hpcgen.farm.lock import FILES as LOCK_FILES

log = logging.getLogger("hpcgen")


@dataclass(frozen=True)
class Balance:
    """What entered a stage, what left it, and the rest by kind of failure.

    Raises:
        ValueError: if the books do not balance: an item was lost or doubled.
    """

    stage: str
    entered: int
    left: int
    failures: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entered != self.left + sum(self.failures.values()):
            raise ValueError(f"{self.stage}: {self.entered} in != {self.left} out + {dict(self.failures)}")

    @classmethod
    def of(cls, stage: str, entered: int, left: int, failures: Iterable[Failure | str]) -> Balance:
        """The balance with failures (or kinds) counted, most frequent first."""
        kinds = Counter(f.kind if isinstance(f, Failure) else f for f in failures)
        return cls(stage, entered, left, dict(kinds.most_common()))

    def __str__(self) -> str:
        rest = "".join(f" + {count} {kind}" for kind, count in self.failures.items())
        return f"{self.stage}: {self.entered} in = {self.left} out{rest}"

    def to_json(self) -> str:
        """As stored in the `balance` attribute of the stage's output."""
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Balance:
        """The balance as an output file stores it."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Context:
    """One campaign: its configuration and its folder. Every stage takes a `Context` and returns a `Balance`.

    Attributes:
        config: the validated configuration.
        folder: the run folder, `runs/<name>` unless said otherwise.
        config_dir: what relative paths of the configuration start from (the working folder).
    """

    config: Config
    folder: Path
    config_dir: Path = field(default_factory=Path.cwd)

    def path(self, name: str) -> Path:
        """A file of the run folder."""
        return self.folder / name

    def check(self) -> None:
        """Return if the run folder is this configuration's, or free for it. Writes nothing.

        Raises:
            RunFolderError: if it belongs to another configuration; the message names the keys that differ.
        """
        record = self.path("config.yaml")
        if record.exists():
            try:
                owner = Config.model_validate(yaml.safe_load(record.read_text(encoding="utf-8")))
            except (ValueError, yaml.YAMLError):
                raise RunFolderError(
                    f"{record} is not a configuration of this version of hpcgen",
                    remedy="use another run folder (--run-dir), or move this one away",
                ) from None
            if owner.digest() != self.config.digest() and not self._adds_vasp(owner):
                changed = _differences(owner.model_dump(mode="json"), self.config.model_dump(mode="json"))
                raise RunFolderError(
                    f"{self.folder} belongs to another configuration: {'; '.join(changed)}",
                    expected=f"digest {owner.digest()}, found {self.config.digest()}",
                    remedy="use another run folder (--run-dir or another `name`), or restore the configuration",
                )
            return
        if self.folder.exists() and any(file.name not in LOCK_FILES for file in self.folder.iterdir()):
            raise RunFolderError(
                f"{self.folder} is not empty and holds no config.yaml, so it is not a run folder",
                remedy="give an empty or new folder with --run-dir",
            )

    def check_made_alike(self, name: str, stage: str, of: str, *, unknown: bool = False) -> None:
        """Return if an output beside the chain is not there, or was made with the settings of the configuration.

        Args:
            name: of the file, whose attribute `identity` says what it was made with.
            stage: that made it.
            of: which settings those are, for the message.
            unknown: whether a file that does not say passes.

        Raises:
            RunFolderError: if it was made with others: they are no part of what a run folder belongs to.
        """
        if not self.path(name).exists():
            return
        with store.open(self.path(name)) as f:
            made = f.attrs.get("identity")
        if made != self.config.identity(stage) and not (unknown and made is None):
            raise RunFolderError(
                f"{self.path(name)} was made with other settings of {of}",
                remedy="restore them, or compute it again with --redo",
            )

    def check_other_samples(self) -> None:
        """Return if the samples of other runs are there: that they are not must show before a night of training.

        Raises:
            RunFolderError: if not.
        """
        for text in self.config.reconstruct.more_samples:
            if not (path := resolve_path(text, self.config_dir)).exists():
                raise RunFolderError(
                    f"reconstruct.more_samples names {path}, which is not there",
                    remedy="run that campaign first: `hpcgen run ITS_CONFIG --until sample`",
                )

    def claim(self) -> None:
        """Make the run folder this configuration's, unless it is already. Overwrites nothing.

        Raises:
            RunFolderError: as `check`.
        """
        self.check()
        record = self.path("config.yaml")
        if record.exists():
            owner = Config.model_validate(yaml.safe_load(record.read_text(encoding="utf-8")))
            if not self._adds_vasp(owner):
                return
            self._make_way_for_vasp(record)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = record.with_suffix(f".tmp{os.getpid()}")
        temporary.write_text(self.config.text(), encoding="utf-8")
        temporary.replace(record)

    def _adds_vasp(self, owner: Config) -> bool:
        """Whether this is the owner's configuration with a section `vasp`: everything up to the first hull stays."""
        added = owner.model_copy(update={"vasp": self.config.vasp, "select": self.config.select})
        return owner.vasp is None and self.config.vasp is not None and added.digest() == self.config.digest()

    def _make_way_for_vasp(self, record: Path) -> None:
        """What was the last hull becomes the first, and the report of it is set aside."""
        first, attic = self.path("stability-mlip.h5"), self.path("old") / "before-vasp"
        attic.mkdir(parents=True, exist_ok=True)
        if self.path("report").exists():
            self.path("report").rename(attic / "report")
        if self.path("stability.h5").exists() and not first.exists():
            self.path("stability.h5").rename(first)
        (attic / record.name).write_text(record.read_text(encoding="utf-8"), encoding="utf-8")
        log.info("a section `vasp` was added: stability.h5 is now stability-mlip.h5, the old report is in %s", attic)


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old there, new here` for every leaf that differs."""
    out: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            out.append(f"{prefix}{key} is {a!r} there and {b!r} here")
    return (
        [d for d in out if not d.startswith(("farm.", "slots.", "report.", "dynamics.", "phonons."))]
        if not prefix
        else out
    )
