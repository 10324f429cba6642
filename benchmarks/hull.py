"""Energies above the hull: speed, and difference to linear programmes and to pymatgen's PatchedPhaseDiagram.

    python benchmarks/hull.py                     # needs $HPCGEN_DATA; a minute
    python benchmarks/hull.py --patched 10000     # PatchedPhaseDiagram for all candidates: several minutes

The entries are mp_formation_energies.csv.gz plus the elements. Each candidate lies in a chemical system of the file,
drawn with equal chances, with 1 to 8 atoms of each element and an energy around that of its elements; all rates
include the construction, from entries in memory, and are per second of one core's time (other programs on the machine
do not count). Every energy is compared with HiGHS on all entries of its chemical
system. Then every row of the file is held against its own published energy above the hull: the file lacks
competitors, so what is computed may not lie higher.

The last line is one JSON object (keys: see the project's definition of figures).
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
from pymatgen.core import Composition

from hpcgen.config import resolve_path
from hpcgen.thermo import Hulls, Programme, ReferenceSet, from_formation_energies
from hpcgen.thermo.reference import parse_formula

TABLE = "data:mp_formation_energies.csv.gz"
ELEMENTS = "data:mp_elemental_reference_entries_2023-02-07.json.gz"


def candidates(reference: ReferenceSet, n: int, seed: int) -> list[tuple[Composition, float]]:
    """(composition, energy per atom) of n random candidates over the chemical systems of the reference."""
    rng = np.random.default_rng(seed)
    systems = sorted({tuple(sorted(parse_formula(e.formula))) for e in reference.entries})
    elements = Hulls(reference).elements
    out = []
    for _ in range(n):
        system = systems[rng.integers(len(systems))]
        counts = rng.integers(1, 9, size=len(system))
        composition = Composition({symbol: int(c) for symbol, c in zip(system, counts, strict=True)})
        mean = sum(composition.get_atomic_fraction(symbol) * elements[symbol] for symbol in system)
        out.append((composition, mean + rng.normal(-0.5, 0.5)))
    return out


def patched_rate(
    reference: ReferenceSet, phases: list[tuple[Composition, float]], ours: list[float]
) -> dict[str, float]:
    """PatchedPhaseDiagram on some candidates, built from the entries inside their chemical systems and no others."""
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry

    hulls = Hulls(reference)
    systems = {tuple(sorted(c.get_el_amt_dict())) for c, _ in phases}
    inside = {e.entry_id: e for system in systems for e in hulls.entries(system)}
    start = time.process_time()
    compositions = [(Composition(e.formula), e.energy_per_atom) for e in inside.values()]
    diagram = PatchedPhaseDiagram([PDEntry(c, energy * c.num_atoms) for c, energy in compositions])
    build = time.process_time() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [
            diagram.get_e_above_hull(PDEntry(c, e * c.num_atoms), allow_negative=True, check_stable=False)
            for c, e in phases
        ]
    seconds = time.process_time() - start
    return {
        "patched_candidates": len(phases),
        "patched_entries": len(inside),
        "patched_build_s": round(build, 2),
        "patched_queries_per_s": round(len(phases) / seconds, 1),
        "max_difference_to_patched_eV": float(np.abs(np.array(theirs) - ours).max()),
    }


def against_published(table: Path, elements: Path) -> dict[str, int]:
    """Rows by how their energy lies to the published one, on the hull of all rows and of one data set's alone."""
    with gzip.open(table, "rt", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    reference, _, _ = from_formation_energies(table, elements, "benchmark")
    energy = {e.entry_id: e.energy_per_atom for e in reference.entries}
    dataset = {row["material_id"]: row["dataset"] for row in rows}
    out = {"rows": len(rows), "rows_equal": 0, "rows_above": 0, "rows_above_within_dataset": 0, "members_off_zero": 0}
    everything = Hulls(reference)
    parts = {}
    for name in sorted(set(dataset.values())):
        own = tuple(e for e in reference.entries if e.element or dataset.get(e.entry_id) == name)
        parts[name] = Hulls(ReferenceSet(own, reference.scale, reference.thermo_type, reference.date, name))
    for row in rows:
        composition, published = Composition(row["formula"]), float(row["e_above_hull"])
        verdict = everything.judge(composition, energy[row["material_id"]])
        out["rows_equal"] += abs(verdict.e_hull - published) < 1e-3
        out["rows_above"] += verdict.e_hull > published + 1e-6
        alone = parts[row["dataset"]].judge(composition, energy[row["material_id"]])
        out["rows_above_within_dataset"] += alone.e_hull > published + 1e-6
        if row["material_id"] in verdict.competitors.split(" + "):  # what is on the hull decomposes into itself
            out["members_off_zero"] += verdict.e_hull != 0.0
    return out


def main() -> None:
    """Measure, print, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patched", type=int, default=500, help="candidates that PatchedPhaseDiagram is built for; 0: none"
    )
    arguments = parser.parse_args()
    table, elements = resolve_path(TABLE), resolve_path(ELEMENTS)
    start = time.process_time()
    reference, _, _ = from_formation_energies(table, elements, "benchmark")
    read = time.process_time() - start
    phases = candidates(reference, arguments.candidates, arguments.seed)
    Hulls(reference).judge(*phases[0])  # compiled
    start = time.process_time()
    hulls = Hulls(reference)
    build = time.process_time() - start
    verdicts = [hulls.judge(c, e) for c, e in phases]
    seconds = time.process_time() - start
    print(f"{len(phases)} candidates in {seconds:.2f} s, {build:.2f} s of them for the index", flush=True)
    programme = Programme(reference)
    start = time.process_time()
    expected = [e - programme.hull_energy(c.get_el_amt_dict()) for c, e in phases]
    by_programme = len(phases) / (time.process_time() - start)
    ours = [v.e_hull for v in verdicts]
    result = {
        "entries": len(reference.entries),
        "candidates": len(phases),
        "chemical_systems": len({c.chemical_system for c, _ in phases}),
        "read_s": round(read, 2),
        "build_s": round(build, 3),
        "queries_per_s": round(len(phases) / seconds, 1),
        "highs_queries_per_s": round(by_programme, 1),
        "max_difference_to_lp_eV": float(np.abs(np.array(expected) - ours).max()),
        "negative": sum(v.new_stable for v in verdicts),
        **against_published(table, elements),
    }
    if arguments.patched:
        print(json.dumps(result), flush=True)
        result |= patched_rate(reference, phases[: arguments.patched], ours[: arguments.patched])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
