"""Operations and bytes of the kernels of a search, counted from the bounds of their loops; see `evaluation_cost.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcgen.crystal import FloatArray
from hpcgen.represent.pair_kernels import TAIL, PairTables

ROOT, TRANSCENDENTAL = 5, 20  # operations that a division or a root, and an exp, sin or cos, count as
DOUBLE, SINGLE = 8, 4  # bytes


@dataclass(frozen=True)
class Work:
    """What a call has to do: operations, bytes to and from registers, bytes of memory it goes through, precision."""

    operations: float
    traffic: float
    memory: float
    precision: type[np.floating] = np.float64

    def __add__(self, other: Work) -> Work:
        """Both, in the memory of the larger."""
        memory = max(self.memory, other.memory)
        return Work(self.operations + other.operations, self.traffic + other.traffic, memory, self.precision)

    def times(self, count: float) -> Work:
        """So many calls."""
        return Work(self.operations * count, self.traffic * count, self.memory, self.precision)


def count_rdf(tables: PairTables, x: FloatArray, jacobian: bool, size: int) -> Work:
    """`rdf_block`: images looked at and met, and the bins that each Gaussian reaches."""
    i, j = np.triu_indices(len(x), 1)
    d = x[j] - x[i]
    frac = d @ tables.inverse
    d = (frac - np.rint(frac)) @ tables.cell
    lengths = np.linalg.norm(tables.images, axis=1)
    visits = np.searchsorted(lengths, tables.cutoff + np.linalg.norm(d, axis=1)).sum()
    r = np.linalg.norm(d[:, None] + tables.images, axis=2)
    r = r[r < tables.cutoff]
    bins = (np.abs(r[:, None] - tables.centres) <= TAIL * tables.width).sum()
    b, pairs = len(tables.centres), len(i)
    operations = pairs * (51 + 2 * b) + 15 * visits + bins * 4 + len(r) * (28 + 5 * ROOT + 3 * TRANSCENDENTAL)
    traffic = DOUBLE * (3 * visits + 2 * bins + 3 * b * pairs)
    if jacobian:
        operations += pairs * 9 * b + bins * 12 + len(r) * (5 + 2 * ROOT + TRANSCENDENTAL)
        traffic += DOUBLE * (7 * bins + 15 * b * pairs)
    return Work(operations, traffic, DOUBLE * (size * (1 + 3 * len(x) * jacobian) + tables.images.size))


def count_s(tables: PairTables, n: int, channels: int, jacobian: bool, size: int) -> Work:
    """`s_block`: for every wave the phases, the pairs of channels, and in the Jacobian atoms x channels."""
    waves, bins = len(tables.miller), float((tables.last - tables.first).sum())
    pairs = channels * (channels + 1) / 2
    most = np.abs(tables.miller).max()
    operations = 3 * n * (6 + 2 * TRANSCENDENTAL + 6 * most) + waves * (14 * n + 7 * pairs) + 2 * pairs * bins
    traffic = DOUBLE * (12 * n * most + waves * 10 * n + 3 * pairs * bins)
    if jacobian:
        operations += n * channels * (8 * waves + 6 * bins)
        traffic += DOUBLE * n * channels * (2 * waves + 7 * bins)
    memory = size * (1 + 3 * n * jacobian) + tables.weights.size + 6 * n * (2 * most + 1)
    return Work(operations, traffic, DOUBLE * memory)


def count_normal(species: np.ndarray, channels: int, bins: int) -> Work:
    """`_normal_equations`: of every pair of channels the rows of its atoms with each other and with the residual."""
    counts = np.bincount(species, minlength=channels)
    rows = np.array([3 * (counts[c] + (c != d) * counts[d]) for c in range(channels) for d in range(c, channels)])
    products = float((rows * (rows + 1) / 2 + rows).sum())
    memory = DOUBLE * (rows.max() * bins + 9 * len(species) ** 2)  # one pair of channels after the other
    return Work(2 * products * bins, 2 * DOUBLE * products * bins, memory)


def count_cholesky(m: int) -> Work:
    """`_solve_cholesky` of m unknowns: m^3 / 3 for the factor, 2 m^2 for the two substitutions."""
    operations = m**3 / 3 + 2 * m**2 + m**2 / 2 * ROOT
    return Work(operations, DOUBLE * operations, DOUBLE * m**2)


def count_losses(points: int, channels: int, k: int) -> Work:
    """`_losses`: all fields and the pair function, once."""
    operations = points * (4 * k + (channels - 1) * (3 * k + 2) + 1)
    memory = SINGLE * points * k * (channels + 1)
    return Work(operations, memory, memory, np.float32)


def count_field(points: int, k: int) -> Work:
    """`_add_field`: one field read and written, the pair function read."""
    return Work(2 * points * k, SINGLE * 3 * points * k, SINGLE * points * k * 2, np.float32)


def count_sweep(points: int, channels: int, k: int, n: int, unlike: int) -> Work:
    """Losses, heat bath and two field updates for every atom but one, trials of exchanges, and the fresh residual."""
    bath = Work(points * (8 + TRANSCENDENTAL), SINGLE * 3 * points, SINGLE * points, np.float32)
    move = count_losses(points, channels, k) + bath + count_field(points, k).times(2)
    trial = Work(14 * channels * k, SINGLE * 10 * channels * k, 0, np.float32)
    return move.times(n - 1) + trial.times(unlike) + trial.times(n)


def count_table(tables: PairTables, shape: tuple[int, int, int], used: int, k: int) -> Work:
    """`build_grid`: images and waves of half of the points, the basis by Gram-Schmidt, and the projection on it."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    frac = points / shape
    d = (frac - (frac > 0.5)) @ tables.cell
    lengths = np.linalg.norm(tables.images, axis=1)
    visits = np.searchsorted(lengths, tables.cutoff + np.linalg.norm(d, axis=1)).sum() / 2
    met = sum(float((((part[:, None] + tables.images) ** 2).sum(axis=2) < tables.cutoff**2).sum()) for part in
              np.array_split(d, 1 + len(d) // 512)) / 2  # fmt: skip
    half, radial = len(points) / 2, len(tables.centres)
    size = radial + tables.weights.shape[1]
    bins = float((tables.last - tables.first).sum())
    operations = 15 * visits + met * (2 + ROOT + radial) + half * (len(tables.miller) * (6 + ROOT) + 2 * bins)
    traffic = DOUBLE * 3 * visits + SINGLE * 3 * radial * met + DOUBLE * half * (4 * len(tables.miller) + 3 * bins)
    operations += half * size * (2 * used + 2 * k) + 4 * used**2 * size
    traffic += DOUBLE * half * size * (used + 1 + 3 * k) + SINGLE * 4 * half * k
    return Work(operations, traffic, DOUBLE * half * size)
