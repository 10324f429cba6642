"""Compiled kernels of the grid annealing: the random stream, heat bath, greedy sweeps and species swaps.

Everything that changes is passed in: no global state, so results are the same in threads and in processes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hpcgen.compiled import EXACT, FAST
from hpcgen.reconstruct.streams import heat_bath, uniform

EXCHANGE_EVERY = 2  # sweeps: while it is hot most exchanges are taken, and cost more than the moves of atoms


@njit(**FAST)
def _add_field(field, phi, where):
    """field(g) += phi(g - where) on the torus, for every grid point; field and phi (n1, n2, n3, K)."""
    n1, n2, n3, size = phi.shape
    for a in range(n1):
        for b in range(n2):
            row = phi[(a - where[0]) % n1, (b - where[1]) % n2]
            c2 = -where[2] % n3
            for c in range(n3):
                to, add = field[a, b, c], row[c2]
                for k in range(size):
                    to[k] += add[k]
                c2 = c2 + 1 if c2 + 1 < n3 else 0


@njit(**FAST)
def _move_field(field, phi, old, new):
    """field(g) += phi(g - new) - phi(g - old), in one pass over memory, which is what it costs."""
    n1, n2, n3, size = phi.shape
    for a in range(n1):
        for b in range(n2):
            row1 = phi[(a - new[0]) % n1, (b - new[1]) % n2]
            row2 = phi[(a - old[0]) % n1, (b - old[1]) % n2]
            c1, c2 = -new[2] % n3, -old[2] % n3
            for c in range(n3):
                to, plus, minus = field[a, b, c], row1[c1], row2[c2]
                for k in range(size):
                    to[k] += plus[k] - minus[k]
                c1 = c1 + 1 if c1 + 1 < n3 else 0
                c2 = c2 + 1 if c2 + 1 < n3 else 0


@njit(**FAST)
def _exchange_fields(field, other, phi, old, new):
    """The atom of `field` moves from old to new, that of `other` the opposite way: one difference serves both."""
    n1, n2, n3, size = phi.shape
    for a in range(n1):
        for b in range(n2):
            row1 = phi[(a - new[0]) % n1, (b - new[1]) % n2]
            row2 = phi[(a - old[0]) % n1, (b - old[1]) % n2]
            c1, c2 = -new[2] % n3, -old[2] % n3
            for c in range(n3):
                to, off, plus, minus = field[a, b, c], other[a, b, c], row1[c1], row2[c2]
                for k in range(size):
                    v = plus[k] - minus[k]
                    to[k] += v
                    off[k] -= v
                c1 = c1 + 1 if c1 + 1 < n3 else 0
                c2 = c2 + 1 if c2 + 1 < n3 else 0


@njit(**FAST)
def _losses(field, phi, where, s, offset, weight, loss):
    """Loss of every position of one atom of channel s now at `where`, all others fixed.

    loss(g) = sum_d weight_d |offset_d + field_d(g) - [d = s] phi(g - where)|^2, the terms of channel s only.
    """
    channels, n1, n2, n3, size = field.shape
    for a in range(n1):
        a2 = (a - where[0]) % n1
        for b in range(n2):
            b2 = (b - where[1]) % n2
            base = (a * n2 + b) * n3
            for c in range(n3):
                own = phi[a2, b2, (c - where[2]) % n3]
                other = field[s, a, b, c]
                total = np.float32(0)
                for k in range(size):
                    v = offset[s, k] + other[k] - own[k]
                    total += v * v
                total *= weight[s]
                for d in range(channels):
                    if d != s:
                        other = field[d, a, b, c]
                        part = np.float32(0)
                        for k in range(size):
                            v = offset[d, k] + other[k]
                            part += v * v
                        total += weight[d] * part
                loss[base + c] = total


@njit(**EXACT)
def _residual(field, phi, x, species, target, residual):
    """q - target of every pair of channels from the fields, into residual (C, C, K); returns the loss."""
    channels = field.shape[0]
    n, size = len(x), phi.shape[3]
    residual[:] = 0
    for i in range(n):
        c = species[i]
        for d in range(channels):
            at = field[d, x[i, 0], x[i, 1], x[i, 2]]
            for k in range(size):
                residual[c, d, k] += at[k] - (phi[0, 0, 0, k] if c == d else np.float32(0))
    loss = 0.0
    for c in range(channels):
        for d in range(c, channels):
            factor = np.float32((0.5 * math.sqrt(2.0) if c == d else 1.0) / n)
            for k in range(size):
                value = residual[c, d, k] * factor - target[c, d, k]
                residual[c, d, k] = residual[d, c, k] = value
                loss += value * value
    return loss


@njit(**FAST)
def _try_swap(i, j, field, phi, x, species, residual, total, temperature, state):
    """Metropolis exchange of two atoms of different channels; returns the change of the loss, 0 if rejected."""
    channels, size = field.shape[0], phi.shape[3]
    n = len(x)
    s, e = species[i], species[j]
    n1, n2, n3 = phi.shape[:3]
    between = phi[(x[i, 0] - x[j, 0]) % n1, (x[i, 1] - x[j, 1]) % n2, (x[i, 2] - x[j, 2]) % n3]
    here, there = np.empty((channels, size), np.float32), np.empty((channels, size), np.float32)
    new_s, new_e = np.empty((channels, size), np.float32), np.empty((channels, size), np.float32)
    for d in range(channels):  # field of channel d without i and j, where i is and where j is
        at_i, at_j = field[d, x[i, 0], x[i, 1], x[i, 2]], field[d, x[j, 0], x[j, 1], x[j, 2]]
        for k in range(size):
            here[d, k], there[d, k] = at_i[k], at_j[k]
            if d == s:
                here[d, k] -= phi[0, 0, 0, k]
                there[d, k] -= between[k]
            elif d == e:
                here[d, k] -= between[k]
                there[d, k] -= phi[0, 0, 0, k]
    root = np.float32(math.sqrt(2.0) / n)
    one = np.float32(1.0 / n)
    change = 0.0
    for d in range(channels):
        for k in range(size):
            v = there[d, k] - here[d, k]
            new_s[d, k] = residual[s, d, k] + v * (root if d == s else one)
            new_e[d, k] = residual[e, d, k] - v * (root if d == e else one)
            if d == e:  # the pair (s, e) gains from both atoms
                new_s[d, k] += one * (here[s, k] - there[s, k])
            change += new_s[d, k] ** 2 - residual[s, d, k] ** 2
            if d != s:
                change += new_e[d, k] ** 2 - residual[e, d, k] ** 2
    hot = temperature * total
    if not (change < 0 or (hot > 0 and uniform(state) < math.exp(-change / hot))):
        return 0.0
    _exchange_fields(field[s], field[e], phi, x[i], x[j])
    for z in range(3):
        x[i, z], x[j, z] = x[j, z], x[i, z]
    for d in range(channels):
        for k in range(size):
            residual[s, d, k] = residual[d, s, k] = new_s[d, k]
    for d in range(channels):
        if d != s:
            for k in range(size):
                residual[e, d, k] = residual[d, e, k] = new_e[d, k]
    return change


@njit(**EXACT)
def anneal(phi, species, target, x, fixed, sweeps, t_hot, t_cold, greedy, state):
    """Heat-bath annealing of atoms on a grid; x (n, 3) int64 holds the best positions afterwards.

    Every sweep moves each atom to a position drawn from the Boltzmann distribution over the whole grid at a
    temperature relative to the current loss, falling geometrically from t_hot to t_cold; every `EXCHANGE_EVERY`-th
    one then tries to exchange every pair of unlike atoms. `greedy` sweeps at temperature zero follow, until nothing
    moves.

    Args:
        phi: (n1, n2, n3, K) float32, see `Grid`.
        species: (n,) int64 channels.
        target: (C, C, K) float32.
        x: (n, 3) int64 start positions, changed in place.
        fixed: the atom that stays (the origin is free), or -1.
        state: (1,) uint64 random stream, advanced.

    Returns:
        (loss of the best positions, sweeps done).
    """
    n1, n2, n3, size = phi.shape
    n, channels = len(species), len(target)
    field = np.zeros((channels, n1, n2, n3, size), np.float32)
    for atom in range(n):
        _add_field(field[species[atom]], phi, x[atom])
    residual, offset = np.empty_like(target), np.empty((channels, size), np.float32)
    weight, loss = np.empty(channels, np.float32), np.empty(n1 * n2 * n3, np.float32)
    order, new = np.arange(n), np.empty(3, np.int64)
    total = _residual(field, phi, x, species, target, residual)
    best, best_x = total, x.copy()
    done = 0
    for sweep in range(sweeps + greedy):
        done += 1
        moved = 0
        t = t_hot * (t_cold / t_hot) ** (sweep / max(sweeps - 1, 1)) if sweep < sweeps else 0.0
        for k in range(n - 1, 0, -1):  # Fisher-Yates
            m = int(uniform(state) * (k + 1))
            order[k], order[m] = order[m], order[k]
        for i in order:
            if i == fixed:
                continue
            s = species[i]
            others = total
            for d in range(channels):
                factor = np.float32((math.sqrt(2.0) if d == s else 1.0) / n)
                weight[d] = factor * factor
                at = field[d, x[i, 0], x[i, 1], x[i, 2]]
                for k in range(size):
                    own = phi[0, 0, 0, k] if d == s else np.float32(0)
                    offset[d, k] = residual[s, d, k] / factor - (at[k] - own)
                    others -= residual[s, d, k] ** 2
            _losses(field, phi, x[i], s, offset, weight, loss)
            g = np.argmin(loss)
            if t > 0:
                g = heat_bath(loss, 1.0 / (t * (loss[g] + 0.5 * max(others, 0.0)) + 1e-12), state)
            new[0], new[1], new[2] = g // (n2 * n3), g // n3 % n2, g % n3
            if new[0] == x[i, 0] and new[1] == x[i, 1] and new[2] == x[i, 2]:
                continue
            moved += 1
            way = phi[(new[0] - x[i, 0]) % n1, (new[1] - x[i, 1]) % n2, (new[2] - x[i, 2]) % n3]
            for d in range(channels):
                factor = np.float32((math.sqrt(2.0) if d == s else 1.0) / n)
                at = field[d, new[0], new[1], new[2]]
                for k in range(size):
                    own = way[k] if d == s else np.float32(0)  # no atom feels itself
                    residual[s, d, k] = residual[d, s, k] = factor * (offset[d, k] + at[k] - own)
            _move_field(field[s], phi, x[i], new)
            x[i] = new
            total = others + loss[g]
        if channels > 1 and (sweep % EXCHANGE_EVERY == 0 or t == 0.0):
            for atom in range(n):
                for other in range(atom):
                    if species[atom] != species[other]:
                        change = _try_swap(atom, other, field, phi, x, species, residual, total, t, state)
                        if change != 0.0:
                            total += change
                            moved += 1
        total = _residual(field, phi, x, species, target, residual)  # sheds the rounding of the updates
        if total < best:
            best = total
            best_x[:] = x
        if t == 0.0 and moved == 0:
            break
    x[:] = best_x
    return best, done
