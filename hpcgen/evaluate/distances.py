"""Distances between a predicted and a real crystal, after CSPBenchMetrics (Wei et al., arXiv 2307.05886).

| name | definition there | here |
|---|---|---|
| `energy` | difference of M3GNet's formation energies, eV/atom | difference of energies of the ML potential named |
| `orbital_field_matrix` | Euclidean, of matminer's OrbitalFieldMatrix | the same |
| `crystalnn` | Euclidean, of mean, deviation, minimum and maximum over sites of CrystalNN "ops" | the same |
| `superpose` | RMSD of Cartesian sites after rotation, translation and scaling, in the order of the file | the same |
| `rms`, `rms_anonymous` | StructureMatcher(ltol=0.6, stol=0.6, angle_tol=20) | the same |
| `xrd` | Euclidean, of powder patterns smoothed on 901 angles | the same |
| `chamfer`, `hausdorff` | of the Cartesian sites | the same, without the library point-cloud-utils |
| `graph_edit` | bipartite approximation of the package cyged | that of networkx, with the same costs: near, not equal |

Left out: the Sinkhorn distance (another regularisation would be another number), and the distances between Wyckoff
coordinates, which that code reads from the text of symmetrised CIFs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.errors import DependencyError, Failure
from hpcgen.evaluate.fingerprint import definition
from hpcgen.evaluate.parallel import mapped

if TYPE_CHECKING:
    import networkx
    from pymatgen.core import Structure

NAMES = (
    "orbital_field_matrix",
    "crystalnn",
    "superpose",
    "rms",
    "rms_anonymous",
    "xrd",
    "chamfer",
    "hausdorff",
    "graph_edit",
)
BOND = 2.5  # angstrom: sites nearer than this share an edge
NEIGHBOURS = 13  # nearest entries of a row of the distance matrix that are looked at, the site itself included


def distances(pairs: Sequence[tuple[Crystal | Failure, Crystal | Failure]], *, processes: int) -> dict[str, FloatArray]:
    """(R,) of each name, NaN where a distance is undefined: other number of atoms, no match, or nothing to compare.

    Raises:
        DependencyError: if matminer is not installed.
    """
    definition()
    rows = list(mapped(pair_distances, list(pairs), processes=processes, label="distances", unit=" pairs"))
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in NAMES}


def pair_distances(pair: tuple[Crystal | Failure, Crystal | Failure]) -> dict[str, float]:
    """The distances of a prediction from the real crystal; those that cannot be had are left out."""
    a, b = pair
    if isinstance(a, Failure) or isinstance(b, Failure):
        return {}
    s, t = to_structure(a), to_structure(b)
    out: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in NAMES:
            try:
                value = _FUNCTIONS[name](s, t)
            # the libraries raise nearly any type on cells unlike a crystal
            except Exception:
                continue
            if np.isfinite(value):
                out[name] = float(value)
    return out


def superpose(a: FloatArray, b: FloatArray) -> float:
    """RMSD of (n, 3) points from (n, 3) others after the best rotation, translation and scaling of the second.

    Raises:
        ValueError: if their numbers differ.
    """
    from scipy.spatial.transform import Rotation

    if a.shape != b.shape:
        raise ValueError(f"{len(b)} sites cannot be laid on {len(a)}")
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)
    size = float((y**2).sum())
    if size < 1e-12:
        return float(np.sqrt((x**2).sum(axis=1).mean()))
    rotation, _ = Rotation.align_vectors(x, y)
    turned = rotation.apply(y)
    scale = float((x * turned).sum()) / size
    return float(np.sqrt(((x - scale * turned) ** 2).sum(axis=1).mean()))


def _superpose(a: Structure, b: Structure) -> float:
    return superpose(a.cart_coords, b.cart_coords)


def _orbital_field_matrix(a: Structure, b: Structure) -> float:
    featurizer = featurizers()[0]
    return float(np.linalg.norm(np.asarray(featurizer.featurize(a)) - np.asarray(featurizer.featurize(b))))


def _crystalnn(a: Structure, b: Structure) -> float:
    featurizer = featurizers()[1]
    return float(np.linalg.norm(np.asarray(featurizer.featurize(a)) - np.asarray(featurizer.featurize(b))))


def featurizers() -> tuple[Any, Any]:
    """Those of orbital field matrices and of CrystalNN's statistics over the sites, made once.

    Raises:
        DependencyError: if matminer is not installed.
    """
    try:
        import matminer.featurizers.site
        import matminer.featurizers.structure  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"the distances of CSPBenchMetrics need matminer: {error}", remedy="pip install 'hpcgen[evaluate]'"
        ) from None
    return _featurizers()


@cache
def _featurizers() -> tuple[Any, Any]:
    from matminer.featurizers.site import CrystalNNFingerprint
    from matminer.featurizers.structure import SiteStatsFingerprint
    from matminer.featurizers.structure.matrix import OrbitalFieldMatrix

    sites = CrystalNNFingerprint.from_preset("ops", distance_cutoffs=None, x_diff_weight=0)
    return OrbitalFieldMatrix(), SiteStatsFingerprint(sites, stats=("mean", "std_dev", "minimum", "maximum"))


def _rms(a: Structure, b: Structure) -> float:
    found = wide_matcher().get_rms_dist(a, b)
    return float("nan") if found is None else float(found[0])


def _rms_anonymous(a: Structure, b: Structure) -> float:
    found = wide_matcher().get_rms_anonymous(a, b)[0]
    return float("nan") if found is None else float(found)


@cache
def wide_matcher() -> Any:
    """StructureMatcher with the tolerances of CSPBenchMetrics."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.6, stol=0.6, angle_tol=20)


