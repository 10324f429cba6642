"""Scanning and merging the shards of a large stage: time and memory on rank 0.

    python benchmarks/merge.py --shards 1000 --records 1000000

Makes shards of candidates as `hpcgen reconstruct` leaves them, the tasks dealt to ranks and commits at random, and
one in a hundred a failure. Then one process does what rank 0 does at the end of the stage: look for every result,
checking digests, and write the output file in the order of the tasks. The last line is one JSON object; `rank0_rss_mb`
is the resident memory after the scan, `peak_rss_mb` the largest of the whole process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.crystal import Crystal
from hpcgen.errors import Failure
from hpcgen.farm.shards import Catalogue, shard_path
from hpcgen.flow import Candidate, make_id

FAILURES = 100  # one task in so many fails
TEMPLATES = 500  # different crystals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000, help="ranks that have written")
    parser.add_argument("--records", type=int, default=1_000_000, help="tasks in all")
    parser.add_argument("--atoms", type=int, default=10, help="mean number of atoms of a crystal")
    parser.add_argument("--commit", type=int, default=50, help="results a commit (one or two a second of work)")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        # in a process of its own, so that its memory does not count
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, args))
        begin = time.perf_counter()
        maker.start()
        maker.join()
        if maker.exitcode != 0:
            raise SystemExit("the shards could not be made")
        size = sum(p.stat().st_size for p in folder.iterdir())
        print(f"made {args.shards} shards, {size / 1e6:.0f} MB, in {time.perf_counter() - begin:.1f} s")
        print(json.dumps(measure(folder, args)))


def make(folder: Path, args: argparse.Namespace) -> None:
    """Write the shards."""
    rng = np.random.default_rng(0)
    templates = [candidate(rng, args.atoms) for _ in range(TEMPLATES)]
    for rank, tasks in enumerate(np.array_split(rng.permutation(args.records), args.shards)):
        writer = store.ShardWriter(shard_path(folder, 1, rank), Candidate)
        for i in tasks.tolist():
            sample, identity = make_id("merge", "sample", i), make_id("merge", "reconstruct", i)
            result: Candidate | Failure = replace(templates[i % TEMPLATES], id=identity, sample_id=sample)
            if i % FAILURES == 0:
                result = Failure(sample, "reconstruct", "impossible-cell", "the angles do not close to a cell")
            writer.append(result, sample)
            if writer.pending == args.commit:
                writer.commit()
        writer.seal()


def candidate(rng: np.random.Generator, atoms: int) -> Candidate:
    """A candidate with a crystal of about so many atoms."""
    n = int(rng.integers(1, 2 * atoms))
    crystal = Crystal(5 * np.eye(3) + rng.random((3, 3)), rng.random((n, 3)), rng.integers(1, 90, n))
    reason = str(rng.choice(["converged", "noise-floor", "budget"]))
    repair = "" if rng.random() < 0.8 else "Sr2.41 Ti1.12 O5.90 made Sr2 Ti O6"
    residual, work, agreed = rng.random(), int(rng.integers(5000)), rng.random()
    symmetry = str(rng.choice(["", "Pm-3m (221)", "P2_1/c (14)"]))
    blocks = rng.random(2)
    return Candidate(
        *("", crystal, "", "representation", residual, work, reason, agreed, repair),
        *(rng.random(), symmetry, rng.random(), blocks, 0.1),
    )


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Scan and merge in this process."""
    ids = sample_ids(args.records)
    begin = time.perf_counter()
    catalogue = Catalogue(folder, ids, Candidate)
    catalogue.scan()
    scanned = time.perf_counter()
    rss = resident()
    print(f"scanned in {scanned - begin:.1f} s: {catalogue.records} records, {rss:.0f} MB resident")
    output = folder / "candidates.h5"
    catalogue.write(output)
    merged = time.perf_counter()
    with store.open(output) as f:
        if len(f) != catalogue.records or len(f) + len(f.failures) != args.records:
            raise SystemExit("the output does not hold one result per task")
    return {
        "shards": args.shards,
        "records": args.records,
        "scan_s": round(scanned - begin, 2),
        "merge_s": round(merged - scanned, 2),
        "rank0_rss_mb": round(rss, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "file_mb": round(output.stat().st_size / 2**20, 1),
    }


def sample_ids(count: int) -> NDArray[np.bytes_]:
    """(M,) S16."""
    ids = np.empty(count, "S16")
    for i in range(count):
        ids[i] = make_id("merge", "sample", i)
    return ids


def resident() -> float:
    """Memory of this process that is in use now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
