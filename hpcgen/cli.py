"""The command line: `hpcgen run CONFIG`, one command per stage, `hpcgen inspect FILE`, `hpcgen doctor`.

A user's mistake ends with one message and a documented exit code (docs/commands.md), never with a traceback.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hpcgen import __version__, config, farm, pipeline
from hpcgen.errors import EXIT_INTERNAL, EXIT_OK, EXIT_REQUEUE, HpcgenError, LaunchError, UsageError
from hpcgen.farm.world import end_all, hide_log, is_first
from hpcgen.stages.context import Context

log = logging.getLogger("hpcgen")

# of any size and composition, as long as no configuration limits the data
ANY_STRUCTURE = "data: {max_atoms: 500, max_elements: 20}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    _set_up_logging(arguments.verbose)
    try:
        with _stop_signals(arguments.command):
            return arguments.handler(arguments)
    except _Stopped as error:
        return end_all(error, f"hpcgen: {error}; the same command goes on at the first unfinished stage", EXIT_REQUEUE)
    except HpcgenError as error:
        return end_all(error, f"hpcgen: {error}", error.exit_code)
    except KeyboardInterrupt:
        print("hpcgen: interrupted; the same command resumes", file=sys.stderr)
        return 130
    except Exception as error:
        ask = f"hpcgen: this is a bug in hpcgen {__version__}; please report it with the lines above"
        return end_all(error, f"{traceback.format_exc()}{ask}", EXIT_INTERNAL)


class _Stopped(BaseException):  # not to be taken for what is wrong with an item
    """SIGTERM or SIGUSR1, between the places where a stage looks for it itself."""


@contextmanager
def _stop_signals(command: str) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end this process with the code that batch scripts requeue on.

    The farm handles them itself, and loses nothing. The other stages start over, which is cheap, except training.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped(f"stopped by {signal.Signals(number).name}")

    numbers = () if command == "train" else (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hpcgen",
        description="Discover crystals: train a generator, sample, reconstruct over MPI, relax, rank by stability.",
        epilog="Example: hpcgen run configs/quickstart.yaml. Exit codes are listed in docs/commands.md.",
    )
    parser.add_argument("--version", action="version", version=f"hpcgen {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _campaign_command(commands, "run", "run every unfinished stage of a campaign", _run)
    run.add_argument("--until", metavar="STAGE", help="stop after this stage")
    for s in pipeline.STAGES:
        sub = _campaign_command(commands, s.name, s.does, _stage)
        sub.add_argument(
            "--redo", action="store_true", help="move this and all later outputs to old/ and compute again"
        )
    _offer_round_trips(commands.choices["reconstruct"])

    inspect = commands.add_parser(
        "inspect",
        help="print what a file of a run folder holds, or plot how the training of a run goes",
        epilog="Example: hpcgen inspect runs/quickstart/candidates.h5, or hpcgen inspect runs/quickstart",
    )
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="HDF5 file of a run folder, or the folder")
    inspect.add_argument("--verify", action="store_true", help="check every record against its checksum")
    inspect.set_defaults(handler=_inspect)

    examine = commands.add_parser(
        "doctor",
        help="check that everything a run needs is here, on every rank",
        description="Check software, MPI, cores, memory, GPUs and the run folder; works alone, under mpiexec and srun.",
        epilog="Example: srun --mpi=pmix hpcgen doctor configs/quickstart.yaml",
    )
    examine.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="YAML file of the campaign")
    examine.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/<name>)")
    examine.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override section.key"
    )
    examine.set_defaults(handler=_doctor)
    _offer_evaluations(commands)
    for sub in commands.choices.values():
        sub.add_argument("-v", "--verbose", action="store_true", help="more detail in the log")
    return parser


def _campaign_command(commands, name: str, does: str, handler) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=does, description=does, epilog=f"Example: hpcgen {name} configs/quickstart.yaml --set sample.n=200"
    )
    optional = "?" if name == "reconstruct" else None
    parser.add_argument("config", type=Path, nargs=optional, metavar="CONFIG", help="YAML file of the campaign")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/<name>)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override section.key"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and do nothing")
    parser.set_defaults(handler=handler)
    return parser


def _offer_evaluations(commands) -> None:
    """`hpcgen evaluate WHAT`: benchmark metrics of any generator's crystals."""
    from hpcgen.stages.evaluate_commands import offer

    evaluate = commands.add_parser("evaluate", help="benchmark metrics of generated or predicted crystals")
    what = evaluate.add_subparsers(dest="experiment", required=True, metavar="WHAT")
    offer(what)


def _offer_round_trips(parser: argparse.ArgumentParser) -> None:
    """`hpcgen reconstruct --structures FILE`, which needs no campaign."""
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
    parser.set_defaults(handler=_reconstruct)


def _context(arguments: argparse.Namespace) -> Context:
    campaign = config.load(arguments.config, arguments.overrides)
    return Context(campaign, arguments.run_dir or Path("runs") / campaign.name)


def _run(arguments: argparse.Namespace) -> int:
    context = _context(arguments)
    if arguments.dry_run:
        print("\n".join(pipeline.plan(context)))
        return EXIT_OK
    code = pipeline.run_all(context, until=arguments.until)
    if code == EXIT_OK and pipeline.done(context, pipeline.STAGES[-1]):
        from hpcgen.report import summary

        print("\n".join(summary(context.folder)))
        print(f"report: {context.path('report') / 'index.html'}")
    return code


def _stage(arguments: argparse.Namespace) -> int:
    context = _context(arguments)
    if arguments.dry_run:
        s = pipeline.stage(arguments.command)
        state = "already done" if pipeline.done(context, s) and not arguments.redo else "would run"
        print(f"{state}: {', '.join(s.reads) or context.config.data.source} -> {context.path(s.writes)}")
        return EXIT_OK
    pipeline.run_stage(context, arguments.command, redo=arguments.redo)
    return EXIT_OK


def _reconstruct(arguments: argparse.Namespace) -> int:
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
        return _stage(arguments)
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


def _doctor(arguments: argparse.Namespace) -> int:
    from hpcgen import doctor

    context = _context(arguments) if arguments.config else None
    folder = context.folder if context else arguments.run_dir or Path("runs")
    findings = doctor.examine(context.config if context else None, folder)
    if is_first():
        print(doctor.page(findings), flush=True)
    problems = [f.subject for f in findings if f.status == "problem"]
    if problems:
        farm.world()  # says itself what is wrong if the ranks do not see each other
        raise LaunchError(f"hpcgen doctor found problems: {', '.join(problems)}", remedy="see above, at each of them")
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


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not is_first():
        hide_log()


def program() -> int:
    """`hpcgen-train`, `hpcgen-reconstruct` and so on: the command is in the program's name."""
    return main([Path(sys.argv[0]).name.removeprefix("hpcgen-"), *sys.argv[1:]])
