"""What `benchmarks/chaos.py` knows beside the farm: what is on disk, what was computed, what the output must be."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from chaos_plan import JOURNAL, TRUNCATED, Damage, Plan
from chaos_program import LINE, result_of, task_ids

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.farm.attempts import journal_files
from hpcgen.farm.shards import shard_files
from hpcgen.flow import Candidate

READ_SECONDS = 60.0
KILLED, HUNG = "killed-its-process", "time-limit"


def computations(log: Path, tag: str = "") -> int:
    """How many computations have begun, of all jobs or of that with this tag."""
    return log.read_bytes().count(tag.encode("ascii")) if tag else log.stat().st_size // LINE


def committed(run_folder: Path) -> set[str]:
    """Tasks whose results are committed and undamaged, as the shards on disk say.

    Read in a process of its own: a damaged file may bring the HDF5 library down, which is for the farm to survive.
    """
    folder = run_folder / "shards"
    found: set[str] = set()
    files = shard_files(folder) if folder.is_dir() else []
    while files:
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            for path, answer in [(path, pool.submit(_read, path)) for path in files]:
                files.remove(path)
                try:
                    found |= answer.result(timeout=READ_SECONDS)
                except BrokenProcessPool:  # by this file: the others go on in another process
                    break
    return found


def _read(path: Path) -> set[str]:
    try:
        return {task for task, _ in store.read_shard(path, Candidate)}
    except StoreError:
        return set()


class Ledger:
    """Results that count as acknowledged, and whether one of them was lost.

    Args:
        log: of the computations.

    Attributes:
        lost: ids that were gone, or that were computed again.
    """

    def __init__(self, log: Path) -> None:
        self.lost: list[str] = []
        self._log = log
        self._since: dict[str, int] = {}  # by id, number of computations when it was first known to be on disk

    def saw(self, on_disk: set[str]) -> None:
        """These are on disk: from now on nobody may compute them."""
        now = computations(self._log)  # after the look at the disk, so that none of theirs comes later
        for task in on_disk:
            self._since.setdefault(task, now)

    def check(self, on_disk: set[str] | None) -> None:
        """Look for acknowledged results that are not on disk (None: there is an output), or were computed again."""
        again = set()
        lines = self._log.read_bytes()
        for number in range(len(lines) // LINE):
            task = lines[number * LINE : number * LINE + 16].decode("ascii")
            if number >= self._since.get(task, number + 1):
                again.add(task)
        gone = set() if on_disk is None else set(self._since) - on_disk
        for task in again | gone:
            self.lost.append(task)
            del self._since[task]  # counted once
        if on_disk is not None:
            self.saw(on_disk)

    def damaged(self, on_disk: set[str]) -> None:
        """The benchmark has damaged shards: only what can still be read counts as acknowledged."""
        self._since = {task: since for task, since in self._since.items() if task in on_disk}


def damage(run_folder: Path, what: Damage) -> str:
    """Damage one file of the shard folder; what was done, empty if there is no such file."""
    folder = run_folder / "shards"
    if not folder.is_dir():
        return ""
    files = [f for f in (journal_files if what.kind == JOURNAL else shard_files)(folder) if f.stat().st_size]
    if not files:
        return ""
    path = files[int(what.file * len(files))]
    size = path.stat().st_size
    if what.kind == TRUNCATED:
        os.truncate(path, int(what.places[0] * size))
        return what.kind
    with path.open("r+b") as file:
        for place, mask in zip(what.places, what.masks, strict=True):
            file.seek(int(place * size))
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ mask]))
    return what.kind


def check_output(path: Path, tasks: int, plan: Plan) -> tuple[int, str]:
    """Tasks that have more than one result, and how the file differs from the undisturbed one (empty: not at all)."""
    kinds = dict.fromkeys((task_ids(tasks)[i] for i in plan.killers), KILLED)
    kinds |= dict.fromkeys((task_ids(tasks)[i] for i in plan.hanging), HUNG)
    try:
        with store.open(path, Candidate) as file:
            file.verify()
            records, failures, digest = file[:], file.failures, file.content_digest
    except StoreError as error:
        return 0, f"out.h5 cannot be read: {error}"
    seen = Counter([r.sample_id for r in records] + [f.id for f in failures])
    duplicates = sum(count > 1 for count in seen.values())
    special = {f.id: f for f in failures if f.id in kinds}
    # their messages tell of processes and signals; kind and stage are what is promised
    wrong = [
        f"{i}: {special[i].kind if i in special else 'not a failure'}"
        for i in kinds
        if i not in special or special[i].kind != kinds[i]
    ]
    if wrong:
        return duplicates, f"tasks that kill or hang are not set aside: {wrong}"
    expected = [special.get(name, result_of(index)) for index, name in enumerate(task_ids(tasks))]
    reference = path.with_name("reference.h5")
    store.write(
        reference,
        Candidate,
        [r for r in expected if not isinstance(r, Failure)],
        failures=[r for r in expected if isinstance(r, Failure)],
    )
    if store.content_digest(reference) == digest:
        return duplicates, ""
    wanted = {(r.id, r.kind) for r in expected if isinstance(r, Failure)}
    odd = sorted({(f.id, f.kind) for f in failures} ^ wanted)
    return duplicates, f"out.h5 differs: {len(records)} records, {len(failures)} failures, unexpected {odd[:5]}"
