"""Trial ground-state crystals of the elements, from `elements.yaml`, the AFLOW prototypes and tabulated volumes."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.data.aflow import library
from hpcgen.data.gate import MAX_ATOMIC_NUMBER, right_handed

_CM3_PER_MOL = 0.602214076  # of one cubic angstrom per atom (Avogadro's number)
_BLOCH = {
    "sc": ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0]]),
    "fcc": ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [[0, 0, 0]]),
    "bcc": ([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], [[0, 0, 0]]),
    "diamond": ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    # ideal c/a = sqrt(8/3)
    "hcp": (
        [[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, (8 / 3) ** 0.5]],
        [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]],
    ),
}


def element_structures(symbol: str) -> list[tuple[str, Crystal]]:
    """Trial ground states of an element: (name, crystal), at a volume near that of the solid.

    They are starting points: whoever needs the ground state relaxes all and keeps the lowest. Molecular
    elements (H, N, O, F, Cl, Br, I) are molecular crystals with the bond length of the molecule.

    Args:
        symbol: hydrogen to californium.

    Raises:
        ValueError: for a symbol of no element, or of one without a known volume (Fm-Lr).
    """
    from ase.data import atomic_numbers

    z = atomic_numbers.get(symbol, 0)
    if not 1 <= z <= MAX_ATOMIC_NUMBER:
        raise ValueError(f"{symbol!r} is no element up to lawrencium")
    table = _table()
    out = []
    for trial in table["elements"].get(symbol, table["default"]):
        spec = {"prototype": trial} if isinstance(trial, str) else trial
        name, crystal = _build(spec, symbol, z)
        out.append((name, right_handed(crystal.niggli())))
    return out


def volume_per_atom(symbol: str) -> float:
    """Volume per atom of the solid element, cubic angstrom.

    Raises:
        ValueError: if none is known.
    """
    from pymatgen.core import Element

    known = _table()["volumes"].get(symbol)
    if known is not None:
        return float(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns where it has no value, which is checked here
        molar = Element(symbol).molar_volume  # cm^3/mol
    if not molar:
        raise ValueError(f"no volume is known for solid {symbol}")
    return float(molar) / _CM3_PER_MOL


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(files("hpcgen.data").joinpath("elements.yaml").read_text(encoding="utf-8"))


def _build(spec: dict[str, Any], symbol: str, z: int) -> tuple[str, Crystal]:
    if "bct" in spec:
        lattice = np.array(_BLOCH["bcc"][0]) * [1, 1, spec["bct"]]
        return f"bct-{spec['bct']}", _scaled(lattice, np.zeros((1, 3)), z, volume_per_atom(symbol))
    name = spec["prototype"]
    if name in _BLOCH:
        lattice, frac = (np.array(v, dtype=float) for v in _BLOCH[name])
        return name, _scaled(lattice, frac, z, spec.get("volume") or volume_per_atom(symbol))
    prototype = next(p for p in library() if p.name == name)
    original = prototype.crystal
    if prototype.symbols == (symbol,) and "bond" not in spec:
        return name, original
    crystal = _scaled(original.lattice, original.frac, z, volume_per_atom(symbol))
    return name, _with_bond(crystal, spec["bond"]) if "bond" in spec else crystal


def _scaled(lattice: FloatArray, frac: FloatArray, z: int, volume: float) -> Crystal:
    """The cell scaled isotropically to `volume` cubic angstrom per atom."""
    factor = (volume * len(frac) / abs(np.linalg.det(lattice))) ** (1 / 3)
    return Crystal(lattice * factor, frac, np.full(len(frac), z))


def _with_bond(crystal: Crystal, bond: float) -> Crystal:
    """A crystal of diatomic molecules with every bond set to `bond` angstrom; the molecules' centres stay.

    Raises:
        ValueError: if the nearest neighbours are not mutual pairs.
    """
    images = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    delta = crystal.frac[None, :, None] - crystal.frac[:, None, None] + images
    distance = np.linalg.norm(delta @ crystal.lattice, axis=-1)
    distance[distance < 1e-8] = np.inf
    n = len(crystal)
    nearest = distance.reshape(n, -1).argmin(axis=1)
    partner, image = np.divmod(nearest, len(images))
    if not (partner[partner] == np.arange(n)).all() or (partner == np.arange(n)).any():
        raise ValueError("the prototype does not consist of diatomic molecules")
    vector = delta[np.arange(n), partner, image]
    length = distance[np.arange(n), partner, image]
    centre = crystal.frac + vector / 2
    return Crystal(crystal.lattice, centre - vector / 2 * (bond / length)[:, None], crystal.numbers)
