"""The architecture of docs/design.md, asserted on the source: imports point one way."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hpcgen"

LAYERS: list[set[str]] = [
    {"errors", "crystal", "compiled", "progress"},
    {"flow", "config"},
    {"provenance"},
    {"store", "data", "represent", "models", "thermo", "screen"},
    {"diffusion"},
    {"farm", "train", "reconstruct", "relax"},
    {"slots"},
    {"vasp"},
    {"pointcloud"},
    {"family", "dynamics"},
    {"report", "evaluate"},
    {"analysis"},
    {"stages"},
    {"pipeline"},
    {"doctor"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
NO_SCIENCE = {"farm", "slots", "config", "provenance", "store"}
SCIENCE = {
    "represent",
    "pointcloud",
    "diffusion",
    "models",
    "train",
    "reconstruct",
    "relax",
    "thermo",
    "screen",
    "data",
    "report",
    "analysis",
    "dynamics",
    "vasp",
    "evaluate",
}
OWNERS = {"h5py": "store", "mpi4py": "farm", "custodian": "vasp"}


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, at any depth of its code, except under TYPE_CHECKING."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    """The room or top-level module that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(f for f in PACKAGE.rglob("*.py") if room_of(f) not in ("__init__", "__main__"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    room = room_of(file)
    assert room in RANK, f"{room} has no place in the layers"
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "hpcgen" and len(parts) > 1 and parts[1] in RANK and parts[1] != room:
            # rooms of one layer may use each other only where neither is science of another kind: store is plumbing
            allowed = RANK[parts[1]] < RANK[room] or (RANK[parts[1]] == RANK[room] and parts[1] == "store")
            assert allowed, f"{file.relative_to(PACKAGE)} imports {name}: {parts[1]} is not below {room}"
            if room in NO_SCIENCE:
                assert parts[1] not in SCIENCE, f"{room} imports science: {name}"
        if parts[0] in OWNERS:
            assert room == OWNERS[parts[0]], f"{parts[0]} belongs to {OWNERS[parts[0]]}, not to {room}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_nothing_unsafe(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = imports(file) - {"pickle.UnpicklingError"}  # what torch.load raises on a file that is no checkpoint
    assert not {n.split(".")[0] for n in names} & {"pickle", "dill", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert not getattr(node.value, "value", True), f"shell=True in {file}"
        if isinstance(node, ast.keyword) and node.arg in ("weights_only", "allow_pickle"):
            assert node.value.value is (node.arg == "weights_only"), f"{node.arg} in {file}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" for k in node.keywords), f"torch.load without weights_only in {file}"


def test_what_is_imported_is_installed_with_the_package():
    """An import that only some other package happens to bring along ends the day that package does without it."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    declared = {re.split(r"[<>=\[ ]", r)[0].lower().replace("-", "_") for r in wanted}
    imported = {name.split(".")[0] for file in PACKAGE.rglob("*.py") for name in imports(file)}
    strangers = imported - set(sys.stdlib_module_names) - {"hpcgen"} - declared
    assert strangers <= {"yaml"}  # of pyyaml
