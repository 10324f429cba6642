"""Heat-bath annealing of whole orbits of a symmetry group: the symmetric starts.

All atoms of an orbit move together, and only one representative of each orbit of grid points is looked at, so that a
sweep costs about the order of the group squared less than one of single atoms.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST
from hpcgen.reconstruct.groups import orbits, random_group, split_into_orbits
from hpcgen.reconstruct.streams import heat_bath, uniform

DRAWS = 20  # groups and splittings drawn before a symmetric start is given up
MOST_ORBITS = 0.75  # of the number of atoms: more is hardly a symmetry


@njit(**FAST)
def _own_images(phi, members, sizes):
    """(r, K) sum of phi from the first point of each orbit to its others."""
    n1, n2, n3, size = phi.shape
    out = np.zeros((len(members), size), np.float32)
    for r in range(len(members)):
        g = members[r, 0]
        for m in range(1, sizes[r]):
            v = members[r, m]
            row = phi[
                (v // (n2 * n3) - g // (n2 * n3)) % n1, (v // n3 % n2 - g // n3 % n2) % n2, (v % n3 - g % n3) % n3
            ]
            for k in range(size):
                out[r, k] += row[k]
    return out


@njit(**FAST)
def _add_orbit(field, phi, members, orbit, size, sign):
    """field(r) += sign * sum of phi(r - v) over the points v of an orbit, for the first point r of every orbit."""
    n1, n2, n3, bins = phi.shape
    for m in range(size):
        v = members[orbit, m]
        v1, v2, v3 = v // (n2 * n3), v // n3 % n2, v % n3
        for r in range(len(members)):
            g = members[r, 0]
            row = phi[(g // (n2 * n3) - v1) % n1, (g // n3 % n2 - v2) % n2, (g % n3 - v3) % n3]
            to = field[r]
            for k in range(bins):
                to[k] += sign * row[k]


@njit(**FAST)
def _shift(residual, field, own, s, at, weight, n):
    """residual += weight * (what an orbit of channel s at `at` adds); symmetric in the channels. `weight` has sign."""
    for d in range(len(residual)):
        factor = np.float32(weight * (math.sqrt(2.0) if d == s else 1.0) / n)
        for k in range(residual.shape[2]):
            value = field[d, at, k]
            if d == s:
                value += np.float32(0.5) * own[at, k]
            residual[s, d, k] += factor * value
            if d != s:
                residual[d, s, k] = residual[s, d, k]


@njit(**FAST)
def _orbit_losses(field, own, residual, s, first, last, weight, n, loss):
    """Loss of the terms of channel s for every orbit first <= r < last as the place of an orbit of that channel."""
    for r in range(first, last):
        total = np.float32(0)
        for d in range(len(residual)):
            factor = np.float32(weight * (math.sqrt(2.0) if d == s else 1.0) / n)
            part = np.float32(0)
            if d == s:
                for k in range(residual.shape[2]):
                    v = residual[s, d, k] + factor * (field[d, r, k] + np.float32(0.5) * own[r, k])
                    part += v * v
            else:
                for k in range(residual.shape[2]):
                    v = residual[s, d, k] + factor * field[d, r, k]
                    part += v * v
            total += part
        loss[r - first] = total


@njit(**EXACT)
def _total(residual):
    """Sum of squares over unordered pairs of channels."""
    total = 0.0
    for c in range(len(residual)):
        for d in range(c, len(residual)):
            for k in range(residual.shape[2]):
                total += residual[c, d, k] ** 2
    return total


@njit(**EXACT)
def anneal_orbits(phi, members, sizes, channel, size, target, sweeps, t_hot, t_cold, greedy, state):
    """Heat bath over the places of orbits, as `kernels.anneal` does it over those of atoms.

    Args:
        phi: (n1, n2, n3, K) float32, see `Grid`.
        members, sizes: see `groups.orbits`.
        channel, size: (m,) what is placed, see `groups.split_into_orbits`.
        target: (C, C, K) float32.

    Returns:
        (m,) index of the orbit of points that each is placed on, and sweeps done.
    """
    bins = phi.shape[3]
    n, slots = np.sum(size), len(size)
    first = np.searchsorted(sizes, size)
    last = np.searchsorted(sizes, size, side="right")
    own = _own_images(phi, members, sizes)
    field = np.zeros((len(target), len(members), bins), np.float32)
    residual = -target
    loss = np.empty(len(members), np.float32)
    at = np.empty(slots, np.int64)
    best, best_at = np.inf, at.copy()
    order = np.arange(slots)
    done = 0
    for sweep in range(-1, sweeps + greedy):  # the one before the first places everything at random
        t = t_hot * (t_cold / t_hot) ** (sweep / max(sweeps - 1, 1)) if sweep < sweeps else 0.0
        for k in range(slots - 1, 0, -1):
            m = int(uniform(state) * (k + 1))
            order[k], order[m] = order[m], order[k]
        moved = 0
        for i in order:
            s, weight = channel[i], float(size[i])
            if sweep >= 0:
                _add_orbit(field[s], phi, members, at[i], size[i], np.float32(-1))
                _shift(residual, field, own, s, at[i], -weight, n)
            room = last[i] - first[i]
            if sweep < 0:
                place = int(uniform(state) * room)
            else:
                others = _total(residual)
                for d in range(len(target)):
                    for k in range(bins):
                        others -= residual[s, d, k] ** 2
                _orbit_losses(field, own, residual, s, first[i], last[i], weight, n, loss)
                place = int(np.argmin(loss[:room]))
                if t > 0:
                    scale = t * (loss[place] + 0.5 * max(others, 0.0)) + 1e-12
                    place = heat_bath(loss[:room], 1.0 / scale, state)
                moved += first[i] + place != at[i]
            at[i] = first[i] + place
            _shift(residual, field, own, s, at[i], weight, n)
            _add_orbit(field[s], phi, members, at[i], size[i], np.float32(1))
        if sweep < 0:
            continue
        done += 1
        total = _total(residual)
        if total < best:
            best = total
            best_at[:] = at
        if t == 0.0 and moved == 0:
            break
    return best_at, best, done


@njit(**EXACT)
def symmetric_start(phi, matrices, orders, species, target, sweeps, t_hot, t_cold, greedy, state):
    """Grid positions annealed under a random group.

    Args:
        matrices, orders: see `groups.lattice_operations`.
        species: (n,) int64 channels.

    Returns:
        (n, 3) int64 grid positions, the loss (of a symmetric lattice; infinity if no group came out), sweeps done.
    """
    n1, n2, n3, _ = phi.shape
    shape = np.array([n1, n2, n3])
    counts = np.zeros(len(target), np.int64)
    for c in species:
        counts[c] += 1
    x = np.zeros((len(species), 3), np.int64)
    for _ in range(DRAWS):
        rotations, translations = random_group(matrices, orders, shape, state)
        if len(rotations) < 2:
            continue
        members, sizes = orbits(rotations, translations, shape)
        channel, size = split_into_orbits(counts, sizes, state)
        if len(size) == 0 or len(size) > MOST_ORBITS * len(species) + 1:
            continue
        at, loss, done = anneal_orbits(phi, members, sizes, channel, size, target, sweeps, t_hot, t_cold, greedy, state)
        filled = np.zeros(len(species), np.bool_)
        for i in range(len(size)):
            atom = 0
            for m in range(size[i]):
                while filled[atom] or species[atom] != channel[i]:
                    atom += 1
                filled[atom] = True
                v = members[at[i], m]
                x[atom, 0], x[atom, 1], x[atom, 2] = v // (n2 * n3), v // n3 % n2, v % n3
        return x, loss, done
    return x, np.inf, 0
