"""A small run folder whose numbers are known, the one that the report's tests use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "report"))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """Thirteen crystals through every stage."""
    from synthetic_run import make_run  # type: ignore[import-not-found]

    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder)
    (folder / "config.yaml").write_text(config.text(), encoding="utf-8")
    return folder
