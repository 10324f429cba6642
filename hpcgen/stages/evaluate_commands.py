"""The command lines of `hpcgen evaluate generation|reconstruction|csp|sun`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcgen.errors import EXIT_OK, UsageError

WHAT = {
    "generation": "validity, coverage, EMD, uniqueness and novelty of generated crystals",
    "reconstruction": "match rate and RMSE of crystals that are paired with real ones",
    "csp": "match rate, RMSE, METRe and cRMSE of predicted crystals, and distances to the real ones",
    "sun": "stable, unique and novel shares after relaxation by the ML potential",
}


def offer(what: Any) -> None:
    """Add a command for each to the subparsers of `hpcgen evaluate`."""
    for name, does in WHAT.items():
        sub = what.add_parser(
            name,
            help=does,
            description=f"Prints a table and writes evaluation-{name}.json: {does}. Definitions: docs/evaluation.md.",
            epilog=f"Example: hpcgen evaluate {name} --reference data:perov_5_val.csv.gz --own-split runs/perov5",
        )
        sub.add_argument(
            "runs",
            nargs="+",
            type=Path,
            metavar="RUN",
            help="run folder, HDF5 file, folder of CIFs, CSV, extxyz, or `.pt` of CDVAE; several: seeds of one model",
        )
        sub.add_argument("--reference", required=True, metavar="FILE", help="the real crystals, such as a CSV of CIFs")
        sub.add_argument("--training", metavar="FILE", help="the training crystals (default: those of the run folder)")
        sub.add_argument(
            "--own-split",
            action="store_true",
            help="rows of the reference with number %% 5 == 4 (from 0) are the reference, the others training rows",
        )
        sub.add_argument("--processes", type=int, metavar="P", help="processes (default: one per core)")
        sub.add_argument("--seed", type=int, default=0, help="of random draws (default: 0)")
        sub.add_argument("--draws", type=int, default=5, help="random draws that a mean is taken over (default: 5)")
        sub.add_argument("--cache", type=Path, metavar="DIR", help="of fingerprints (default: $HPCGEN_CACHE)")
        sub.add_argument(
            "-o", "--output", type=Path, metavar="DIR", help="of the JSON (default: RUN if it is a folder)"
        )
        sub.add_argument("--dry-run", action="store_true", help="print what would be done and do nothing")
        sub.add_argument(
            "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="more detail in the log"
        )
        sub.set_defaults(handler=evaluate)
        if name == "generation":
            sub.add_argument(
                "--data",
                choices=("perov", "carbon", "mp"),
                default="",
                help="whose coverage thresholds (default: by name)",
            )
            sub.add_argument("--energy", action="store_true", help="EMD of energies by the ML potential too")
        if name == "csp":
            sub.add_argument("--distances", action="store_true", help="those of CSPBenchMetrics too, about 1 s a row")
        if name == "sun":
            sub.add_argument(
                "--hull",
                metavar="FILE",
                help="reference.h5, or CSV of formation energies (default: RUN's own stability.h5, nothing is relaxed)",
            )
            sub.add_argument("--elements", metavar="FILE", help="elemental ComputedEntries (json.gz) for a CSV")
        if name in ("generation", "csp", "sun"):
            sub.add_argument("--calculator", default="chgnet", help="the ML potential (default: chgnet)")
            sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="of it (default: cpu)")


def _check_writable(folder: Path) -> None:
    """Return if the result can be written there: that is not found out after hours.

    Raises:
        UsageError: if not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error}", remedy="name another folder with -o") from None


def evaluate(arguments: argparse.Namespace) -> int:
    """Run one of them; returns the exit code."""
    from hpcgen.config import HullConfig, RelaxConfig
    from hpcgen.data import available_cores
    from hpcgen.evaluate import table
    from hpcgen.evaluate.cache import default_folder
    from hpcgen.stages import evaluate as stage
    from hpcgen.stages import evaluate_result as written
    from hpcgen.stages.evaluate_inputs import Request

    processes = arguments.processes if arguments.processes is not None else available_cores()
    if processes < 1 or arguments.draws < 1:
        raise UsageError("--processes and --draws count from 1")
    first: Path = arguments.runs[0]
    folder = arguments.output or (first if first.is_dir() else Path())
    name = arguments.experiment
    if arguments.dry_run:
        print(f"would run: {', '.join(map(str, arguments.runs))} -> {folder / f'evaluation-{name}.json'}")
        return EXIT_OK
    _check_writable(folder)
    request = Request(
        runs=tuple(arguments.runs),
        reference=arguments.reference,
        training=arguments.training,
        own_split=arguments.own_split,
        kind=getattr(arguments, "data", ""),
        processes=processes,
        cache=arguments.cache or default_folder(),
        seed=arguments.seed,
        draws=arguments.draws,
    )

    def potential() -> RelaxConfig:
        return RelaxConfig(calculator=arguments.calculator, device=arguments.device)

    experiments: dict[str, Callable[[], dict[str, Any]]] = {
        "generation": lambda: stage.generation_of(request, potential() if arguments.energy else None),
        "reconstruction": lambda: stage.reconstruction_of(request),
        "csp": lambda: stage.csp_of(request, potential() if arguments.distances else None),
        "sun": lambda: stage.sun_of(
            request,
            HullConfig(reference=arguments.hull, elements=arguments.elements) if arguments.hull else None,
            potential(),
        ),
    }
    result = experiments[name]()
    print(table.table(written.columns(result)))
    path = written.write(result, folder)
    print(f"written: {path}")
    print(table.line(result["mean"]))
    return EXIT_OK
