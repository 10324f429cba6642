"""Novelty of many candidates against many references: time, comparisons, agreement with plain StructureMatcher.

    python benchmarks/novelty.py                       # 2,000 against 7,000, rows of MP-20 and MPTS-52; $HPCGEN_DATA
    python benchmarks/novelty.py --csv data:carbon_24_val.csv.gz --candidates 400 --references 1200   # one formula

References are drawn rows. Half of the candidates are references with displaced atoms and a strained cell in a
supercell or another setting, half are drawn from all rows; half of these keep their formula but get other positions.
Test rows (every fifth) are left out. The verdicts on a sample of the candidates that share a formula with a reference
are compared with those of plain `StructureMatcher().fit` against all references of their formula, crystals as they are.

Times are seconds of one core. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
import warnings
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from hpcgen.config import resolve_path
from hpcgen.crystal import Crystal, from_structure, to_structure
from hpcgen.screen import Effort, find_duplicates, find_known


def read(paths: list[Path], n: int, rng: np.random.Generator) -> list[Crystal]:
    """Up to n crystals drawn from the rows that are no test rows."""
    cifs = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as f:
            cifs += [row["cif"] for i, row in enumerate(csv.DictReader(f)) if i % 5 != 4]
    chosen = rng.permutation(len(cifs))[:n]
    return [from_structure(Structure.from_str(cifs[i], fmt="cif")) for i in chosen]


def altered(crystal: Crystal, rng: np.random.Generator, amplitude: float) -> Crystal:
    """Atoms displaced by `amplitude` angstrom (root mean square), the cell strained by 1 %, in a sheared setting."""
    strain = np.eye(3) + rng.normal(0, 0.01, (3, 3))
    lattice = crystal.lattice @ strain
    cart = crystal.frac @ lattice + rng.normal(0, amplitude / np.sqrt(3), (len(crystal), 3))
    setting = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ lattice
    return Crystal(setting, cart @ np.linalg.inv(setting), crystal.numbers)


def scrambled(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """The same atoms in the same cell anywhere."""
    return Crystal(crystal.lattice, rng.random((len(crystal), 3)), crystal.numbers)


def main() -> None:
    """Measure, compare, print, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["data:mp_20_biternary_val.csv.gz", "data:mpts_52_val.csv.gz"]
    parser.add_argument("--csv", nargs="+", default=default, help="tables with a `cif` column, gzip")
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--references", type=int, default=7000)
    parser.add_argument("--sample", type=int, default=300, help="candidates compared with plain StructureMatcher")
    parser.add_argument("--displacement", type=float, default=0.1, help="angstrom, of the altered references")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(arguments.seed)
    rows = read([resolve_path(c) for c in arguments.csv], arguments.references + arguments.candidates, rng)
    references = rows[: arguments.references]
    candidates = []
    for i in range(arguments.candidates):
        if i % 2 == 0:
            candidates.append(altered(references[rng.integers(len(references))], rng, arguments.displacement))
        elif i % 4 == 1:
            candidates.append(rows[rng.integers(len(rows))])
        else:
            candidates.append(scrambled(references[rng.integers(len(references))], rng))
    find_known(candidates[:2], references[:50])  # imports
    effort, uniqueness = Effort(), Effort()
    start = time.process_time()
    known = find_known(candidates, references, effort)
    novelty_s = time.process_time() - start
    start = time.process_time()
    duplicates = find_duplicates(candidates, uniqueness)
    uniqueness_s = time.process_time() - start

    matcher = StructureMatcher()
    by_formula: dict[str, list[Structure]] = {}
    for reference in references:
        by_formula.setdefault(reference.formula, []).append(to_structure(reference))
    sample = [i for i in rng.permutation(len(candidates)) if candidates[i].formula in by_formula][: arguments.sample]
    start = time.process_time()
    plain, compared = [], 0
    for i in sample:
        own, found = to_structure(candidates[i]), False
        for reference in by_formula[candidates[i].formula]:
            compared += 1
            if matcher.fit(reference, own):
                found = True
                break
        plain.append(found)
    plain_s = time.process_time() - start
    agree = sum(known[i] == found for i, found in zip(sample, plain, strict=True))
    result = {
        "candidates": len(candidates),
        "references": len(references),
        "all_pairs": effort.all_pairs,
        "alike": effort.alike,
        "other_lattice": effort.other_lattice,
        "comparisons": effort.comparisons,
        "known": int(sum(known)),
        "novelty_s": round(novelty_s, 1),
        "uniqueness_s": round(uniqueness_s, 1),
        "uniqueness_comparisons": uniqueness.comparisons,
        "duplicates": sum(d >= 0 for d in duplicates),
        "sample": len(sample),
        "sample_known": int(sum(plain)),
        "sample_agree": int(agree),
        "plain_s_per_comparison": round(plain_s / max(compared, 1), 5),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
