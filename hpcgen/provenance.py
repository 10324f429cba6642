"""Where a file came from: versions, configuration, inputs and host, as attributes of every output."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hpcgen import __version__
from hpcgen.config import Config

_PACKAGES = ("numpy", "torch", "pymatgen", "ase", "spglib", "h5py", "numba", "smact", "chgnet", "mpi4py")


@cache
def git_commit() -> str:
    """Commit of the source tree hpcgen runs from (with `-dirty` if changed).

    Empty for an installed package, and on a machine without git.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result, of those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def host_facts() -> dict[str, Any]:
    """Python, platform, processor count and Slurm job of this process; nothing secret, no environment dump."""
    facts = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
    job = os.environ.get("SLURM_JOB_ID")
    return facts | ({"slurm_job": job} if job else {})


def header(config: Config, inputs: dict[str, str]) -> dict[str, Any]:
    """Root attributes of an output file. `inputs`: content digest of each input, by file name."""
    return {
        "hpcgen_version": __version__,
        "git": git_commit(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.text(),
        "config_digest": config.digest(),
        "seed": config.seed,
        "inputs": json.dumps(inputs, sort_keys=True),
        "host": json.dumps(host_facts()),
        "packages": json.dumps(package_versions()),
    }
