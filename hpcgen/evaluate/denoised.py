"""The distances of CSPBenchMetrics between a real crystal and a denoised one that figure 2 of the PCCD paper shows.

As the code of Wei et al. (Comput. Mater. Sci. 235, 112802, 2024) defines them, except where noted:

    energy         |difference| of the energies per atom, eV; theirs: of the cells, by M3GNet
    orbital_field  Euclidean, of orbital field matrices (matminer's default)
    crystal_nn     Euclidean, of mean, deviation, minimum and maximum over the sites of CrystalNN's order parameters
    superpose      root mean square distance, angstrom, after the best rotation, translation and scaling; theirs: of the
                   atoms as the files list them, here of atoms paired with their images, see `paired`
    rms_anonymous  of StructureMatcher (ltol 0.6, stol 0.6, angle_tol 20), whatever the elements
    graph_edit     edits that turn one graph of bonds into the other, by bipartite assignment (Riesen and Bunke, Image
                   Vis. Comput. 27, 950, 2009): nodes and edges cost 1, another element min(|Z - Z'|, 2)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.errors import Failure
from hpcgen.evaluate.distances import featurizers, wide_matcher
from hpcgen.family.denoising import Denoised, paired
from hpcgen.relax import get_calculator

NAMES = ("energy", "orbital_field", "crystal_nn", "superpose", "rms_anonymous", "graph_edit")
BOND, NEIGHBOURS = 2.5, 12  # angstrom, and how many: what an edge of the graph is
ANOTHER_ELEMENT = 2.0  # cost at most: removing one node and adding another


@dataclass(frozen=True, eq=False)
class _Features:
    energy: float
    orbital_field: FloatArray
    crystal_nn: FloatArray


class Distances:
    """Computes them; what belongs to a real crystal is kept, for it is compared many times.

    Args:
        relax: calculator and device of the energies.

    Raises:
        DependencyError: if matminer or the calculator's package is not installed.
    """

    def __init__(self, relax: RelaxConfig) -> None:
        self._matrix, self._sites = featurizers()
        self._calculator = get_calculator(relax.model_copy(update={"max_steps": 1}))
        self._known: dict[str, _Features] = {}

    def of(self, name: str, real: Crystal, ours: Crystal) -> dict[str, float]:
        """All distances of two crystals; NaN for those that cannot be said.

        `superpose` needs one composition, `rms_anonymous` a match. The featurizers and the potential fail on some
        crystals with atoms in one place.

        Args:
            name: of the real crystal.
            real, ours: to be compared.
        """
        if name not in self._known:
            self._known[name] = self._features(real)
        a, b = self._known[name], self._features(ours)
        same = sorted(real.numbers.tolist()) == sorted(ours.numbers.tolist())
        return {
            "energy": abs(a.energy - b.energy),
            "orbital_field": float(np.linalg.norm(a.orbital_field - b.orbital_field)),
            "crystal_nn": float(np.linalg.norm(a.crystal_nn - b.crystal_nn)),
            "superpose": superpose(real, ours) if same else math.nan,
            "rms_anonymous": self._rms(real, ours),
            "graph_edit": graph_edit(real, ours),
        }

    def _features(self, crystal: Crystal) -> _Features:
        (relaxed,) = self._calculator.relax(["distance"], [crystal])
        energy = math.nan if isinstance(relaxed, Failure) else relaxed.energy_initial / len(crystal)
        return _Features(energy, self._featurized(self._matrix, crystal), self._featurized(self._sites, crystal))

    @staticmethod
    def _featurized(featurizer: Any, crystal: Crystal) -> FloatArray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return np.array(featurizer.featurize(to_structure(crystal)), dtype=np.float64)
            except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError):
                return np.full(len(featurizer.feature_labels()), np.nan)

    def _rms(self, real: Crystal, ours: Crystal) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = wide_matcher().get_rms_anonymous(to_structure(real), to_structure(ours))[0]
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                return math.nan
        return math.nan if found is None else float(found)


def medians(between: Distances, rows: Sequence[Denoised]) -> tuple[dict[str, float], dict[str, int]]:
    """Of each distance its median over denoised structures, and of how many it is known.

    Args:
        between: computes them.
        rows: of one starting step; those that were not decoded are left out.
    """
    pairs = [(r.id, *r.pair) for r in rows if r.pair is not None]
    found = [between.of(*pair) for pair in pairs]
    known = {name: np.array([d[name] for d in found if math.isfinite(d[name])]) for name in NAMES}
    return (
        {name: float(np.median(values)) if len(values) else math.nan for name, values in known.items()},
        {name: len(values) for name, values in known.items()},
    )


def superpose(real: Crystal, ours: Crystal) -> float:
    """Root mean square distance of paired atoms, angstrom, after the best similarity of ours onto the real ones.

    Umeyama, IEEE Trans. Pattern Anal. Mach. Intell. 13, 376 (1991), with its correction for reflections.
    """
    y = real.cart
    x = (real.frac + paired(real, ours)[1]) @ ours.lattice
    y, x = y - y.mean(0), x - x.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    spread = float((x**2).sum())
    scale = float((d * sign).sum()) / spread if spread > 0 else 1.0
    turned = scale * x @ (u * sign @ vt).T
    return float(np.sqrt(((y - turned) ** 2).sum(1).mean()))


def graph_edit(real: Crystal, ours: Crystal) -> float:
    """Approximate graph edit distance, an upper bound of the exact one; see the module's docstring."""
    n, m = len(real), len(ours)
    source, target = np.zeros((n + m, n + m), dtype=bool), np.zeros((n + m, n + m), dtype=bool)
    source[:n, :n], target[:m, :m] = bonds(real), bonds(ours)
    nodes = np.zeros((n + m, n + m))
    apart = np.abs(real.numbers.astype(float)[:, None] - ours.numbers.astype(float)[None])
    nodes[:n, :m] = np.minimum(apart, ANOTHER_ELEMENT)
    nodes[:n, m:] = np.where(np.eye(n, dtype=bool), 1.0, np.inf)
    nodes[n:, :m] = np.where(np.eye(m, dtype=bool), 1.0, np.inf)
    degrees = np.abs(source.sum(1)[:, None] - target.sum(1)[None])
    rows, columns = linear_sum_assignment(nodes + degrees)
    edges = (source != target[np.ix_(columns, columns)]).sum() / 2
    return float(nodes[rows, columns].sum() + edges)


def bonds(crystal: Crystal) -> NDArray[np.bool_]:
    """(n, n) which atoms are within `BOND` of each other's nearest image, at most the `NEIGHBOURS` nearest."""
    away = np.array(to_structure(crystal).distance_matrix)
    np.fill_diagonal(away, np.inf)
    rank = away.argsort(1, kind="stable").argsort(1, kind="stable")
    near = (away <= BOND) & (rank < NEIGHBOURS)
    return near | near.T
