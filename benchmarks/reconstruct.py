"""Match rate and time of reconstruction from exact or noisy descriptors of real crystals.

    python benchmarks/reconstruct.py --csv data/perov_5_val.csv.gz --n 100
    python benchmarks/reconstruct.py --csv ... --noise 0.05 --lattice-noise 0.01 --threads 2 --curve
    python benchmarks/reconstruct.py --csv data/mpts_52_val.csv.gz --max-atoms 24 --max-elements 5 --split test
    python benchmarks/reconstruct.py --csv ... --n 5 --preset paper

Every row's crystal (Niggli cell) is encoded and rebuilt from the vector, its elements and its cell, as `hpcgen
reconstruct --structures` does it (with noise: search, refinement of the cell, symmetry). `--noise S`
multiplies every component by 1 + S z, z normal; `--lattice-noise L` multiplies the lengths by 1 + L z and adds 60 L z
degrees to the angles. Matched by StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10), without a validity gate; rows
that hold no usable crystal count as not matched. Every fifth row of a file (number % 5 == 4, from 0) is test, the
others are there to tune on.

Times are CPU-seconds of the solver's thread, so that other programs do not spoil them; compilation, imports, encoding
and matching are left out. `structures_per_s` is wall time. `digest` is one of all cells and positions, bit by bit:
runs that differ in `--threads` only must agree in it. The last line is one JSON object.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: CPU time is that of one thread

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from hpcgen import config, data
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.data.gate import MAX_ATOMIC_NUMBER, Limits, admit
from hpcgen.data.sources import RawItem, raw_items
from hpcgen.errors import Failure, HpcgenError
from hpcgen.reconstruct.solution import Solution
from hpcgen.report.roundtrip import table
from hpcgen.stages.roundtrip import Rebuilder, match

FIFTH = 5
BLOCK = 256  # rows read at a time
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One row of the file: its number from 0, and its crystal or why there is none."""

    number: int
    crystal: Crystal | Failure


@dataclass(frozen=True)
class Rebuilt:
    """One crystal after its reconstruction; `rms` is NaN without a match, `seconds` CPU time."""

    row: Row
    crystal: Crystal
    solution: Solution
    rms: float
    seconds: float


