"""Built-in data: AFLOW prototypes decorated with charge-balanced ions, scaled to the sum of ionic radii.

A prototype is used for every assignment of cations and anions to its species that
1. is neutral with common oxidation states,
2. leaves every cation's nearest neighbour an anion and the other way round (`MIN_LIKE_RATIO`),
3. gives every cation a coordination number for which Shannon tabulates a radius, or one beside it, and
4. fits: scaled isotropically to the sums of radii, no cation's mean bond is far from its sum (`MAX_MISFIT`, the
   idea of Goldschmidt's tolerance factor), no single bond is much shorter (`MIN_BOND`), and no two anions overlap
   (`MIN_ANION_CONTACT`, Pauling's first rule).

Two assignments of one composition whose mean distance shells agree to `SAME_SHELL` are one crystal.
No random numbers: the same chemical space gives the same crystals in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import DataConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.data.aflow import Prototype, library
from hpcgen.data.elements import element_structures
from hpcgen.data.gate import Limits, atomic_numbers_of, right_handed
from hpcgen.data.radii import anion_charge, cation_charges, nearest_coordination
from hpcgen.errors import ConfigError, DataError

__all__ = ["Decoration", "decorated", "decorations", "element_structures"]

MIN_LIKE_RATIO = 1.1  # nearest ion of the same sign / nearest of the other; 1.155 in CsCl and fluorite
SHELL = 1.25  # neighbours within this ratio of the nearest are the first shell
MAX_MISFIT = 0.10  # relative deviation of one cation's mean bond length from the sum of radii
MIN_BOND = 0.85  # shortest cation-anion distance / sum of radii
MIN_ANION_CONTACT = 0.88  # anion-anion distance / sum of radii; 0.91 along shared edges of corundum
MAX_COORDINATION_GAP = 1
SAME_SHELL = 0.01  # relative to the cube root of the volume per atom
_SHELL_NEIGHBOURS = 12
_IMAGES = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class Decoration:
    """One built-in crystal.

    Attributes:
        label: prototype and its new elements in the order of its species, `AB_cF8_225_a_b/NaCl:F,Li`; unique.
        prototype: name of the prototype.
        charges: oxidation state by element symbol.
        crystal: the crystal, Niggli-reduced.
    """

    label: str
    prototype: str
    charges: dict[str, int]
    crystal: Crystal


@dataclass(frozen=True, eq=False)
class _Roles:
    """Which species of a prototype are anions, and what follows from that.

    Attributes:
        anions: (k,) bool per species.
        coordination: (k,) mean number of neighbours of the other sign in the first shell, rounded.
        bonds: for each cation species the (distance, anion species) of its first shell, all its atoms together.
        like: smallest distance of each pair of anion species (i <= j), angstrom.
    """

    anions: tuple[bool, ...]
    coordination: tuple[int, ...]
    bonds: dict[int, list[tuple[float, int]]]
    like: dict[tuple[int, int], float]


def decorated(config: DataConfig) -> Iterator[tuple[str, Crystal]]:
    """(label, crystal) of the built-in data, as a source of `hpcgen.data.read`."""
    return ((d.label, d.crystal) for d in decorations(config))


def decorations(config: DataConfig) -> list[Decoration]:
    """The decorated prototypes of the chemical space `config.builtin` within the limits of `config`.

    If there are more than `max_structures`, those with the smallest digests of their labels are kept: an even
    choice from all prototypes that does not depend on the others.

    Raises:
        ConfigError: if a cation has no positive or an anion no negative common oxidation state.
        DataError: if nothing in the space is charge-balanced and fits.
    """
    cations, anions = _space(config)
    candidates: list[tuple[Decoration, FloatArray]] = []
    for prototype in library():
        n_species = len(prototype.symbols)
        if len(prototype.crystal) > config.max_atoms or not 2 <= n_species <= config.max_elements:
            continue
        for roles in _roles(prototype):
            choices = [anions if is_anion else cations for is_anion in roles.anions]
            for elements in product(*choices):
                if len(set(elements)) == n_species and (made := _decorate(prototype, roles, elements)):
                    candidates.append((made, _shells_of(prototype, elements)))
    found = _distinct(candidates)
    if not found:
        raise DataError(
            f"no prototype of at most {config.max_atoms} atoms and {config.max_elements} elements is charge-balanced "
            f"and fits with cations {', '.join(cations) or '(none)'} and anions {', '.join(anions) or '(none)'}",
            remedy="widen data.builtin.cations, data.builtin.anions, data.elements or data.max_atoms",
        )
    kept = {d.label for d in sorted(found, key=lambda d: _digest(d.label))[: config.builtin.max_structures]}
    return [d for d in found if d.label in kept]


def _space(config: DataConfig) -> tuple[list[str], list[str]]:
    """Cations and anions of the configuration that `data.elements` allows."""
    allowed = Limits.of(config).elements
    out = []
    for key, listed in (("cations", config.builtin.cations), ("anions", config.builtin.anions)):
        symbols = list(dict.fromkeys(listed))
        numbers = atomic_numbers_of(symbols, f"data.builtin.{key}")
        wrong = [s for s in symbols if not (cation_charges(s) if key == "cations" else anion_charge(s))]
        if wrong:
            sign = "positive" if key == "cations" else "negative"
            raise ConfigError(
                f"data.builtin.{key}: {', '.join(wrong)} without a {sign} common oxidation state and ionic radius",
                expected="ions that Shannon tabulates",
                remedy=f"remove it from data.builtin.{key}",
            )
        out.append([s for s, z in zip(symbols, numbers, strict=True) if z in allowed])
    return out[0], out[1]


@cache
def _distances(prototype: Prototype) -> FloatArray:
    """(n, n, 125) distances from atom i to the images of atom j, angstrom; an atom to itself is infinite."""
    crystal = prototype.crystal
    delta = crystal.frac[None, :, None] - crystal.frac[:, None, None] + _IMAGES
    distance = np.linalg.norm(delta @ crystal.lattice, axis=-1)
    distance[distance < 1e-8] = np.inf
    return distance


def _roles(prototype: Prototype) -> Iterator[_Roles]:
    """Every choice of anion species under which nearest neighbours have opposite signs."""
    k = len(prototype.symbols)
    distance, species = _distances(prototype), prototype.species
    for size in range(1, k):
        for chosen in combinations(range(k), size):
            is_anion = np.isin(np.arange(k), chosen)
            sign = is_anion[species]
            unlike = sign[:, None] != sign[None, :]
            across = np.where(unlike[..., None], distance, np.inf)
            nearest = across.min(axis=(1, 2))
            same = np.where(unlike[..., None], np.inf, distance).min(axis=(1, 2))
            if (same < MIN_LIKE_RATIO * nearest).any():
                continue
            yield _shells(prototype, is_anion, across, nearest)


def _shells(prototype: Prototype, is_anion: NDArray, across: FloatArray, nearest: FloatArray) -> _Roles:
    species, k = prototype.species, len(prototype.symbols)
    shell = across < SHELL * nearest[:, None, None]
    counts = shell.sum(axis=(1, 2))
    coordination = tuple(round(float(counts[species == s].mean())) for s in range(k))
    bonds: dict[int, list[tuple[float, int]]] = {}
    for i, j, image in np.argwhere(shell):
        if not is_anion[species[i]]:
            bonds.setdefault(int(species[i]), []).append((float(across[i, j, image]), int(species[j])))
    like = {}
    distance = _distances(prototype)
    for s, t in product(np.flatnonzero(is_anion), repeat=2):
        if s <= t:
            like[int(s), int(t)] = float(distance[species == s][:, species == t].min())
    return _Roles(tuple(bool(a) for a in is_anion), coordination, bonds, like)


def _decorate(prototype: Prototype, roles: _Roles, elements: tuple[str, ...]) -> Decoration | None:
    """The scaled crystal if it is neutral and fits."""
    charges = _neutral(prototype.counts, roles.anions, elements)
    if charges is None:
        return None
    radii = []
    for s, (symbol, charge) in enumerate(zip(elements, charges, strict=True)):
        found = nearest_coordination(symbol, charge, roles.coordination[s])
        if found is None:
            return None
        # An anion's radius hardly depends on its coordination, a cation's does.
        if not roles.anions[s] and abs(found[0] - roles.coordination[s]) > MAX_COORDINATION_GAP:
            return None
        radii.append(found[1])
    stretch = {s: float(np.mean([(radii[s] + radii[a]) / d for d, a in shell])) for s, shell in roles.bonds.items()}
    # Weighted by charge: the bonds of a highly charged ion are the stiffer ones (Pauling's bond strength).
    weight = {s: charges[s] * prototype.counts[s] for s in stretch}
    scale = sum(weight[s] * stretch[s] for s in stretch) / sum(weight.values())
    if any(abs(stretch[s] / scale - 1) > MAX_MISFIT for s in stretch):
        return None
    if any(d * scale < MIN_BOND * (radii[s] + radii[a]) for s, shell in roles.bonds.items() for d, a in shell):
        return None
    if any(d * scale < MIN_ANION_CONTACT * (radii[s] + radii[t]) for (s, t), d in roles.like.items()):
        return None
    from ase.data import atomic_numbers

    numbers = np.array([atomic_numbers[e] for e in elements])[prototype.species]
    crystal = right_handed(Crystal(prototype.crystal.lattice * scale, prototype.crystal.frac, numbers))
    label = f"{prototype.name}:{','.join(elements)}"
    return Decoration(label, prototype.name, dict(zip(elements, charges, strict=True)), crystal)


def _neutral(counts: tuple[int, ...], anions: tuple[bool, ...], elements: tuple[str, ...]) -> tuple[int, ...] | None:
    """Common oxidation states with which the cell is neutral; the first in ascending order, None if there are none."""
    states = [
        ((anion_charge(e) or 0),) if is_anion else cation_charges(e)
        for e, is_anion in zip(elements, anions, strict=True)
    ]
    for charges in product(*states):
        if sum(q * n for q, n in zip(charges, counts, strict=True)) == 0:
            return charges
    return None


def _distinct(found: list[tuple[Decoration, FloatArray]]) -> list[Decoration]:
    """The first of each set of equal crystals."""
    kept: dict[str, list[FloatArray]] = {}
    out = []
    for item, shells in found:
        others = kept.setdefault(item.crystal.formula, [])
        if all(np.abs(shells - other).max() > SAME_SHELL for other in others):
            others.append(shells)
            out.append(item)
    return out


def _shells_of(prototype: Prototype, elements: tuple[str, ...]) -> FloatArray:
    """The mean shells with species in alphabetical order of their new elements, comparable within a composition."""
    order = np.argsort(elements)
    return _mean_shells(prototype)[np.ix_(order, order)]


@cache
def _mean_shells(prototype: Prototype) -> FloatArray:
    """(k, k, 12) mean distance from atoms of one species to their 1st, 2nd, ... neighbour of another.

    In units of the cube root of the volume per atom. Does not depend on the cell, its order of atoms or its size.
    """
    crystal, species, k = prototype.crystal, prototype.species, len(prototype.symbols)
    out = np.empty((k, k, _SHELL_NEIGHBOURS))
    for s, t in product(range(k), repeat=2):
        block = _distances(prototype)[species == s][:, species == t]
        out[s, t] = np.sort(block.reshape(len(block), -1), axis=1)[:, :_SHELL_NEIGHBOURS].mean(axis=0)
    return out / (crystal.volume / len(crystal)) ** (1 / 3)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
