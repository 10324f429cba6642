"""One reader for every source of structures: what comes out is valid and Niggli-reduced, or a `Failure`."""

from __future__ import annotations

import heapq
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice, tee
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hpcgen.config import ConditionsConfig, DataConfig, resolve_path
from hpcgen.crystal import Crystal
from hpcgen.data.gate import Limits, admit
from hpcgen.data.properties import COMPUTED, known
from hpcgen.data.sources import RawItem, Wanted, raw_items, source_digest
from hpcgen.errors import DataError, Failure
from hpcgen.progress import shown

log = logging.getLogger("hpcgen")
T = TypeVar("T")
Properties = tuple[tuple[str, Any], ...]

BUILTIN = "builtin"
CHUNK = 64  # items sent to a process at a time, about 0.2 s of work
SERIAL = 512  # fewer items are done here: starting processes would take longer
MAX_PROCESSES = 16  # beyond, this process cannot cut items out of the file fast enough


@dataclass(frozen=True)
class DataSet:
    """A data set as read.

    Attributes:
        indices: (M,) place of each crystal among all items of the source, from 0.
        labels: (M,) where each crystal came from; unique.
        crystals: (M,) valid, Niggli-reduced, in the order of the source.
        properties: (M,) what is known of each in the columns asked for, by name: numbers and words.
        failures: the items that are not usable, in the order of the source.
        inputs: content digest by file name, for provenance.
    """

    indices: list[int]
    labels: list[str]
    crystals: list[Crystal]
    properties: list[dict[str, float | str]]
    failures: list[Failure]
    inputs: dict[str, str]


def available_cores() -> int:
    """Cores this process may use: its affinity mask, not the machine's count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read(
    config: DataConfig, *, config_dir: Path | None = None, processes: int = 1
) -> Iterator[tuple[str, Crystal | Failure]]:
    """The structures of `config.source`, one by one, in its order: (label, crystal or failure).

    The result does not depend on `processes`. With more than one, a script that calls this needs the usual
    `if __name__ == "__main__":`, for the processes are spawned (a fork is not safe beside torch's threads).

    Args:
        config: the `data` section.
        config_dir: where relative paths start; the working folder if None.
        processes: processes that parse.

    Raises:
        DataError: if the source is missing, empty, of no known layout or cannot be read.
        ConfigError: if the configuration names something that is no element.
    """
    for _, label, result, _ in _read(config, config_dir, processes, None, 0):
        yield label, result


def load(
    config: DataConfig,
    conditions: ConditionsConfig | None = None,
    *,
    config_dir: Path | None = None,
    processes: int = 1,
    n: int | None = None,
    seed: int = 0,
) -> DataSet:
    """The data set, or `n` items of it, with its progress: a bar on a terminal, else lines in the log.

    Args:
        config: the `data` section.
        conditions: the `conditions` section, whose columns are read too; None: no columns.
        config_dir: where relative paths start; the working folder if None.
        processes: processes that parse.
        n: items drawn at random, in the order of the source; a smaller draw is part of a larger one. None: all.
        seed: of the draw.

    Raises:
        DataError: as `read`; also if nothing is usable, or if more than `config.max_failures` of the items are not,
            if the source lacks a column, or if a value of one does not fit its kind.
    """
    indices: list[int] = []
    labels: list[str] = []
    crystals: list[Crystal] = []
    properties: list[dict[str, float | str]] = []
    failures: list[Failure] = []
    columns = conditions or ConditionsConfig()
    items = _read(config, config_dir, processes, n, seed, columns.columns)
    for index, label, result, raw in shown(items, "data"):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            indices.append(index)
            labels.append(label)
            crystals.append(result)
            properties.append(known(dict(raw), result, columns, label))
    _judge(config, len(crystals), failures)
    return DataSet(indices, labels, crystals, properties, failures, inputs(config, config_dir))


def inputs(config: DataConfig, config_dir: Path | None = None) -> dict[str, str]:
    """Content digest of the source by file name, for provenance."""
    if config.source == BUILTIN:
        from hpcgen.data.aflow import library_path

        path = library_path()
    else:
        path = resolve_path(config.source, config_dir)
    return {path.name: source_digest(path)}


def _read(
    config: DataConfig,
    config_dir: Path | None,
    processes: int,
    n: int | None,
    seed: int,
    columns: tuple[str, ...] = (),
) -> Iterator[tuple[int, str, Crystal | Failure, Properties]]:
    """(place in the source, label, crystal or failure, raw columns) of all items, or of `n` drawn ones."""
    limits = Limits.of(config)
    if config.source == BUILTIN:
        from hpcgen.data.prototypes import decorated

        Wanted(Path(BUILTIN), columns, frozenset(COMPUTED)).check(())
        for index, (label, crystal) in drawn(enumerate(decorated(config)), n, seed):
            yield index, label, crystal, ()
        return
    source = raw_items(resolve_path(config.source, config_dir), columns, COMPUTED)
    items, numbered = tee(drawn(enumerate(source), n, seed))
    results = _admitted((item for _, item in items), limits, min(processes, MAX_PROCESSES))
    for (label, result), (index, item) in zip(results, numbered, strict=False):
        yield index, label, result, item.properties


def drawn(numbered: Iterable[tuple[int, T]], n: int | None, seed: int) -> Iterator[tuple[int, T]]:
    """All of `numbered`, or `n` of it in its order: those with the smallest random keys, so only `n` are ever kept."""
    if n is None:
        return iter(numbered)
    rng = np.random.default_rng(seed)
    keyed = heapq.nsmallest(n, ((rng.random(), index, item) for index, item in numbered), key=itemgetter(0))
    return iter(sorted(((index, item) for _, index, item in keyed), key=itemgetter(0)))


def _judge(config: DataConfig, usable: int, failures: list[Failure]) -> None:
    total = usable + len(failures)
    if total == 0:
        raise DataError(f"data.source {config.source!r} holds no structures", remedy="check the file, or use `builtin`")
    if usable and len(failures) <= config.max_failures * total:
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.kind for f in failures).most_common(4))
    found = f"{len(failures)} of {total} structures of {config.source!r} are unusable: {kinds}"
    raise DataError(
        f"{found}; the first is {failures[0].id}: {failures[0].message}",
        expected="at least one usable structure" if not usable else f"data.max_failures at most {config.max_failures}",
        remedy="mend the data, or relax data.max_atoms, data.max_elements, data.elements or data.max_failures",
    )


def _admitted(items: Iterator[RawItem], limits: Limits, processes: int) -> Iterator[tuple[str, Crystal | Failure]]:
    head = list(islice(items, SERIAL))
    if processes < 2 or len(head) < SERIAL:
        for item in chain(head, items):
            yield item.label, admit(item, limits)
        return
    rest = chain(head, items)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[list[str], Future[list[Crystal | Failure]]]] = deque()
        try:
            while True:
                while len(waiting) < 3 * processes and (chunk := list(islice(rest, CHUNK))):
                    labels = [item.label for item in chunk]
                    waiting.append((labels, pool.submit(_admit_chunk, chunk, limits)))
                if not waiting:
                    return
                labels, future = waiting.popleft()
                yield from zip(labels, future.result(), strict=True)
        finally:  # the caller stopped early, or a source cannot be read on
            pool.shutdown(wait=False, cancel_futures=True)


def _admit_chunk(chunk: list[RawItem], limits: Limits) -> list[Crystal | Failure]:
    return [admit(item, limits) for item in chunk]
