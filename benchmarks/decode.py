"""Numbers of atoms, positions and time of decoding clouds of real crystals, exact or noisy.

    python benchmarks/decode.py --csv data/mp_20_biternary_val.csv.gz
    python benchmarks/decode.py --csv ... --noise 0.05 --seeds 5 --threads 2
    python benchmarks/decode.py --csv ... --max-sites 52 --max-elements 7 --points 256 --split tune

Every row's crystal (Niggli cell) within the limits is encoded as a cloud, points in random order; noise is added, the
cloud is decoded, and the crystal is compared with what was there. `--noise S` adds S z, z normal, to every number of
the 3 x P x 3 array in PCCD's units: coordinates and elements 0 to 1, lengths / 15 angstrom, angles / 180 degrees, all
then mapped to -1..1; longer cells included.

count_exact            share of rows whose number of atoms is right for each element
position_error_*_A     of the rows with exact counts: distance of each atom to where it was, in the true cell, atoms of
                       an element paired so that the squares are least; maximum and root mean square
oracle_error_rms_A     the same for the means of an oracle that knows the atom of every point: a lower bound
length_error_rms       relative error of a, b, c
polished_*, symmetric  with `--polish`: the same errors after polish, and the share of exact rows that got a symmetry
clouds_per_s           clouds decoded per second and thread, CPU time, compilation left out
naive_clouds_per_s     of scikit-learn as it comes, one thread, on the first `--naive` rows: for each element DBSCAN to
                       count the clusters, then KMeans with that number, both with their defaults
naive_count_exact      share of those rows whose counts it gets right
exact_by_separation    with noise: rows and share of exact counts by how far the nearest two atoms of one element are
                       apart, in standard deviations of the noise of a coordinate (fractional, on the torus)

`skipped` counts rows that are no usable crystal or beyond the limits, `rejected` clouds that did not decode (they count
as not exact). With `--seeds K` accuracies are means over K seeds of noise, and `spread` holds the range of count_exact.
Every fifth row of a file (number % 5 == 4, from 0) is test, the others are there to tune on. Last line: JSON.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: CPU time is that of one thread

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from decode_limit import by_separation, separation
from scipy.optimize import linear_sum_assignment

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.data import available_cores
from hpcgen.data.gate import MAX_ATOMIC_NUMBER, Limits, admit
from hpcgen.data.sources import RawItem, raw_items
from hpcgen.errors import Failure, HpcgenError
from hpcgen.flow import seed_of
from hpcgen.pointcloud.cloud import Cloud, CloudCodec, CloudScales, wrapped
from hpcgen.pointcloud.decode import Decoded, decode_many, warm_up
from hpcgen.pointcloud.polish import polish
from hpcgen.represent.composition import order_elements

PAPER_LENGTH = 15.0  # angstrom: PCCD's unit of lengths
FIFTH = 5
BLOCK = 500  # clouds held at a time
APART = ("exact", "position_error_max_A")  # figures that are no means over seeds


class Row(NamedTuple):
    """A crystal, its slots, its number in the file, and its cloud before and after noise."""

    number: int
    crystal: Crystal
    slots: tuple[int, ...]
    exact: Cloud
    noisy: Cloud


def main(argv: Sequence[str] | None = None) -> None:
    """Read, encode, perturb, decode, compare, print."""
    args = _arguments(argv)
    codec = CloudCodec(CloudScales(args.points, args.max_elements, args.max_sites, length_unit=PAPER_LENGTH))
    crystals, skipped = read(args)
    if not crystals:
        raise SystemExit(f"no row of {args.csv} passes the filters")
    warm_up()
    seeds = [measure(crystals, codec, seed, args) for seed in range(args.seed, args.seed + args.seeds)]
    first = [perturbed(*item, codec, args.noise, args.seed) for item in crystals[: args.naive]]
    counts = [s["count_exact"] for s in seeds]
    separations = np.array([separation(crystal) for _, crystal in crystals])
    naive_rate, naive_exact = naive(first) if first else (None, None)
    print(
        json.dumps(
            {
                "n": len(crystals),
                "skipped": skipped,
                **{key: float(f"{np.mean([s[key] for s in seeds]):.5g}") for key in seeds[0] if key not in APART},
                "position_error_max_A": float(f"{max(s['position_error_max_A'] for s in seeds):.3g}"),
                "naive_clouds_per_s": naive_rate,
                "naive_count_exact": naive_exact,
                "exact_by_separation": by_separation(separations, [s["exact"] for s in seeds], args.noise),
                "noise": args.noise,
                "seeds": args.seeds,
                "spread": round(max(counts) - min(counts), 5),
            }
        )
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="table with a `cif` column, plain or gzip")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation in the paper's scaled units")
    parser.add_argument("--n", type=int, help="rows drawn at random of those that pass the filters (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of points, noise and the rows drawn")
    parser.add_argument("--seeds", type=int, default=1, help="seeds to average over, from --seed on")
    parser.add_argument("--split", choices=("all", "tune", "test"), default="all")
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--max-sites", type=int, default=16)
    parser.add_argument("--max-elements", type=int, default=3)
    parser.add_argument("--naive", type=int, default=100, help="rows for scikit-learn (0: leave it out)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--polish", action="store_true", help="also measure what polish makes of the errors")
    parser.add_argument("--misses", action="store_true", help="print each row that is not exact")
    args = parser.parse_args(argv)
    if min(args.seeds, args.threads) < 1 or args.noise < 0 or args.naive < 0 or (args.n is not None and args.n < 1):
        parser.error("--n, --seeds and --threads must be at least 1, --noise and --naive at least 0")
    return args


def read(args: argparse.Namespace) -> tuple[list[tuple[int, Crystal]], int]:
    """(number, crystal) of the rows within the limits, and how many rows of the split are not; `args.n` at random."""
    split = {"all": (True, True), "tune": (True, False), "test": (False, True)}[args.split]
    items = [(i, item) for i, item in enumerate(raw_items(args.csv)) if split[i % FIFTH == FIFTH - 1]]
    if args.n is not None:
        items = [items[i] for i in np.random.default_rng(args.seed).permutation(len(items))]
    found: list[tuple[int, Crystal]] = []
    kinds: Counter[str] = Counter()
    limits = Limits(args.max_sites, args.max_elements, frozenset(range(1, MAX_ATOMIC_NUMBER + 1)))
    for number, crystal in _admitted(items, limits, parallel=args.n is None):
        if isinstance(crystal, Failure):
            kinds[crystal.kind] += 1
            continue
        found.append((number, crystal))
        if len(found) == args.n:
            break
    for kind, count in kinds.items():
        print(f"skipped: {count} rows, {kind}")
    return found, sum(kinds.values())


def _admitted(
    items: list[tuple[int, RawItem]], limits: Limits, parallel: bool
) -> Iterator[tuple[int, Crystal | Failure]]:
    admit_item = partial(_admit, limits=limits)
    if not parallel or len(items) < BLOCK:
        yield from map(admit_item, items)
        return
    with ProcessPoolExecutor(available_cores(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(admit_item, items, chunksize=32)


def _admit(item: tuple[int, RawItem], limits: Limits) -> tuple[int, Crystal | Failure]:
    return item[0], admit(item[1], limits)


def perturbed(number: int, crystal: Crystal, codec: CloudCodec, noise: float, seed: int) -> Row:
    """A crystal's cloud, with noise that depends on seed and row alone: half of `noise`, which is meant in -1..1."""
    rng = np.random.default_rng(seed_of(seed, str(number), "decode"))
    slots = order_elements(crystal.numbers.tolist())
    exact = codec.encode(crystal, slots, rng)
    position, element, lattice = (v + noise / 2 * rng.standard_normal(v.shape) for v in exact)
    return Row(number, crystal, slots, exact, Cloud(wrapped(position), element, lattice))


