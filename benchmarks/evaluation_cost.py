"""The cost of one evaluation against what the machine can do: operations and bytes counted, time and limits measured.

    python benchmarks/evaluation_cost.py

For four built-in crystals of 5 to 50 atoms, with the default descriptor and solver: the kernels that a search spends
its time in. Operations are counted from the bounds of the loops: add, multiply, compare and round are one each, a
division or a root 5, exp, sin and cos 20. Bytes are those of the array elements that the inner loops load and store;
what stays in registers is left out. The limits are measured on the same core: multiply-adds per second in the precision
of the kernel, and the bandwidth of a triad over as much memory as the kernel goes through. `limit` is the share of the
time that operations or bytes, whichever take longer, would take at these limits; `bound` says which.

Of a sweep all losses are counted, and two field updates for every atom, as if it moved; not the updates of exchanges of
two atoms, whose number depends on luck. Below the kernels of each crystal the same evaluations with less to do: without
the structure factor, with half the bins, with tables in single precision; `time` is relative to the full one.

Times are CPU time of the thread, the least of several blocks of calls. The last line is one JSON object.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: CPU time is that of one thread

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from evaluation_counts import (
    Work,
    count_cholesky,
    count_field,
    count_losses,
    count_normal,
    count_rdf,
    count_s,
    count_sweep,
    count_table,
)
from machine_peak import SIZES, bandwidth, bandwidths, cpu_seconds, peak
from numpy.typing import NDArray

from hpcgen.config import AnnealConfig, RepresentationConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.reconstruct.grid import build_grid, pair_targets
from hpcgen.reconstruct.kernels import _add_field, _losses, anneal
from hpcgen.reconstruct.polish import _normal_equations, _solve_cholesky
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_kernels import PairTables, pair_spectrum, rdf_block, s_block
from hpcgen.represent.pair_spectrum import PairSpectrum

JITTER = 0.01  # of the cell: atoms of the built-in crystals are moved off their places
LEVELS = {"L1": 24, "L2": 1024, "L3": 16384, "memory": 1048576}  # KiB of the triad whose bandwidth the table shows


def crystals() -> dict[str, Crystal]:
    """A cubic perovskite, the 6H polytype of diamond, CaTiO3, and a mixed perovskite of ten formula units."""
    rng = np.random.default_rng(0)
    cubic = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    layers = [(0, 0), (1, 2), (2, 1), (0, 0), (2, 1), (1, 2)]  # A B C A C B
    sixes = [[u / 3, v / 3, (k + up) / 6] for k, (u, v) in enumerate(layers) for up in (0, 0.75)]
    hexagonal = np.array([[2.52, 0, 0], [-1.26, 2.182, 0], [0, 0, 12.36]])
    root2 = np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]])
    root5 = np.array([[2, 1, 0], [-1, 2, 0], [0, 0, 2]])
    parts = {
        "SrTiO3, 5 atoms": (3.9 * np.eye(3), cubic, [38, 22, 8, 8, 8]),
        "C, 12 atoms": (hexagonal, np.array(sixes), [6] * 12),
        "CaTiO3, 20 atoms": supercell(root2, 3.85, cubic, [[20] * 4, [22] * 4, [8] * 12]),
        "SrCaTiZrO, 50 atoms": supercell(root5, 4.0, cubic, [[38, 20] * 5, [22, 40] * 5, [8] * 30]),
    }
    return {
        name: Crystal(lattice, frac + JITTER * rng.standard_normal(np.shape(frac)), np.array(numbers))
        for name, (lattice, frac, numbers) in parts.items()
    }


def supercell(
    matrix: np.ndarray, a: float, cubic: FloatArray, numbers: list[list[int]]
) -> tuple[FloatArray, FloatArray, list[int]]:
    """Cell, positions and numbers of a perovskite in the cell with rows `matrix` a; A, B and O atoms as listed."""
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = steps @ np.linalg.inv(matrix)
    steps = steps[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    sites = [(cubic[kind] + steps[:, None]).reshape(-1, 3) for kind in ([0], [1], [2, 3, 4])]
    return a * matrix, np.concatenate(sites) @ np.linalg.inv(matrix), [z for part in numbers for z in part]


def cases(crystal: Crystal) -> Iterator[tuple[str, Callable[[], object], Work]]:
    """Name, call and work of every kernel for one crystal."""
    species, elements = species_channels(crystal.numbers)
    n, channels = len(species), len(elements)
    descriptor = PairSpectrum(RepresentationConfig().resolved(channels).pair_spectrum)
    tables, scale = descriptor.prepare(crystal.lattice, n)
    x, size = np.ascontiguousarray(crystal.cart * scale), descriptor.length(channels)
    bins = np.array([len(descriptor.centres), len(descriptor.wave_numbers)])
    q, none, jt = np.empty(size), np.empty((0, size)), np.empty((3 * n, size))
    split = descriptor.blocks(channels)["rdf"].stop
    for jacobian, rows, name in ((False, none, ""), (True, jt, " and Jacobian")):
        given = (x, species, channels, tables)
        rdf, s = count_rdf(tables, x, jacobian, size), count_s(tables, n, channels, jacobian, size)
        yield f"value{name}", partial(pair_spectrum, *given, q, rows, jacobian), rdf + s
        yield f"  its RDF{name}", partial(rdf_block, *given, q, rows, jacobian), rdf
        yield f"  its S{name}", partial(s_block, *given, split, q, rows, jacobian), s
    pair_spectrum(x, species, channels, tables, q, jt, True)
    hessian, gradient = np.empty((3 * n, 3 * n)), np.empty(3 * n)
    normal = partial(_normal_equations, jt, q, species, channels, split, bins, hessian, gradient)
    yield "normal equations", normal, count_normal(species, channels, int(bins.sum()))
    normal()
    hessian += np.trace(hessian) * np.eye(3 * n)
    lower = np.empty_like(hessian)

    def solve() -> None:
        lower[:] = hessian
        _solve_cholesky(lower, gradient.copy())

    yield "Cholesky", solve, count_cholesky(3 * n)
    yield from _grid_cases(descriptor, tables, x, species, channels)


def _grid_cases(
    descriptor: PairSpectrum, tables: PairTables, x: FloatArray, species: np.ndarray, channels: int
) -> Iterator[tuple[str, Callable[[], object], Work]]:
    config, n = AnnealConfig(), len(species)
    grid = build_grid(tables, config.grid_step)
    points, k = math.prod(grid.shape), grid.basis.shape[1]
    used = int((grid.basis != 0).any(axis=0).sum())
    work = count_table(tables, grid.shape, used, k)
    yield "table of the grid", partial(build_grid, tables, config.grid_step), work
    rng = np.random.default_rng(1)
    q = np.empty(descriptor.length(channels))
    pair_spectrum(x, species, channels, tables, q, np.empty((0, len(q))), False)
    sizes = (len(descriptor.centres), len(descriptor.wave_numbers))
    target = pair_targets(q, channels, sizes, grid.basis)
    start = rng.integers(0, grid.shape, (n, 3))
    field = rng.random((channels, *grid.shape, k), dtype=np.float32)
    offset, weight = rng.random((channels, k), np.float32), np.ones(channels, np.float32)
    loss = np.empty(points, np.float32)
    losses = partial(_losses, field, grid.phi, start[0], 0, offset, weight, loss)
    yield "losses of one atom", losses, count_losses(points, channels, k)
    yield "field of one atom", partial(_add_field, field[0], grid.phi, start[0], np.float32(1)), count_field(points, k)

    def anneal_from_start(sweeps: int) -> None:
        state = np.array([3], np.uint64)
        anneal(grid.phi, species, target, start.copy(), 0, sweeps, config.t_hot, config.t_cold, 0, state)

    unlike = n * (n - 1) // 2 - int(sum(c * (c - 1) // 2 for c in np.bincount(species)))
    whole = count_sweep(points, channels, k, n, unlike).times(config.sweeps)
    yield f"{config.sweeps} sweeps", partial(anneal_from_start, config.sweeps), whole


def with_less(crystal: Crystal) -> dict[str, dict[str, float]]:
    """CPU seconds of a polish step and of a grid's inner loops as they are, and with less to do."""
    species, elements = species_channels(crystal.numbers)
    channels = len(elements)
    config = RepresentationConfig().resolved(channels).pair_spectrum
    descriptor = PairSpectrum(config)
    half = config.model_copy(update={"rdf_bins": config.rdf_bins // 2, "s_bins": len(descriptor.wave_numbers) // 2})
    grid = build_grid(descriptor.prepare(crystal.lattice, len(species))[0], AnnealConfig().grid_step)
    k = grid.basis.shape[1]
    return {
        "as it is": _polish_step(descriptor, crystal) | _grid_loops(grid.phi, channels),
        "without S": _polish_step(descriptor, crystal, with_s=False),
        "half the bins": _polish_step(PairSpectrum(half), crystal)
        | _grid_loops(np.ascontiguousarray(grid.phi[..., : k // 2]), channels),
        "Jacobian in single precision": _polish_step(descriptor, crystal, precision=np.float32),
        "every other grid point": _grid_loops(np.ascontiguousarray(grid.phi[:, :, ::2]), channels),
    }


def _polish_step(
    descriptor: PairSpectrum, crystal: Crystal, *, with_s: bool = True, precision: type[np.floating] = np.float64
) -> dict[str, float]:
    """Times of value and Jacobian, and of the normal equations, for a Jacobian stored in `precision`."""
    species, elements = species_channels(crystal.numbers)
    n, channels = len(species), len(elements)
    tables, scale = descriptor.prepare(crystal.lattice, n)
    x, size = np.ascontiguousarray(crystal.cart * scale), descriptor.length(channels)
    q, jt = np.empty(size), np.empty((3 * n, size), precision)
    bins = np.array([len(descriptor.centres), len(descriptor.wave_numbers)])
    split = descriptor.blocks(channels)["rdf"].stop
    kernel = pair_spectrum if with_s else rdf_block
    out = {"value and Jacobian": cpu_seconds(partial(kernel, x, species, channels, tables, q, jt, True))}
    hessian, gradient = np.empty((3 * n, 3 * n)), np.empty(3 * n)
    if with_s:
        residual = np.ones(size, precision)
        normal = partial(_normal_equations, jt, residual, species, channels, split, bins, hessian, gradient)
        out["normal equations"] = cpu_seconds(normal)
    return out


def _grid_loops(phi: NDArray[np.float32], channels: int) -> dict[str, float]:
    """Times of the losses of one atom, and of the update of one field."""
    rng = np.random.default_rng(1)
    where, k = rng.integers(0, phi.shape[:3]), phi.shape[3]
    field = rng.random((channels, *phi.shape), dtype=np.float32)
    offset, weight = rng.random((channels, k), np.float32), np.ones(channels, np.float32)
    loss = np.empty(math.prod(phi.shape[:3]), np.float32)
    return {
        "losses of one atom": cpu_seconds(partial(_losses, field, phi, where, 0, offset, weight, loss)),
        "field of one atom": cpu_seconds(partial(_add_field, field[0], phi, where, np.float32(1))),
    }


def main() -> None:
    """Measure the machine, then every kernel, and print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    peaks = {precision: peak(precision) for precision in (np.float64, np.float32)}
    curve = bandwidths()
    machine = {f"gflops_{p.__name__}": round(v / 1e9, 1) for p, v in peaks.items()}
    machine |= {f"gb_per_s_{name}": round(curve[1024 * kib] / 1e9, 1) for name, kib in LEVELS.items()}
    print(f"one core: {machine}")
    print(", ".join(f"{size // 1024} KiB {curve[size] / 1e9:.0f} GB/s" for size in SIZES))
    rows, savings = [], {}
    for name, crystal in crystals().items():
        print(f"\n{name:<30}{'us':>10}{'Mflop':>9}{'MB':>9}{'flop/B':>8}{'GF/s':>7}{'GB/s':>7}{'limit':>7} bound")
        for kernel, call, work in cases(crystal):
            seconds = cpu_seconds(call)
            operations = work.operations / peaks[work.precision]
            traffic = work.traffic / bandwidth(curve, work.memory)
            row = {
                "crystal": name,
                "kernel": kernel.strip(),
                "us": round(1e6 * seconds, 2),
                "mflop": round(work.operations / 1e6, 4),
                "mbyte": round(work.traffic / 1e6, 4),
                "gflop_per_s": round(work.operations / seconds / 1e9, 2),
                "gbyte_per_s": round(work.traffic / seconds / 1e9, 2),
                "limit": round(max(operations, traffic) / seconds, 3),
                "bound": "operations" if operations > traffic else "bytes",
            }
            rows.append(row)
            print(
                f"{kernel:<30}{row['us']:>10.1f}{row['mflop']:>9.3f}{row['mbyte']:>9.3f}"
                f"{work.operations / work.traffic:>8.2f}{row['gflop_per_s']:>7.1f}{row['gbyte_per_s']:>7.1f}"
                f"{row['limit']:>7.2f} {row['bound']}"
            )
        full, *less = with_less(crystal).items()
        shares = {way: {kernel: round(t / full[1][kernel], 3) for kernel, t in times.items()} for way, times in less}
        for way, share in shares.items():
            print(f"  {way}: time {', '.join(f'{kernel} x {value:.2f}' for kernel, value in share.items())}")
        savings[name] = shares
    print(json.dumps(machine | {"kernels": rows, "with_less": savings}))


if __name__ == "__main__":
    main()
