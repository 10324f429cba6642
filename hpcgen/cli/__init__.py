"""The command line: `hpcgen run CONFIG`, one command per stage, and tools around them.

A user's mistake ends with one message and a documented exit code (docs/commands.md), never with a traceback.

    campaign.py     what works on the run folder of a configuration: `run`, the stages, `doctor`
    experiments.py  what needs no campaign or stands beside one: round trips, `evaluate`
    tools.py        what makes and reads files: `inspect`, `export`, `reference fetch`, `reference build`
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hpcgen import __version__
from hpcgen.cli import campaign, tools
from hpcgen.errors import EXIT_INTERNAL, EXIT_REQUEUE, HpcgenError
from hpcgen.farm.world import end_all, hide_log, is_first

log = logging.getLogger("hpcgen")


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

    campaign.offer(commands)
    tools.offer(commands)
    for sub in commands.choices.values():
        sub.add_argument("-v", "--verbose", action="store_true", help="more detail in the log")
    return parser


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not is_first():
        hide_log()


def program() -> int:
    """`hpcgen-train`, `hpcgen-reconstruct` and so on: the command is in the program's name."""
    return main([Path(sys.argv[0]).name.removeprefix("hpcgen-"), *sys.argv[1:]])
