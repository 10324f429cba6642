"""hpcgen: crystals by diffusion, from training to a stability report, on supercomputers.

import hpcgen
run = hpcgen.open("runs/quickstart")  # tables as pandas, crystals as pymatgen or ASE: docs/analysis.md
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hpcgen.analysis import Run

try:
    __version__ = version("hpcgen")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0.0.0"


def open(folder: str | Path) -> Run:
    """A run folder as tables and crystals; see `hpcgen.analysis.Run`.

    Raises:
        RunFolderError: if it is no run folder.
    """
    from hpcgen.analysis import Run

    return Run(folder)
