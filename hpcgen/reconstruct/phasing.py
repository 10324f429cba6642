"""Phase retrieval: the crystal of one element from its structure factor, as powder diffraction is solved.

The S block of a pair spectrum is a powder pattern without errors: it holds |F(G)|^2 of shells of reflections, and the
phases are lost. Two sets of structure factors are easy to project on: those that fill the bins, and those of n equal
atoms. The crystal lies in both, and relaxed-reflect-reflect finds it (Elser, SIAM J. Imaging Sci. 11 (2018) 2429; with
beta = 1 it is Douglas-Rachford, and the difference map of Elser, J. Opt. Soc. Am. A 20 (2003) 40):

    F <- F + beta (P_atoms(2 P_bins(F) - F) - P_bins(F))

It does not go downhill in any loss, so it has no false minima to be caught in: it wanders until it falls into the
solution. How overlapping reflections share a bin is taken from the current F, as in powder charge flipping (Wu,
Leinenweber, Spence and O'Keeffe, Nature Materials 5 (2006) 647). An iteration costs a fortieth of an annealing sweep.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hpcgen.compiled import EXACT
from hpcgen.crystal import FloatArray
from hpcgen.reconstruct.phasing_kernels import density, fourier_table, highest_peaks, meet_bins, structure_factors
from hpcgen.reconstruct.streams import uniform
from hpcgen.represent.pair_kernels import PairTables

BETA = 1.0  # 0.3 takes four times the iterations, 1.2 half as many again
STEP = 0.55  # angstrom (scaled): grid of the density
BLUR = 0.08  # square angstrom: the density is damped by exp(-BLUR |G|^2), against ripples around atoms
CLOSEST = 1.2  # angstrom (scaled): peaks do not come closer; about the resolution, 2 pi / 5
UNSEEN = 0.1  # see `meet_bins`; one atom alone has intensity 1
ENOUGH = 0.02  # squared residual of the bins, relative to their norm, from which the polish finds the crystal


class Phasing(NamedTuple):
    """What phase retrieval needs to know of a cell and its target.

    Attributes:
        tables: of the cell.
        fourier: see `phasing_kernels.density`.
        damp: (g,) of the density.
        wanted: (bins,) sum_g a_gm (|F_g|^2 - n).
        shape: (3,) grid of the density.
        band: bins that one reflection reaches, less one.
    """

    tables: PairTables
    fourier: tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
    damp: FloatArray
    wanted: FloatArray
    shape: NDArray[np.int64]
    band: int


@njit(**EXACT)
def phasing(tables, target, n):
    """`Phasing` for a cell and a target (rdf_bins + s_bins,) of one channel of n atoms, without the self terms."""
    largest, shape = np.zeros(3, np.int64), np.empty(3, np.int64)
    damp = np.empty(len(tables.miller))
    for g in range(len(tables.miller)):
        damp[g] = math.exp(-BLUR * np.sum(tables.waves[g] ** 2))
        for a in range(3):
            largest[a] = max(largest[a], abs(tables.miller[g, a]))
    for a in range(3):
        length = math.sqrt(np.sum(tables.cell[a] ** 2))
        shape[a] = max(2 * largest[a] + 2, math.ceil(length / STEP))
    fourier = (
        fourier_table(largest[0], shape[0]),
        fourier_table(largest[1], shape[1]),
        fourier_table(largest[2], shape[2]),
    )
    wanted = target[len(tables.centres) :] * (n * math.sqrt(2.0))
    band = 0
    for g in range(len(tables.miller)):
        band = max(band, tables.last[g] - tables.first[g] - 1)
    return Phasing(tables, fourier, damp, wanted, shape, band)


@njit(**EXACT)
def _place(frac, first, tables, state, cart):
    """Random fractions from row `first` on, and the Cartesian positions of all rows."""
    for i in range(len(frac)):
        for a in range(3):
            if i >= first:
                frac[i, a] = uniform(state)
        for z in range(3):
            cart[i, z] = 0.0
            for a in range(3):
                cart[i, z] += frac[i, a] * tables.cell[a, z]


@njit(**EXACT)
def _bins_missed(re, im, tables, wanted, n, miss):
    """Squared residual of the bins; miss (bins,) is working space."""
    miss[:] = wanted
    for g in range(len(re)):
        excess = re[g] * re[g] + im[g] * im[g] - n
        for m in range(tables.first[g], tables.last[g]):
            miss[m] -= tables.weights[g, m] * excess
    return np.sum(miss * miss)


@njit(**EXACT)
def retrieve(problem, n, iterations, damping, state):
    """Relaxed-reflect-reflect from n atoms at random.

    Args:
        problem: see `Phasing`.
        iterations: at most.
        damping: of the equations of the bins, see `meet_bins`.
        state: (1,) uint64 random stream, advanced.

    Returns:
        (Cartesian positions (n, 3) whose bins fit best, their squared residual relative to the bins', iterations done).
    """
    tables, wanted = problem.tables, problem.wanted
    size = len(tables.miller)
    re, im, atoms_re, atoms_im = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    bins_re, bins_im, trial_re, trial_im = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    lower, step = np.empty((len(wanted), problem.band + 1)), np.empty(len(wanted))
    rho = np.empty((problem.shape[0], problem.shape[1], problem.shape[2]))
    frac, cart = np.empty((n, 3)), np.empty((n, 3))
    _place(frac, 0, tables, state, cart)
    structure_factors(cart, tables.inverse, tables.miller, re, im)
    norm = max(np.sum(wanted * wanted), 1e-12)
    best, best_cart, done = np.inf, cart.copy(), 0
    while done < iterations and best > ENOUGH:
        done += 1
        meet_bins(re, im, tables, wanted, n, damping, UNSEEN, lower, step, bins_re, bins_im)
        for g in range(size):
            trial_re[g], trial_im[g] = 2 * bins_re[g] - re[g], 2 * bins_im[g] - im[g]
        density(trial_re, trial_im, problem.damp, tables.miller, problem.fourier, rho)
        found = highest_peaks(rho, tables.cell, tables.images, CLOSEST, frac)
        _place(frac, found, tables, state, cart)
        structure_factors(cart, tables.inverse, tables.miller, atoms_re, atoms_im)
        for g in range(size):
            re[g] += BETA * (atoms_re[g] - bins_re[g])
            im[g] += BETA * (atoms_im[g] - bins_im[g])
        miss = _bins_missed(atoms_re, atoms_im, tables, wanted, n, step) / norm
        if miss < best:
            best = miss
            best_cart[:] = cart
    return best_cart, best, done