def measure(
    crystals: list[tuple[int, Crystal]], codec: CloudCodec, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one seed; `exact`: (n,) whether each row's counts are."""
    exact, rejected = np.zeros(len(crystals), dtype=bool), 0
    errors, floors, lengths = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    polished = Polish()
    seconds = 0.0
    for begin in range(0, len(crystals), BLOCK):
        rows = [perturbed(*item, codec, args.noise, seed) for item in crystals[begin : begin + BLOCK]]
        start = time.process_time()
        results = decode_many([r.noisy for r in rows], [r.slots for r in rows], codec.scales, threads=args.threads)
        seconds += time.process_time() - start
        for i, (row, result) in enumerate(zip(rows, results, strict=True), begin):
            squares = None if isinstance(result, str) else squared_errors(result.crystal, row.crystal)
            rejected += isinstance(result, str)
            if squares is not None:
                exact[i] = True
                errors.append(squares)
                floors.append(oracle(row))
                lengths.append((result.crystal.parameters[:3] / row.crystal.parameters[:3] - 1) ** 2)
                if args.polish:
                    polished.add(row, result)
            elif args.misses:
                print(_miss(row, result))
    total = np.concatenate(errors)
    return {
        "exact": exact,
        "count_exact": float(exact.mean()),
        "rejected": rejected,
        "position_error_max_A": float(np.sqrt(total.max(initial=0.0))),
        "position_error_rms_A": float(np.sqrt(total.mean())) if exact.any() else float("nan"),
        "oracle_error_rms_A": float(np.sqrt(np.concatenate(floors).mean())) if exact.any() else float("nan"),
        "length_error_rms": float(np.sqrt(np.concatenate(lengths).mean())) if exact.any() else float("nan"),
        "clouds_per_s": len(crystals) / seconds,
        **polished.figures(),
    }


class Polish:
    """What polish makes of the errors of decoded clouds."""

    def __init__(self) -> None:
        self.errors: list[FloatArray] = []
        self.lengths: list[FloatArray] = []
        self.symmetric: list[bool] = []

    def add(self, row: Row, decoded: Decoded) -> None:
        """A cloud whose counts are exact."""
        found = polish(decoded, row.noisy, row.slots)
        squares = squared_errors(found.crystal, row.crystal)
        assert squares is not None  # polish changes no composition
        self.errors.append(squares)
        self.lengths.append((found.crystal.parameters[:3] / row.crystal.parameters[:3] - 1) ** 2)
        self.symmetric.append(bool(found.symmetry))

    def figures(self) -> dict[str, float]:
        """Nothing if nothing was polished."""
        if not self.errors:
            return {}
        return {
            "polished_error_rms_A": float(np.sqrt(np.concatenate(self.errors).mean())),
            "polished_length_error_rms": float(np.sqrt(np.concatenate(self.lengths).mean())),
            "symmetric": float(np.mean(self.symmetric)),
        }


def squared_errors(found: Crystal, true: Crystal) -> FloatArray | None:
    """(n,) squared distances of atoms to where they were, angstrom^2; None if an element's number of them is wrong."""
    out = np.zeros(len(true))
    for z in np.union1d(found.numbers, true.numbers):
        here, there = found.frac[found.numbers == z], true.frac[true.numbers == z]
        if len(here) != len(there):
            return None
        squares = _squares(here[:, None] - there[None], true)
        pairs = linear_sum_assignment(squares)
        out[true.numbers == z] = squares[pairs]
    return out


def oracle(row: Row) -> FloatArray:
    """(n,) squared errors of the circular means of each atom's points, told which they are."""
    atoms, of = np.unique(row.exact.position, axis=0, return_inverse=True)
    away = row.noisy.position - atoms[of.ravel()]
    away -= np.rint(away)
    means = [away[of.ravel() == k].mean(axis=0) for k in range(len(atoms))]
    return _squares(np.array(means), row.crystal)


def _squares(away: FloatArray, crystal: Crystal) -> FloatArray:
    return (((away - np.rint(away)) @ crystal.lattice) ** 2).sum(axis=-1)


def _miss(row: Row, result: Decoded | str) -> str:
    counts = [int((row.crystal.numbers == z).sum()) for z in row.slots]
    if isinstance(result, str):
        told = result
    else:
        found = [int((result.crystal.numbers == z).sum()) for z in row.slots]
        told = f"{found} found, confidence {result.confidence:.2f}"
    apart = f"{row.crystal.smallest_distance():.2f} A, like atoms {separation(row.crystal):.3f} of the cell"
    return f"not exact: row {row.number}, {row.crystal.formula} {counts}, {apart}: {told}"


def naive(rows: list[Row]) -> tuple[float, float]:
    """Rate and share of exact counts of DBSCAN and KMeans as scikit-learn has them, for each element of each cloud."""
    from sklearn.cluster import DBSCAN, KMeans

    def counts(row: Row) -> list[int]:
        slot = row.noisy.element.argmax(axis=1)
        out = []
        for s in range(len(row.slots)):
            points = row.noisy.position[slot == s]
            found = len(set(DBSCAN().fit(points).labels_) - {-1}) if len(points) else 0
            if found:
                KMeans(n_clusters=found).fit(points)
            out.append(found)
        return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # KMeans tells of clusters that coincide
        counts(rows[0])  # what it loads does not count
        start = time.process_time()
        found = [counts(row) for row in rows]
        seconds = time.process_time() - start
    exact = sum(f == [int((r.crystal.numbers == z).sum()) for z in r.slots] for f, r in zip(found, rows, strict=True))
    return round(len(rows) / seconds, 2), round(exact / len(rows), 4)


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        raise SystemExit(str(error)) from None
