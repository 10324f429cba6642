"""What several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcgen import config
from hpcgen.stages.context import Context


def campaign_command(
    commands: Any, name: str, does: str, handler: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """A command that takes a configuration, a run folder and settings."""
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


def context_of(arguments: argparse.Namespace) -> Context:
    """The campaign and its run folder."""
    campaign = config.load(arguments.config, arguments.overrides)
    return Context(campaign, arguments.run_dir or Path("runs") / campaign.name)
