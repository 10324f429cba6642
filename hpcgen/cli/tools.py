"""Commands that make and read files: `inspect`, `export`, `reference fetch`, `reference build`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcgen.errors import EXIT_OK, UsageError


def offer(commands: Any) -> None:
    """All of them."""
    inspect = commands.add_parser(
        "inspect",
        help="print what a file of a run folder holds, or plot how the training of a run goes",
        epilog="Example: hpcgen inspect runs/quickstart/candidates.h5, or hpcgen inspect runs/quickstart",
    )
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="HDF5 file of a run folder, or the folder")
    inspect.add_argument("--verify", action="store_true", help="check every record against its checksum")
    inspect.set_defaults(handler=_inspect)
    _offer_references(commands)
    _offer_export(commands)


def _offer_references(commands: Any) -> None:
    """`hpcgen reference fetch` and `hpcgen reference build`, which need no campaign."""
    stage = commands.choices["reference"]
    stage.description += ". `hpcgen reference fetch` and `hpcgen reference build` make a file for hull.reference."
    fetch = commands.add_parser(
        "reference-fetch",
        prog="hpcgen reference fetch",
        help="fetch the Materials Project's energies into a file (on a login node)",
        description="Fetch what competes in some chemical systems, or everything, through mp-api. The key is read from "
        "the environment variable MP_API_KEY and stored nowhere.",
        epilog="Example: hpcgen reference fetch --systems Li-Ti-O Li-Fe-P-O -o mp.h5",
    )
    which = fetch.add_mutually_exclusive_group(required=True)
    which.add_argument("--systems", nargs="+", metavar="A-B-C", help="chemical systems, with all their subsystems")
    which.add_argument("--all", action="store_true", help="the whole database (some 150,000 entries)")
    fetch.set_defaults(handler=_reference_fetch)
    build = commands.add_parser(
        "reference-build",
        prog="hpcgen reference build",
        help="make a reference from a file of energies",
        description="Make a reference from pymatgen ComputedEntries (.json, .json.gz), from a CSV of formation "
        "energies with --elements, from a CSV of energies by one calculator with --scale, or from a run's relaxations.",
        epilog="Example: hpcgen reference build mp-computed-structure-entries.json.gz -o mp.h5",
    )
    build.add_argument("file", type=Path, metavar="FILE", help="the file of energies")
    build.add_argument("--elements", type=Path, metavar="FILE", help="ComputedEntries of the elements (json, json.gz)")
    build.add_argument("--scale", metavar="NAME", help="energy scale of a calculator's own, uncorrected energies")
    build.set_defaults(handler=_reference_build)
    for parser in (fetch, build):
        parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.h5", help="the file to write")


def _reference_fetch(arguments: argparse.Namespace) -> int:
    from hpcgen.stages import reference_files

    systems = [system.split("-") for system in arguments.systems or ()]
    print(reference_files.fetch_snapshot(arguments.output, systems))
    return EXIT_OK


def _reference_build(arguments: argparse.Namespace) -> int:
    from hpcgen.stages import reference_files

    made = reference_files.build_snapshot(
        arguments.output, arguments.file, elements=arguments.elements, scale=arguments.scale
    )
    print(made)
    return EXIT_OK


def _inspect(arguments: argparse.Namespace) -> int:
    from hpcgen import store
    from hpcgen.report import training

    for file in arguments.files:
        if not file.exists():
            raise UsageError(f"there is no file {file}", remedy="give a run folder, or an HDF5 file of one")
        if file.is_dir():
            print("\n".join(training.inspect(file)))
            continue
        print(store.describe_file(file))
        if arguments.verify:
            with store.open(file) as f:
                f.verify()
                print(f"verified: all {len(f)} records match their checksums")
    return EXIT_OK


def _offer_export(commands: Any) -> None:
    """`hpcgen export RUN --format FORMAT`."""
    from hpcgen.analysis import FORMATS

    does = "write the crystals of a run in the format of another program"
    parser = commands.add_parser(
        "export",
        help=does,
        description=f"{does.capitalize()}. Formats: docs/analysis.md.",
        epilog="Example: hpcgen export runs/quickstart --format extxyz --max-e-hull 0.08 --unique --novel",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="what to write")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="file or folder (default: in the run folder)")
    parser.add_argument(
        "--table", help="where the crystals come from (default: stability; for lemat and cdvae candidates)"
    )
    parser.add_argument("--max-e-hull", type=float, metavar="E", help="only what lies at or below E eV/atom")
    for flag in ("unique", "novel", "converged"):
        parser.add_argument(f"--{flag}", action="append_const", dest="flags", const=flag, help=f"only what is {flag}")
    parser.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace) -> int:
    from hpcgen.analysis import Run, export
    from hpcgen.analysis.export import default_name

    with Run(arguments.run) as run:
        out = arguments.output or default_name(run, arguments.format)
        flags = tuple(arguments.flags or ())
        count = export(run, arguments.format, out, table=arguments.table, max_e_hull=arguments.max_e_hull, flags=flags)
    print(f"{count} crystals: {out}")
    return EXIT_OK
