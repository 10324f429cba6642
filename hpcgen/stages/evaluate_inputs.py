"""What `hpcgen evaluate` is given: the sets, the real crystals, and what is known of each of their crystals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcgen import store
from hpcgen.config import resolve_path
from hpcgen.crystal import Crystal
from hpcgen.errors import DataError, Failure
from hpcgen.evaluate.cache import Cache
from hpcgen.evaluate.fingerprint import STRUCTURE_SIZE, definition
from hpcgen.evaluate.measured import Measured, measure
from hpcgen.evaluate.sources import CrystalSet, read_set, read_sets
from hpcgen.flow import Entry

log = logging.getLogger("hpcgen")
KINDS = ("perov", "carbon", "mp")


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        runs: what is evaluated: run folders, files or folders, one set or several (seeds) each.
        reference: file of the real crystals.
        training: file of the training crystals; None: of `own_split`, or of the run folder, if there are any.
        own_split: the reference file holds both.
        kind: which coverage thresholds; empty: by the name of the reference.
        processes: at most so many.
        cache: folder of fingerprints; None: none are kept.
        seed: of all draws.
        draws: see `generation.Settings`.
    """

    runs: tuple[Path, ...]
    reference: str
    training: str | None = None
    own_split: bool = False
    kind: str = ""
    processes: int = 1
    cache: Path | None = None
    seed: int = 0
    draws: int = 5


@dataclass(frozen=True, eq=False)
class Real:
    """The real crystals.

    Attributes:
        reference: those that are held against what was generated.
        training: those that the generator knew, if that is known.
        trained_on: where they are from, empty if nowhere.
    """

    reference: CrystalSet
    training: list[Crystal]
    trained_on: str


def sets_of(request: Request) -> list[CrystalSet]:
    return [s for path in request.runs for s in read_sets(path, processes=request.processes)]


def real_of(request: Request) -> Real:
    whole = read_set(resolve_path(request.reference), processes=request.processes)
    if request.own_split:
        if request.training is not None:
            raise DataError("--own-split takes the training rows from the reference", remedy="leave out --training")
        test = whole.rows([i for i in range(len(whole.items)) if i % 5 == 4])
        rest = whole.rows([i for i in range(len(whole.items)) if i % 5 != 4])
        return Real(test, rest.crystals, f"rows of {whole.name} with number % 5 != 4")
    if request.training is not None:
        known = read_set(resolve_path(request.training), processes=request.processes)
        return Real(whole, known.crystals, known.name)
    data = request.runs[0] / "dataset.h5"
    if data.is_file():
        with store.open(data, Entry) as f:
            split, crystals = f.column("split"), f.crystals
            training = [crystals[i] for i, name in enumerate(split) if name == "train"]
        return Real(whole, training, f"the training split of {data.parent.name}")
    return Real(whole, [], "")


def ceiling_rows(real: Real, reference: Measured, cache: Cache, request: Request) -> tuple[Measured, Measured, str]:
    """Real crystals to hold against the reference, and what they are."""
    if real.training:
        items: Sequence[Crystal | Failure] = real.training
        held = measure(items, processes=request.processes, cache=cache, label="training rows")
        return held, reference, f"training rows against the reference ({real.trained_on})"
    odd, even = reference.take(range(1, len(reference), 2)), reference.take(range(0, len(reference), 2))
    return odd, even, "one half of the reference against the other, for lack of training rows"


def measured(s: CrystalSet, cache: Cache, request: Request) -> Measured:
    return measure(s.items, processes=request.processes, cache=cache, label=s.name)


def cache_of(request: Request) -> Cache:
    return Cache(request.cache, definition(), STRUCTURE_SIZE)


def kind_of(reference: str) -> str:
    name = Path(reference.removeprefix("data:")).name.lower()
    found = next((kind for kind in KINDS if name.startswith(kind)), "mp")
    log.info("evaluate: coverage thresholds of %r (--data says otherwise)", found)
    return found
