"""Python, packages and hpcgen itself: complete, and the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from hpcgen.config import Config
from hpcgen.doctor.finding import Facts, Finding, differing, some

SHOWN = ("numpy", "scipy", "torch", "pymatgen", "ase", "numba", "smact")


def findings(ranks: Sequence[Facts], config: Config | None) -> Iterator[Finding]:
    first = ranks[0]
    yield _same(ranks, ("python", "interpreter"), "python", f"{first['python']}, {first['interpreter']}")
    commit = f", commit {first['commit']}" if first["commit"] else ""
    yield _same(ranks, ("hpcgen", "commit", "config"), "hpcgen", first["hpcgen"] + commit)
    yield _packages(ranks)
    if config is not None and config.relax.calculator == "chgnet" and find_spec("chgnet") is None:
        yield Finding(
            "problem",
            "chgnet",
            "not installed, and relax.calculator is chgnet",
            "pip install 'hpcgen[mlip]', or choose another calculator",
        )


def _same(ranks: Sequence[Facts], keys: Sequence[str], subject: str, found: str) -> Finding:
    for key in keys:
        others = differing(ranks, key)
        if others:
            other = ranks[others[0]]
            return Finding(
                "problem",
                subject,
                f"rank 0 on {ranks[0]['host']} has {key} {ranks[0][key]!r}, but {_ranks(others)} "
                f"(on {other['host']}) {other[key]!r}",
                "activate the same environment and use the same configuration on every node",
            )
    return Finding("ok", subject, found + (f"; the same on all {len(ranks)} ranks" if len(ranks) > 1 else ""))


def _packages(ranks: Sequence[Facts]) -> Finding:
    first = ranks[0]
    for i, facts in enumerate(ranks):
        if facts["unmet"]:
            found = f"rank {i} on {facts['host']} lacks {some(facts['unmet'])}"
            return Finding("problem", "packages", found, "pip install --upgrade hpcgen in the environment of that node")
    others = differing(ranks, "packages") or differing(ranks, "hdf5")
    if others:
        mine, other = first["packages"], ranks[others[0]]["packages"]
        names = [name for name in sorted({*mine, *other}) if mine.get(name) != other.get(name)] or ["HDF5"]
        return Finding(
            "problem",
            "packages",
            f"{_ranks(others)} have other versions than rank 0 of {some(names)}",
            "activate the same environment on every node",
        )
    versions = first["packages"]
    shown = [f"{name} {versions[name]}" for name in (*SHOWN, "chgnet") if name in versions]
    shown.insert(2, f"h5py {versions['h5py']} (HDF5 {first['hdf5']})")
    if "chgnet" not in versions:
        shown.append("no chgnet")
    return Finding("ok", "packages", ", ".join(shown))


def _ranks(numbers: Sequence[int]) -> str:
    return ("rank " if len(numbers) == 1 else "ranks ") + some(numbers)
