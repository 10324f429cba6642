"""Kernels give the same bits however they came into the process: compiled by it, or loaded from numba's cache."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpcgen

PACKAGE = Path(hpcgen.__file__).parent

SCRIPT = """
import hashlib, sys
import numpy as np
from hpcgen.config import Config
from hpcgen.crystal import Crystal
from hpcgen.reconstruct.refine import Refiner
from hpcgen.reconstruct.solvers import make_solver
from hpcgen.represent.composition import species_channels
from hpcgen.represent.descriptor import make_descriptor

config, rng = Config(), np.random.default_rng(0)
descriptor = make_descriptor(config.representation)
solver, refiner = make_solver(descriptor, config.reconstruct), Refiner(descriptor, config.reconstruct)
if sys.argv[1] == "refiner-first":
    refiner.warm_up()
frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
crystal = Crystal(np.diag([3.9, 3.95, 4.0]), frac + 0.02 * rng.standard_normal((5, 3)), [38, 22, 8, 8, 8])
species, elements = species_channels(crystal.numbers)
exact = descriptor.encode(crystal, species, len(elements))
target = exact * (1 + 0.05 * rng.standard_normal(len(exact)))
solution = solver.solve(target, crystal.lattice, crystal.numbers, 3)
refined = refiner.refine(target, crystal.lattice, crystal.numbers, solution)
for values in (exact, solution.frac, refined.frac, refined.lattice):
    print(hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest())
"""


def decorators(tree: ast.Module) -> list[tuple[str, ast.expr]]:
    """Every njit decorator of a module with its function's name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found += [(node.name, d) for d in node.decorator_list if "njit" in ast.unparse(d)]
    return found


def test_every_kernel_has_the_options_that_fix_its_bits() -> None:
    seen = 0
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, decorator in decorators(ast.parse(file.read_text())):
            seen += 1
            text = ast.unparse(decorator)
            assert text in ("njit(**EXACT)", "njit(**FUSED)", "njit(**FAST)") or "inline='always'" in text, (
                f"{file}: {name}"
            )
    assert seen > 40


@pytest.mark.slow
def test_compiled_and_cached_kernels_give_the_same_bits(tmp_path: Path) -> None:
    def digests(cache: Path, order: str) -> list[str]:
        command = [sys.executable, "-c", SCRIPT, order]
        env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()

    first = digests(tmp_path / "cache", "solver-first")
    assert len(first) == 4
    assert digests(tmp_path / "cache", "solver-first") == first
    assert digests(tmp_path / "cache", "refiner-first") == first
    assert digests(tmp_path / "other", "refiner-first") == first