def main() -> None:
    """Read, encode, perturb, reconstruct, match, print."""
    args = _arguments()
    if args.preset == "paper":
        import paper_preset

        paper_preset.run(args, [row.crystal for row in read(args) if isinstance(row.crystal, Crystal)])
        return
    trip = f"roundtrip: {{noise: {args.noise}, lattice_noise: {args.lattice_noise}}}"
    settings = config.loads(f"{{seed: {args.seed}, {trip}}}", "--set", args.set)
    rows = list(read(args))
    good = [row for row in rows if isinstance(row.crystal, Crystal)]
    unusable = [row.crystal for row in rows if isinstance(row.crystal, Failure)]
    if not good:
        raise SystemExit(f"no row of {args.csv} passes the filters")
    rebuilt, wall = reconstruct(good, settings, args)
    report_misses(rebuilt, unusable)
    n_atoms = [len(r.solution.frac) for r in rebuilt]
    rms, seconds = np.array([r.rms for r in rebuilt]), np.array([r.seconds for r in rebuilt])
    if args.curve:
        print("\n".join(table(n_atoms, rms, seconds)))
    print(json.dumps(figures(rebuilt, len(rows), wall, args)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--n", type=int, help="rows drawn at random of those that pass the filters (default: all)")
    parser.add_argument("--preset", choices=("default", "paper"), default="default", help="the paper's EAD and solver")
    parser.add_argument("--noise", type=float, default=0.0, help="relative noise on every component")
    parser.add_argument("--lattice-noise", type=float, default=0.0, help="relative noise on the lengths")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", choices=("all", "tune", "test"), default="all")
    parser.add_argument("--min-atoms", type=int, default=1)
    parser.add_argument("--max-atoms", type=int, default=1000)
    parser.add_argument("--max-elements", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the rows drawn, the noise and the solver")
    parser.add_argument("--curve", action="store_true", help="print match rate and time by number of atoms")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key")
    args = parser.parse_args()
    if args.n is not None and args.n < 1:
        parser.error("--n must be at least 1")
    return args


def read(args: argparse.Namespace) -> Iterator[Row]:
    """The rows of the split that pass the filters, in the order of the file, or `args.n` of them at random."""
    items = [(i, item) for i, item in enumerate(raw_items(args.csv)) if _in_split(i, args.split)]
    if args.n is not None:
        items = [items[i] for i in np.random.default_rng(args.seed).permutation(len(items))]
    elements = frozenset(range(1, MAX_ATOMIC_NUMBER + 1))
    admit_row = partial(_admit, limits=Limits(args.max_atoms, args.max_elements, elements))
    processes = data.available_cores() if len(items) > BLOCK and (args.n or BLOCK) >= BLOCK else 1
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn")) if processes > 1 else nullcontext()
    found = 0
    with pool as workers, _progress("read", args.n or len(items)) as bar:
        for start in range(0, len(items), BLOCK):
            block = items[start : start + BLOCK]
            results: Iterable[Row] = workers.map(admit_row, block, chunksize=16) if workers else map(admit_row, block)
            for row in results:
                bar.update(args.n is None)
                if not _passes(row, args.min_atoms):
                    continue
                yield row
                found += 1
                bar.update(args.n is not None)
                if found == args.n:
                    return


def _in_split(number: int, split: str) -> bool:
    return split == "all" or (split == "test") == (number % FIFTH == FIFTH - 1)


def _admit(item: tuple[int, RawItem], limits: Limits) -> Row:
    return Row(item[0], admit(item[1], limits))


def _passes(row: Row, min_atoms: int) -> bool:
    if isinstance(row.crystal, Failure):
        return row.crystal.kind not in ("too-many-atoms", "too-many-elements")
    return len(row.crystal) >= min_atoms


def reconstruct(rows: list[Row], settings: Config, args: argparse.Namespace) -> tuple[list[Rebuilt], float]:
    """Every row's crystal rebuilt, and the wall time of all solvers together."""
    rebuilder = Rebuilder(settings)
    posed = [rebuilder.pose(row.crystal, str(row.number)) for row in _shown(rows, "encode")]
    rebuilder.warm_up()

    def solve(index: int) -> tuple[Crystal, Solution, float]:
        target, lattice = posed[index]
        begin = time.thread_time()
        built, solution, _ = rebuilder.solve(target, lattice, rows[index].crystal.numbers, str(rows[index].number))
        return built, solution, time.thread_time() - begin

    order = _expensive_first(rebuilder, [row.crystal for row in rows])
    begin = time.perf_counter()
    with ThreadPoolExecutor(args.threads) as pool:
        solved = dict(zip(order, _shown(pool.map(solve, order), "solve", len(order)), strict=True))
    wall = time.perf_counter() - begin
    rebuilt = []
    for index in _shown(range(len(rows)), "match"):
        built, solution, seconds = solved[index]
        rms = match(built, rows[index].crystal)
        rebuilt.append(Rebuilt(rows[index], built, solution, np.nan if rms is None else rms, seconds))
    return rebuilt, wall


def _expensive_first(rebuilder: Rebuilder, crystals: list[Crystal]) -> list[int]:
    """As the farm does, so that no thread is left with a long one at the end."""
    costs = rebuilder.costs(
        np.array([len(c) for c in crystals], float),
        np.array([len(np.unique(c.numbers)) for c in crystals], float),
        np.array([c.volume for c in crystals]),
    )
    return np.argsort(-costs, kind="stable").tolist()


def report_misses(rebuilt: list[Rebuilt], unusable: list[Failure]) -> None:
    """Every row that does not match, and why."""
    for r in rebuilt:
        if np.isnan(r.rms):
            s, crystal = r.solution, r.row.crystal
            print(
                f"no match: row {r.row.number}, {crystal.formula}, {len(crystal)} atoms, residual {s.residual:.3g}, "
                f"{s.stop_reason}, confidence {s.confidence:.2f}, {r.seconds:.2f} s"
            )
    for kind, count in Counter(f.kind for f in unusable).items():
        print(f"no crystal: {count} rows, {kind}")


def figures(rebuilt: list[Rebuilt], n: int, wall: float, args: argparse.Namespace) -> dict[str, Any]:
    """What the last line holds."""
    rms, seconds = np.array([r.rms for r in rebuilt]), np.array([r.seconds for r in rebuilt])
    matched = rms[~np.isnan(rms)]
    digest = hashlib.blake2b(digest_size=8)
    for r in rebuilt:
        digest.update(r.crystal.lattice.tobytes() + r.crystal.frac.tobytes())
    solutions = [r.solution for r in rebuilt]
    return {
        "n": n,
        "match_rate": round(len(matched) / n, 4),
        "rmse": round(float(matched.mean()), 5) if len(matched) else None,
        "seconds_mean": round(float(seconds.mean()), 4),
        "seconds_median": round(float(np.median(seconds)), 4),
        "converged": round(float(np.mean([s.stop_reason == "converged" for s in solutions])), 4),
        "threads": args.threads,
        "seconds_max": round(float(seconds.max()), 3),
        "structures_per_s": round(len(rebuilt) / wall, 3),
        "residual_median": float(f"{np.median([s.residual for s in solutions]):.3g}"),
        "confidence_mean": round(float(np.mean([s.confidence for s in solutions])), 3),
        "work_mean": round(float(np.mean([s.iterations for s in solutions])), 1),
        "digest": digest.hexdigest(),
    }


def _progress(what: str, total: int) -> tqdm:
    """A bar on a terminal, else a line now and then; on stderr."""
    return tqdm(total=total, desc=what, mininterval=0.2 if sys.stderr.isatty() else 20.0, delay=2.0)


def _shown(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    with _progress(what, total if total is not None else len(items)) as bar:
        for item in items:
            yield item
            bar.update()


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        raise SystemExit(str(error)) from None
