"""Crystals with known answers."""

from __future__ import annotations

import numpy as np

from hpcgen.crystal import Crystal

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2


def rocksalt(a: float, cation: int = 11, anion: int = 17) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([cation, anion]))


def diamond(a: float, z: int = 14) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.25, 0.25, 0.25]]), np.array([z, z]))


def perovskite(a: float) -> Crystal:
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Crystal(a * np.eye(3), frac, np.array([38, 22, 8, 8, 8]))


def strained(crystal: Crystal, strain: float, rattle: float, seed: int = 0) -> Crystal:
    """With a random strain and random displacements (angstrom)."""
    rng = np.random.default_rng(seed)
    lattice = crystal.lattice @ (np.eye(3) + strain * rng.normal(size=(3, 3)))
    cart = crystal.frac @ lattice + rattle * rng.normal(size=crystal.frac.shape)
    return Crystal(lattice, cart @ np.linalg.inv(lattice), crystal.numbers)
