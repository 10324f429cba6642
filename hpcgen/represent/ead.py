"""Embedded atom density (EAD), the descriptor of StructRepDiff (arXiv 2408.07213), with its analytic gradient.

For atom i, order L, width eta and centre Rs (SCIENCE: the paper's equation, restored):

    rho_i = sum over lx+ly+lz=L of  L!/(lx! ly! lz!) * [ sum_j Z_j x^lx y^ly z^lz exp(-eta (r - Rs)^2) fc(r) ]^2

j runs over *all* periodic images within the cutoff Rc (however many cells that takes), the atom's own images
included; (x, y, z) is the vector from i to j in angstrom, fc the cosine cutoff. A structure is the maximum over
atoms, the minimum over atoms, and the smallest interatomic distance.

Shapes: n atoms, M monomials of degree <= l_max, E widths, K centres. Per-atom features (n, l_max+1, E, K).
The paper's preset (the defaults of `EadConfig`): Rc 20, L = 0, eta 1, 20, 90, K = 200: 1200 numbers and a distance.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.config import EadConfig
from hpcgen.crystal import Crystal, FloatArray

_TAIL = 28.0  # a Gaussian is cut where eta (r - Rs)^2 exceeds this: 1e-12 of its height
_REASSOCIATE = {"reassoc", "contract", "nsz"}  # lets sums be vectorised; still the same on every rank


class EmbeddedAtomDensity:
    """EAD of a crystal; species channels do not enter, atoms weigh by their atomic number."""

    name = "ead"

    def __init__(self, config: EadConfig) -> None:
        self.config = config
        self.etas = np.array(config.eta, dtype=np.float64)
        self.centres = np.arange(config.centres) * (config.cutoff / config.centres)
        self.exponents, self.weights = monomials(config.l_max)

    def length(self, n_channels: int = 1) -> int:
        """2 (l_max + 1) E K + 1, whatever the channels."""
        return 2 * (self.config.l_max + 1) * len(self.etas) * len(self.centres) + 1

    def names(self, n_channels: int = 1) -> list[str]:
        """Names such as `max:L0:eta20:R3.10`, then `smallest_distance`."""
        per_atom = [
            f"L{order}:eta{eta:g}:R{centre:.2f}"
            for order in range(self.config.l_max + 1)
            for eta in self.etas
            for centre in self.centres
        ]
        return [f"{pool}:{n}" for pool in ("max", "min") for n in per_atom] + ["smallest_distance"]

    def per_atom(self, crystal: Crystal) -> FloatArray:
        """(n, l_max+1, E, K) rho of every atom; invariant under supercells."""
        pairs, vectors = neighbours(crystal.frac, crystal.lattice, self.config.cutoff)
        sums = self.inner_sums(pairs, vectors, crystal.numbers.astype(np.float64))
        return densities(sums, self.exponents, self.weights)

    def encode(self, crystal: Crystal, species: NDArray[np.int64] | None = None, n_channels: int = 1) -> FloatArray:
        """(D,) float64: max ‖ min over atoms ‖ smallest distance (angstrom; the cutoff if no atom is within it)."""
        pairs, vectors = neighbours(crystal.frac, crystal.lattice, self.config.cutoff)
        sums = self.inner_sums(pairs, vectors, crystal.numbers.astype(np.float64))
        rho = densities(sums, self.exponents, self.weights).reshape(len(crystal), -1)
        closest = np.sqrt((vectors**2).sum(1).min()) if len(vectors) else self.config.cutoff
        return np.concatenate([rho.max(0), rho.min(0), [closest]])

    def inner_sums(self, pairs: NDArray[np.int64], vectors: FloatArray, z: FloatArray) -> FloatArray:
        """(n, M, E, K) the brackets of the definition, before they are squared."""
        return inner_sums(pairs, vectors, z, self.exponents, self.etas, self.centres, self.config.cutoff)


def monomials(l_max: int) -> tuple[NDArray[np.int64], FloatArray]:
    """(M, 3) exponents (lx, ly, lz) of degree <= l_max, by degree, and (M,) multinomial weights L!/(lx! ly! lz!)."""
    exponents = [
        (lx, ly, order - lx - ly)
        for order in range(l_max + 1)
        for lx in range(order, -1, -1)
        for ly in range(order - lx, -1, -1)
    ]
    weights = [math.factorial(sum(e)) / math.prod(math.factorial(v) for v in e) for e in exponents]
    return np.array(exponents, dtype=np.int64), np.array(weights)


@njit(cache=True, nogil=True)
def neighbours(frac, lattice, cutoff):  # pragma: no cover - compiled
    """All pairs within the cutoff, each once: (P, 2) atoms i <= j and (P, 3) vectors from i to the image of j.

    Of an atom's own images one of each pair T, -T is listed, so that for every entry both ends see a neighbour.
    """
    n = frac.shape[0]
    inverse = np.linalg.inv(lattice)
    reach = np.empty(3)  # cutoff in units of the cell's heights: bounds each fractional coordinate
    for a in range(3):
        reach[a] = cutoff * math.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
    c = lattice[2]
    cc = c[0] ** 2 + c[1] ** 2 + c[2] ** 2
    volume = abs(np.linalg.det(lattice))
    capacity = int(n * n * 0.5 * (4.19 * (cutoff + 1.0) ** 3 / volume) * 1.2) + 64
    pairs = np.empty((capacity, 2), np.int64)
    vectors = np.empty((capacity, 3))
    count = 0
    for i in range(n):
        for j in range(i, n):
            d = frac[j] - frac[i]
            for a in range(3):
                d[a] -= np.rint(d[a])
            for ta in range(math.ceil(-reach[0] - d[0]), math.floor(reach[0] - d[0]) + 1):
                for tb in range(math.ceil(-reach[1] - d[1]), math.floor(reach[1] - d[1]) + 1):
                    v = (ta + d[0]) * lattice[0] + (tb + d[1]) * lattice[1]
                    vc = v[0] * c[0] + v[1] * c[1] + v[2] * c[2]
                    vv = v[0] ** 2 + v[1] ** 2 + v[2] ** 2
                    # |v + s c| < cutoff holds for s between the roots of a quadratic
                    root = vc * vc - cc * (vv - cutoff * cutoff)
                    if root <= 0.0:
                        continue
                    root = math.sqrt(root)
                    low = math.ceil((-vc - root) / cc - d[2])
                    high = math.floor((-vc + root) / cc - d[2])
                    for tc in range(low, high + 1):
                        own = ta > 0 or (ta == 0 and (tb > 0 or (tb == 0 and tc > 0)))
                        if i == j and not own:
                            continue
                        if count == capacity:
                            capacity *= 2
                            more_pairs = np.empty((capacity, 2), np.int64)
                            more_vectors = np.empty((capacity, 3))
                            more_pairs[:count] = pairs
                            more_vectors[:count] = vectors
                            pairs, vectors = more_pairs, more_vectors
                        pairs[count, 0] = i
                        pairs[count, 1] = j
                        vectors[count] = v + (tc + d[2]) * c
                        count += 1
    return pairs[:count].copy(), vectors[:count].copy()


@njit(cache=True, nogil=True, inline="always")
def _window(r, eta, centres):  # pragma: no cover - compiled
    """Range of centres that a pair at distance r reaches with width eta."""
    spacing = centres[1] - centres[0] if centres.shape[0] > 1 else 1.0
    half = math.sqrt(_TAIL / eta)
    return (
        max(0, math.ceil((r - half) / spacing)),
        min(centres.shape[0], math.floor((r + half) / spacing) + 1),
    )


@njit(cache=True, nogil=True, inline="always")
def _gaussians(r, eta, centres, low, high, height, out):  # pragma: no cover - compiled
    """out[k] = height * exp(-eta (r - centres[k])^2) for low <= k < high, by recurrence from the nearest centre."""
    spacing = centres[1] - centres[0] if centres.shape[0] > 1 else 1.0
    middle = min(max(int(r / spacing + 0.5), low), high - 1)
    x = r - centres[middle]
    up = down = out[middle] = height * math.exp(-eta * x * x)
    change = math.exp(-2.0 * eta * spacing * spacing)
    ratio_up = math.exp(eta * (2.0 * x * spacing - spacing * spacing))
    ratio_down = math.exp(eta * (-2.0 * x * spacing - spacing * spacing))
    both = min(high - 1 - middle, middle - low)
    for k in range(1, both + 1):  # two independent chains of products run side by side
        up *= ratio_up
        down *= ratio_down
        ratio_up *= change
        ratio_down *= change
        out[middle + k] = up
        out[middle - k] = down
    for k in range(middle + both + 1, high):
        up *= ratio_up
        ratio_up *= change
        out[k] = up
    for k in range(middle - both - 1, low - 1, -1):
        down *= ratio_down
        ratio_down *= change
        out[k] = down


@njit(cache=True, nogil=True, inline="always")
def _power(x, exponent):  # pragma: no cover - compiled
    value = 1.0
    for _ in range(exponent):
        value *= x
    return value


@njit(cache=True, nogil=True, fastmath=_REASSOCIATE)
def inner_sums(pairs, vectors, z, exponents, etas, centres, cutoff):  # pragma: no cover - compiled
    """(n, M, E, K): sum_j Z_j x^lx y^ly z^lz exp(-eta (r - Rs)^2) fc(r) of every atom."""
    n_monomials = exponents.shape[0]
    sums = np.zeros((z.shape[0], n_monomials, etas.shape[0], centres.shape[0]))
    gauss = np.empty(centres.shape[0])
    for p in range(pairs.shape[0]):
        i, j = pairs[p]
        x, y, w = vectors[p]
        r = math.sqrt(x * x + y * y + w * w)
        if r >= cutoff:
            continue
        fc = 0.5 * (math.cos(math.pi * r / cutoff) + 1.0)
        for e in range(etas.shape[0]):
            low, high = _window(r, etas[e], centres)
            if low >= high:
                continue
            _gaussians(r, etas[e], centres, low, high, fc, gauss)
            for m in range(n_monomials):
                degree = exponents[m, 0] + exponents[m, 1] + exponents[m, 2]
                term = _power(x, exponents[m, 0]) * _power(y, exponents[m, 1]) * _power(w, exponents[m, 2])
                at_i = z[j] * term
                at_j = z[i] * term * (1.0 if degree % 2 == 0 else -1.0)  # seen from j the vector is reversed
                for k in range(low, high):
                    sums[i, m, e, k] += at_i * gauss[k]
                for k in range(low, high):
                    sums[j, m, e, k] += at_j * gauss[k]
    return sums


@njit(cache=True, nogil=True)
def densities(sums, exponents, weights):  # pragma: no cover - compiled
    """(n, l_max+1, E, K) rho from the inner sums."""
    n, n_monomials, n_etas, n_centres = sums.shape
    last = exponents[n_monomials - 1]
    rho = np.zeros((n, last[0] + last[1] + last[2] + 1, n_etas, n_centres))
    for m in range(n_monomials):
        order = exponents[m, 0] + exponents[m, 1] + exponents[m, 2]
        rho[:, order] += weights[m] * sums[:, m] ** 2
    return rho


@njit(cache=True, nogil=True, fastmath=_REASSOCIATE)
def pull_back(pairs, vectors, z, exponents, etas, centres, cutoff, slopes):  # pragma: no cover - compiled
    """(n, 3) gradient with respect to Cartesian positions of a loss whose derivative by the inner sums is `slopes`.

    slopes: (n, M, E, K). An atom's own images move with it, so they do not contribute.
    """
    gradient = np.zeros((z.shape[0], 3))
    gauss = np.empty(centres.shape[0])
    v = np.empty(3)
    for p in range(pairs.shape[0]):
        i, j = pairs[p]
        if i == j:
            continue
        v[:] = vectors[p]
        r = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
        if r >= cutoff or r < 1e-9:
            continue
        fc = 0.5 * (math.cos(math.pi * r / cutoff) + 1.0)
        dfc = -0.5 * math.pi / cutoff * math.sin(math.pi * r / cutoff)
        for e in range(etas.shape[0]):
            low, high = _window(r, etas[e], centres)
            if low >= high:
                continue
            _gaussians(r, etas[e], centres, low, high, 1.0, gauss)
            for m in range(exponents.shape[0]):
                lx, ly, lz = exponents[m]
                sign = 1.0 if (lx + ly + lz) % 2 == 0 else -1.0
                value = 0.0  # sum_k slope_k g_k, both ends
                moment = 0.0  # sum_k slope_k (r - Rs_k) g_k
                for k in range(low, high):
                    s = (slopes[i, m, e, k] * z[j] + sign * slopes[j, m, e, k] * z[i]) * gauss[k]
                    value += s
                    moment += s * (r - centres[k])
                px, py, pz = _power(v[0], lx), _power(v[1], ly), _power(v[2], lz)
                radial = px * py * pz * (dfc * value - 2.0 * etas[e] * fc * moment) / r
                step_x = radial * v[0] + (fc * value * lx * _power(v[0], lx - 1) * py * pz if lx > 0 else 0.0)
                step_y = radial * v[1] + (fc * value * ly * _power(v[1], ly - 1) * px * pz if ly > 0 else 0.0)
                step_z = radial * v[2] + (fc * value * lz * _power(v[2], lz - 1) * px * py if lz > 0 else 0.0)
                gradient[j, 0] += step_x
                gradient[j, 1] += step_y
                gradient[j, 2] += step_z
                gradient[i, 0] -= step_x
                gradient[i, 1] -= step_y
                gradient[i, 2] -= step_z
    return gradient