def _xrd(a: Structure, b: Structure) -> float:
    return float(np.linalg.norm(_pattern(a) - _pattern(b)))


def _pattern(structure: Structure) -> FloatArray:
    """(901,) powder pattern over 0 to 90 degrees, each line as often as its tenfold intensity, smoothed."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator
    from scipy.stats import gaussian_kde

    lines = XRDCalculator().get_pattern(structure)
    repeated = list(chain.from_iterable([x] * int(10 * y) for x, y in zip(lines.x, lines.y, strict=True)))
    return gaussian_kde(repeated, bw_method=0.01).evaluate(np.linspace(0, 90, 901))


def _nearest(a: Structure, b: Structure) -> tuple[FloatArray, FloatArray]:
    from scipy.spatial.distance import cdist

    matrix = cdist(a.cart_coords, b.cart_coords)
    return matrix.min(axis=1), matrix.min(axis=0)


def _chamfer(a: Structure, b: Structure) -> float:
    there, back = _nearest(a, b)
    return float(there.mean() + back.mean())


def _hausdorff(a: Structure, b: Structure) -> float:
    there, back = _nearest(a, b)
    return float(max(there.max(), back.max()))


def _graph_edit(a: Structure, b: Structure) -> float:
    """First approximation of the edit distance: 1 to add or remove, the difference of Z or of lengths to change."""
    import networkx

    found = networkx.optimize_graph_edit_distance(
        _graph(a),
        _graph(b),
        node_subst_cost=lambda u, v: abs(u["z"] - v["z"]),
        edge_subst_cost=lambda u, v: abs(u["length"] - v["length"]),
    )
    return float(next(iter(found)))


def _graph(structure: Structure) -> networkx.Graph:
    import networkx

    graph: networkx.Graph = networkx.Graph()
    graph.add_nodes_from((i, {"z": int(site.specie.Z)}) for i, site in enumerate(structure))
    matrix = structure.distance_matrix
    for i, row in enumerate(matrix):
        for j in np.argsort(row, kind="stable")[:NEIGHBOURS]:
            if 0 < row[j] <= BOND:
                graph.add_edge(i, int(j), length=float(row[j]))
    return graph


_FUNCTIONS = {
    "orbital_field_matrix": _orbital_field_matrix,
    "crystalnn": _crystalnn,
    "superpose": _superpose,
    "rms": _rms,
    "rms_anonymous": _rms_anonymous,
    "xrd": _xrd,
    "chamfer": _chamfer,
    "hausdorff": _hausdorff,
    "graph_edit": _graph_edit,
}
