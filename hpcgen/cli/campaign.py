"""Commands on the run folder of a configuration: `run`, one per stage, `doctor`."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from hpcgen import farm, pipeline
from hpcgen.cli import experiments
from hpcgen.cli.common import campaign_command, context_of
from hpcgen.errors import EXIT_OK, LaunchError, UsageError
from hpcgen.farm.world import is_first


def offer(commands: Any) -> None:
    """`hpcgen run`, the stages, `hpcgen evaluate` and `hpcgen doctor`."""
    run = campaign_command(commands, "run", "run every unfinished stage of a campaign", _run)
    run.add_argument("--until", metavar="STAGE", help="stop after this stage")
    for s in (*pipeline.STAGES, *pipeline.DFT, pipeline.DYNAMICS, pipeline.PHONONS):
        sub = campaign_command(commands, s.name, s.does, _stage)
        sub.add_argument(
            "--redo", action="store_true", help="move this and all later outputs to old/ and compute again"
        )
    experiments.offer_round_trips(commands.choices["reconstruct"], _stage)
    commands.choices["hull"].add_argument(
        "--verify", action="store_true", help="check every energy above the hull by a linear programme (HiGHS)"
    )
    for name in ("dft", "phonons"):
        _offer_shards(commands.choices[name], name)
    experiments.offer(commands)

    examine = commands.add_parser(
        "doctor",
        help="check that everything a run needs is here, on every rank",
        description="Check software, MPI, cores, memory, GPUs, the run folder and, if the configuration asks for it, "
        "VASP; works alone, under mpiexec and srun.",
        epilog="Example: srun --mpi=pmix hpcgen doctor configs/quickstart.yaml",
    )
    examine.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="YAML file of the campaign")
    examine.add_argument("--run-dir", type=Path, metavar="DIR", help="run folder (default: runs/<name>)")
    examine.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override section.key"
    )
    examine.add_argument("--without-vasp", action="store_true", help="for jobs that do not run it: leave VASP out")
    examine.set_defaults(handler=_doctor)


def _offer_shards(parser: argparse.ArgumentParser, name: str) -> None:
    """`hpcgen dft --shard I/N`, for job arrays."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help=f"do part I (from 0) of N by VASP and write no output; `hpcgen {name}` then does the rest",
    )
    parser.set_defaults(handler=_sharded)


def _sharded(arguments: argparse.Namespace) -> int:
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
    return pipeline.run_part(context_of(arguments), arguments.command, int(shard), int(shards))


def _run(arguments: argparse.Namespace) -> int:
    context = context_of(arguments)
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
    context = context_of(arguments)
    if arguments.dry_run:
        s = pipeline.work_of(arguments.command, context.config)
        state = "already done" if pipeline.done(context, s) and not arguments.redo else "would run"
        print(f"{state}: {', '.join(s.reads) or context.config.data.source} -> {context.path(s.writes)}")
        if s is pipeline.PHONONS_BY_VASP and state == "would run":
            from hpcgen.stages import phonons_vasp

            print("\n".join(phonons_vasp.costs(context)))
        return EXIT_OK
    if arguments.command in (pipeline.DYNAMICS.name, pipeline.PHONONS.name) and not arguments.redo:
        import_module(f"hpcgen.stages.{arguments.command}").check(context)
    pipeline.run_stage(context, arguments.command, redo=arguments.redo)
    if getattr(arguments, "verify", False):
        from hpcgen.stages import hull

        for file in sorted(context.folder.glob("stability*.h5")):  # by the potential, and by VASP
            print(f"{file.name}: {hull.verify(context, file.name)}")
    return EXIT_OK


def _doctor(arguments: argparse.Namespace) -> int:
    from hpcgen import doctor

    context = context_of(arguments) if arguments.config else None
    folder = context.folder if context else arguments.run_dir or Path("runs")
    findings = doctor.examine(context.config if context else None, folder, vasp=not arguments.without_vasp)
    if is_first():
        print(doctor.page(findings), flush=True)
    problems = [f.subject for f in findings if f.status == "problem"]
    if problems:
        farm.world()  # says itself what is wrong if the ranks do not see each other
        raise LaunchError(f"hpcgen doctor found problems: {', '.join(problems)}", remedy="see above, at each of them")
    return EXIT_OK
