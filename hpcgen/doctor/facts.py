"""What one rank can say about itself without MPI, in about 0.1 s: plain values that JSON can hold."""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import hpcgen
from hpcgen import provenance
from hpcgen.config import Config
from hpcgen.doctor.device import installed
from hpcgen.doctor.finding import Facts
from hpcgen.store.probe import hdf5_version

LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC, "memlock": resource.RLIMIT_MEMLOCK}
UNLIMITED = -1


def of_this_rank(config: Config | None) -> Facts:
    """Host, software, cores, limits, and memory of this process."""
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "hpcgen": f"{hpcgen.__version__} in {Path(hpcgen.__file__).parent}",
        "commit": provenance.git_commit(),
        "packages": provenance.package_versions(),
        "hdf5": hdf5_version(),
        "unmet": unmet_requirements(),
        "config": config.digest() if config else "",
        "mpi": mpi_library(),
        "cores": sorted(os.sched_getaffinity(0)),
        "cpus": os.cpu_count() or 1,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "locking": os.environ.get("HDF5_USE_FILE_LOCKING", ""),
        "installed_gpus": installed(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "limits": {name: resource.getrlimit(number)[0] for name, number in LIMITS.items()},
        "memory": available_memory(),
        "shared": free_space("/dev/shm"),
        "temporary": [tempfile.gettempdir(), free_space(tempfile.gettempdir())],
    }


def unmet_requirements() -> list[str]:
    """Packages that hpcgen requires and that are missing or too old, with what is there."""
    from packaging.requirements import Requirement

    unmet = []
    try:
        declared = requires("hpcgen") or []
    except PackageNotFoundError:
        return ["hpcgen itself is not installed as a package"]
    for line in declared:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            unmet.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{requirement} (found {found})")
    return unmet


def mpi_library() -> str:
    """The MPI library of mpi4py, or `none: <reason>`."""
    from hpcgen.farm import survey

    try:
        return survey.library()
    except (ImportError, RuntimeError) as error:
        return f"none: {str(error).splitlines()[0]}"


def available_memory() -> int:
    """Bytes that processes of this node may still take: the least of the node's and of the control groups' limits."""
    with Path("/proc/meminfo").open(encoding="ascii") as lines:
        known = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return min([known["MemAvailable"], *_group_limits()])


def _group_limits() -> list[int]:
    """Memory left below each limit of the control groups (v2 and v1) that this process is in."""
    left = []
    root = Path("/sys/fs/cgroup")
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for group in groups:
        _, controllers, name = group.split(":", 2)
        if controllers == "":
            folder, limit, used = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            folder, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        place = folder / name.lstrip("/")
        for level in [place, *place.parents]:
            try:
                left.append(int((level / limit).read_text()) - int((level / used).read_text()))
            except (OSError, ValueError):  # no such level in this container, or the limit is `max`
                continue
            if level == folder:
                break
    return left


def free_space(path: str) -> int:
    """Free bytes of a file system, -1 if there is none at that path."""
    try:
        status = os.statvfs(path)
    except OSError:
        return -1
    return status.f_bavail * status.f_frsize
