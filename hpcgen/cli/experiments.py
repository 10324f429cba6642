"""Commands beside a campaign: round trips of real structures, and `hpcgen evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcgen import config, pipeline
from hpcgen.cli.common import campaign_command, context_of
from hpcgen.errors import EXIT_OK, UsageError
from hpcgen.farm.world import is_first
from hpcgen.stages import evaluate_commands
from hpcgen.stages.context import Context

# of any size and composition, as long as no configuration limits the data
ANY_STRUCTURE = "data: {max_atoms: 500, max_elements: 20}"


def offer(commands: Any) -> None:
    """`hpcgen evaluate WHAT`."""
    evaluate = commands.add_parser("evaluate", help="benchmark metrics of any generator, experiments on a trained one")
    what = evaluate.add_subparsers(dest="experiment", required=True, metavar="WHAT")
    evaluate_commands.offer(what)
    sub = campaign_command(what, "denoising", "put noise on real structures, take it off, and compare", _denoising)
    sub.epilog = "Example: hpcgen evaluate denoising configs/pccd_mp.yaml --n 500"
    sub.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="more detail in the log")
    sub.add_argument("--split", choices=("train", "validation", "test"), default="test", help="default: test")
    sub.add_argument("--n", type=int, metavar="N", help="structures drawn at random (default: all)")
    sub.add_argument("--starts", metavar="T,T,...", help="steps of noise (default: 100,250,500,750,1000)")
    sub.add_argument(
        "--distances", type=int, default=0, metavar="N", help="also the distances of CSPBenchMetrics of N structures"
    )


def _denoising(arguments: argparse.Namespace) -> int:
    from hpcgen.stages import denoising

    context = context_of(arguments)
    try:
        starts = [int(word) for word in arguments.starts.split(",")] if arguments.starts else list(denoising.STARTS)
        if min(starts) < 1 or (arguments.n is not None and arguments.n < 1) or arguments.distances < 0:
            raise ValueError
    except ValueError:
        raise UsageError(
            "--starts, --n or --distances cannot be read",
            expected="whole numbers from 1, such as --starts 250,500 --n 200",
        ) from None
    if arguments.dry_run:
        print(f"would run: checkpoint.pt, dataset.h5 -> {context.path(f'denoising-{arguments.split}.csv')}")
        return EXIT_OK
    context.check()
    result = denoising.run(context, split=arguments.split, n=arguments.n, starts=starts, distances=arguments.distances)
    print(denoising.line(result))
    return EXIT_OK


def offer_round_trips(parser: argparse.ArgumentParser, stage: Callable[[argparse.Namespace], int]) -> None:
    """`hpcgen reconstruct --structures FILE`, which needs no campaign; without, `stage` is what runs."""
    trip = parser.add_argument_group(
        "real structures", "Encode and rebuild them, in a folder of its own: how well does the representation invert?"
    )
    trip.add_argument(
        "--structures", metavar="FILE", help="CSV with a `cif` column, CIF, POSCAR, extxyz, dataset.h5, or `builtin`"
    )
    trip.add_argument("--n", type=int, metavar="N", help="structures drawn at random (default: all)")
    trip.add_argument("--noise", type=float, metavar="S", help="relative noise on the descriptor (default: 0)")
    trip.add_argument("--lattice-noise", type=float, metavar="L", help="relative noise on the cell (default: 0)")
    trip.add_argument(
        "-o", "--output", type=Path, dest="run_dir", metavar="DIR", help="the folder (default: runs/roundtrip-NAME)"
    )
    parser.epilog = "Example: hpcgen reconstruct configs/quickstart.yaml, or hpcgen reconstruct --structures NaCl.cif"
    parser.set_defaults(handler=lambda arguments: _reconstruct(arguments, stage))


def _reconstruct(arguments: argparse.Namespace, stage: Callable[[argparse.Namespace], int]) -> int:
    """The stage, or a round trip of real structures."""
    options = {key: getattr(arguments, key) for key in ("structures", "n", "noise", "lattice_noise")}
    given = [key for key, value in options.items() if value is not None]
    if "structures" not in given:
        if given or arguments.config is None:
            found = f"--{given[0].replace('_', '-')}" if given else "neither a configuration nor structures"
            raise UsageError(
                f"hpcgen reconstruct was given {found}" + (" without --structures" if given else ""),
                expected="hpcgen reconstruct CONFIG, or hpcgen reconstruct [CONFIG] --structures FILE",
            )
        return stage(arguments)
    from hpcgen.report.roundtrip import summary
    from hpcgen.stages import roundtrip

    # as JSON, which YAML reads as it is meant, whatever characters a path has
    settings = [f"roundtrip.{key}={json.dumps(options[key])}" for key in given]
    overrides = [*arguments.overrides, *settings]
    if arguments.config:
        campaign = config.load(arguments.config, overrides)
    else:
        campaign = config.loads(ANY_STRUCTURE, "the command line", overrides)
    name = Path(arguments.structures.removeprefix("data:")).name.split(".")[0]
    context = Context(campaign, arguments.run_dir or Path("runs") / f"roundtrip-{name}")
    s = pipeline.ROUNDTRIP
    roundtrip.source_of(context)  # before a folder is made for it
    if arguments.dry_run:
        state = "already done" if pipeline.done(context, s) and not arguments.redo else "would run"
        print(f"{state}: {arguments.structures} -> {context.path(s.writes)}")
        return EXIT_OK
    pipeline.run_stage(context, s.name, redo=arguments.redo)
    if is_first():
        print("\n".join(summary(context.path(s.writes))))
    return EXIT_OK
