"""The sample files that one reconstruction takes: the run's own, and those of other runs and families.

Each file has the reconstructor of its family. The run's own samples come first, then those of the files that
`reconstruct.more_samples` names, in this order. Ids of candidates do not depend on what else is rebuilt: those of the
run's own samples follow from their place, as in a campaign of them alone, those of others from the sample's id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.config import Config, resolve_path
from hpcgen.crystal import FloatArray
from hpcgen.errors import ConfigError, Failure, StoreError
from hpcgen.family import Reconstructor, get_family
from hpcgen.flow import Candidate, make_id, seed_of
from hpcgen.stages.context import Balance, Context

STAGE = "reconstruct"
OWN = "samples.h5"
BLOCKS = "names_residual_blocks"


@dataclass(frozen=True, eq=False)
class Source:
    """One open file.

    Attributes:
        label: how it is named in messages and outputs.
        file: of samples.
        family: that made them.
        reconstructor: of this family, for this file.
    """

    label: str
    file: store.File
    family: str
    reconstructor: Reconstructor


class SampleFiles:
    """Open sample files as one sequence of tasks. Use it as a context manager.

    Args:
        ctx: the run.
        verify: whether to compare every record with its checksum.

    Attributes:
        sources: the files.
        ids: (M,) S16, of all samples.
        attrs: of candidates.h5, as the families of the samples need them.

    Raises:
        StoreError: if a file is missing, damaged or of another schema, or its attributes do not fit its family.
        ConfigError: if a family is not known here, or two files hold the same sample.
    """

    def __init__(self, ctx: Context, *, verify: bool) -> None:
        config = ctx.config
        named = {OWN: ctx.path(OWN)}
        for text in config.reconstruct.more_samples:
            if text in named:
                raise ConfigError(f"reconstruct.more_samples names {text} twice", remedy="name each file once")
            named[text] = resolve_path(text, ctx.config_dir)
        self._config, self._run_digest = config, config.identity(STAGE)
        with ExitStack() as stack:
            self.sources = [_opened(stack, label, path, config, verify) for label, path in named.items()]
            self.ids = np.concatenate([s.file.raw_ids for s in self.sources])
            self._check_ids()
            self._ends = np.cumsum([len(s.file) for s in self.sources])
            self.attrs, self._places = _united([(s.label, s.reconstructor.candidate_attrs()) for s in self.sources])
            self._stack = stack.pop_all()

    def __enter__(self) -> SampleFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def digests(self) -> dict[str, str]:
        """Content digest of each file."""
        return {s.label: s.file.content_digest for s in self.sources}

    @property
    def families(self) -> list[str]:
        """The families, in the order of the files, each once."""
        return list(dict.fromkeys(s.family for s in self.sources))

    def costs(self) -> FloatArray:
        """(M,) estimated seconds of all samples."""
        return np.concatenate([s.reconstructor.costs(s.file) for s in self.sources])

    def warm_up(self) -> None:
        """Compile the kernels of all families, or load them from their cache."""
        for source in self.sources:
            source.reconstructor.warm_up()

    def rebuild(self, index: int) -> Candidate | Failure:
        """The crystal of a sample."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        source = self.sources[number]
        first = int(self._ends[number]) - len(source.file)
        if number == 0:
            id_ = make_id(self._run_digest, STAGE, index)
        else:
            id_ = make_id(f"{self._run_digest}/{self.ids[index].decode('ascii')}", STAGE, 0)
        built = source.reconstructor.reconstruct(
            source.file[index - first], id_, seed_of(self._config.seed, id_, STAGE)
        )
        if isinstance(built, Failure) or len(self.sources) == 1:
            return built
        blocks = np.full(len(self.attrs[BLOCKS]), np.nan)
        blocks[self._places[number]] = built.residual_blocks
        return replace(built, residual_blocks=blocks)

    def balances(self, failures: Sequence[Failure]) -> dict[str, Balance]:
        """What became of the samples of each file."""
        of = {id_: number for number, s in enumerate(self.sources) for id_ in s.file.ids}
        lost: list[list[Failure]] = [[] for _ in self.sources]
        for failure in failures:
            lost[of[failure.id]].append(failure)
        return {
            s.label: Balance.of(STAGE, len(s.file), len(s.file) - len(kinds), kinds)
            for s, kinds in zip(self.sources, lost, strict=True)
        }

    def _check_ids(self) -> None:
        unique, counts = np.unique(self.ids, return_counts=True)
        if (counts == 1).all():
            return
        twice = unique[counts > 1][0]
        where = [s.label for s in self.sources if twice in s.file.raw_ids]
        raise ConfigError(
            f"{(counts > 1).sum()} samples occur twice, the first of them is {twice.decode('ascii')} in "
            + " and ".join(where),
            expected="samples of runs that differ in their configuration, or in their seed",
            remedy="leave one of the files out of reconstruct.more_samples",
        )


def balances_json(balances: dict[str, Balance]) -> str:
    """As the attribute `balance_by_file` holds them."""
    return json.dumps({label: json.loads(balance.to_json()) for label, balance in balances.items()})


def _opened(stack: ExitStack, label: str, path: Path, config: Config, verify: bool) -> Source:
    file = stack.enter_context(store.open(path))
    family = str(file.attrs.get("family", ""))
    if file.schema != "hpcgen.samples" or not family:
        raise StoreError(
            f"{path} holds {file.schema}" + ("" if family else ", and names no family"),
            expected="hpcgen.samples as `hpcgen sample` writes it",
        )
    if verify:
        file.verify()
    return Source(label, file, family, get_family(family).reconstructor(file.attrs, config))


def _united(given: Sequence[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], list[NDArray[np.int64]]]:
    """Attributes of candidates of several files, and where each file's residual blocks stand among those of all.

    Raises:
        StoreError: if files differ in an attribute other than the names of the blocks.
    """
    if len(given) == 1:
        return given[0][1], []
    names = list(dict.fromkeys(name for _, attrs in given for name in attrs[BLOCKS]))
    out: dict[str, Any] = {BLOCKS: names}
    for label, attrs in given:
        for key, value in attrs.items():
            if key != BLOCKS and out.setdefault(key, value) != value:
                raise StoreError(
                    f"{label}: its candidates have the attribute {key}: {value!r}, and others {out[key]!r}",
                    remedy="rebuild these samples in a run of their own",
                )
    return out, [np.array([names.index(name) for name in attrs[BLOCKS]]) for _, attrs in given]
