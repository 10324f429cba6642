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
    arguments = _parser().parse_args(_two_words(list(sys.argv[1:] if argv is None else argv)))
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


def _two_words(argv: list[str]) -> list[str]:
    """`reference fetch` and `reference build` as one word each; `reference CONFIG` is a stage like the others."""
    if argv[:1] == ["reference"] and argv[1:2] in (["fetch"], ["build"]):
        return [f"reference-{argv[1]}", *argv[2:]]
    return argv


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
    for s in (*pipeline.STAGES, *pipeline.DFT, pipeline.DYNAMICS, pipeline.PHONONS):
        sub = _campaign_command(commands, s.name, s.does, _stage)
        sub.add_argument(
            "--redo", action="store_true", help="move this and all later outputs to old/ and compute again"
        )
    _offer_round_trips(commands.choices["reconstruct"])
    _offer_references(commands)
    commands.choices["hull"].add_argument(
        "--verify", action="store_true", help="check every energy above the hull by a linear programme (HiGHS)"
    )
    _offer_shards(commands.choices["dft"])

    inspect = commands.add_parser(
        "inspect",
        help="print what a file of a run folder holds, or plot how the training of a run goes",
        epilog="Example: hpcgen inspect runs/quickstart/candidates.h5, or hpcgen inspect runs/quickstart",
    )
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="HDF5 file of a run folder, or the folder")
    inspect.add_argument("--verify", action="store_true", help="check every record against its checksum")
    inspect.set_defaults(handler=_inspect)

    _offer_evaluations(commands)
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
    _offer_export(commands)
    for sub in commands.choices.values():
        sub.add_argument("-v", "--verbose", action="store_true", help="more detail in the log")
    return parser


def _offer_evaluations(commands) -> None:
    """`hpcgen evaluate WHAT CONFIG`: experiments on a trained model, beside its campaign."""
    evaluate = commands.add_parser("evaluate", help="experiments on a trained model")
    what = evaluate.add_subparsers(dest="experiment", required=True, metavar="WHAT")
    sub = _campaign_command(what, "denoising", "put noise on real structures, take it off, and compare", _denoising)
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

    context = _context(arguments)
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


def _offer_references(commands) -> None:
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


def _offer_export(commands) -> None:
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


def _offer_shards(parser: argparse.ArgumentParser) -> None:
    """`hpcgen dft --shard I/N`, for job arrays."""
    parser.add_argument(
        "--shard", metavar="I/N", help="do part I (from 0) of N and write no output; `hpcgen dft` then does the rest"
    )
    parser.set_defaults(handler=_dft)


def _dft(arguments: argparse.Namespace) -> int:
    """The stage, or one part of it."""
    if arguments.shard is None or arguments.dry_run:
        return _stage(arguments)
    shard, sep, shards = arguments.shard.partition("/")
    if not (sep and shard.isdigit() and shards.isdigit() and int(shard) < int(shards)) or arguments.redo:
        raise UsageError(
            f"--shard {arguments.shard}{' --redo' if arguments.redo else ''} is not understood",
            expected="--shard I/N with I from 0 to N - 1, and without --redo",
            remedy="job arrays start at 0: sbatch --array=0-7 gives the parts 0/8 to 7/8",
        )
    return pipeline.run_part(_context(arguments), int(shard), int(shards))


def _context(arguments: argparse.Namespace) -> Context:
    campaign = config.load(arguments.config, arguments.overrides)
    return Context(campaign, arguments.run_dir or Path("runs") / campaign.name)


def _run(arguments: argparse.Namespace) -> int:
    context = _context(arguments)
    if arguments.dry_run:
        print("\n".join(pipeline.plan(context)))
        return EXIT_OK
    code = pipeline.run_all(context, until=arguments.until)
    if code == EXIT_OK and pipeline.done(context, pipeline.chain(context.config)[-1]):
        from hpcgen.report import summary

        print("\n".join(summary(context.folder)))
        print(f"report: {context.path('report') / 'index.html'}")
    return code


def _stage(arguments: argparse.Namespace) -> int:
    context = _context(arguments)
    if arguments.dry_run:
        s = pipeline.work_of(arguments.command, context.config)
        state = "already done" if pipeline.done(context, s) and not arguments.redo else "would run"
        print(f"{state}: {', '.join(s.reads) or context.config.data.source} -> {context.path(s.writes)}")
        return EXIT_OK
    if arguments.command == pipeline.DYNAMICS.name and not arguments.redo:
        from hpcgen.stages import dynamics

        dynamics.check(context)
    pipeline.run_stage(context, arguments.command, redo=arguments.redo)
    if getattr(arguments, "verify", False):
        from hpcgen.stages import hull

        for file in sorted(context.folder.glob("stability*.h5")):  # by the potential, and by VASP
            print(f"{file.name}: {hull.verify(context, file.name)}")
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


def _export(arguments: argparse.Namespace) -> int:
    from hpcgen.analysis import Run, export
    from hpcgen.analysis.export import default_name

    with Run(arguments.run) as run:
        out = arguments.output or default_name(run, arguments.format)
        flags = tuple(arguments.flags or ())
        count = export(run, arguments.format, out, table=arguments.table, max_e_hull=arguments.max_e_hull, flags=flags)
    print(f"{count} crystals: {out}")
    return EXIT_OK


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not is_first():
        hide_log()


def program() -> int:
    """`hpcgen-train`, `hpcgen-reconstruct` and so on: the command is in the program's name."""
    return main([Path(sys.argv[0]).name.removeprefix("hpcgen-"), *sys.argv[1:]])
