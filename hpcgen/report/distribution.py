"""How the properties of generated crystals are distributed, beside those of the training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from markupsafe import Markup

from hpcgen.crystal import AVOGADRO_DENSITY, CrystalBatch, FloatArray
from hpcgen.report import svg

ELEMENTS_SHOWN = 24


@dataclass(frozen=True, eq=False)
class Distribution:
    """Properties of a set of crystals, one number per crystal, and how many crystals hold each element.

    Attributes:
        density: g/cm^3.
        volume: angstrom^3 per atom.
        atoms, elements: per cell.
        with_element: (119,) crystals that hold each atomic number.
    """

    density: FloatArray
    volume: FloatArray
    atoms: FloatArray
    elements: FloatArray
    with_element: FloatArray

    @classmethod
    def of(cls, batch: CrystalBatch) -> Distribution:
        """Of every crystal in a batch, without building the crystals one by one."""
        from ase.data import atomic_masses

        starts, sizes = batch.offset[:-1], np.diff(batch.offset)
        mass = np.add.reduceat(atomic_masses[batch.numbers], starts) if len(batch) else np.zeros(0)
        volume = np.abs(np.linalg.det(batch.lattice)) if len(batch) else np.zeros(0)
        present = np.zeros((len(batch), 119), dtype=bool)
        present[np.repeat(np.arange(len(batch)), sizes), batch.numbers] = True
        return cls(
            density=AVOGADRO_DENSITY * mass / volume,
            volume=volume / sizes,
            atoms=sizes.astype(float),
            elements=present.sum(axis=1).astype(float),
            with_element=present.sum(axis=0).astype(float),
        )


def charts(generated: Distribution | None, training: Distribution | None) -> list[Markup]:
    """A chart for each property; none without generated crystals, training data left out if there are none."""
    if generated is None or not len(generated.density):
        return []
    none = np.zeros(0)
    properties = (
        ("density", "density, g/cm³", False),
        ("volume", "volume per atom, Å³", False),
        ("atoms", "atoms per cell", True),
        ("elements", "elements per crystal", True),
    )
    drawn = [
        svg.comparison(getattr(generated, name), none if training is None else getattr(training, name), label, whole=w)
        for name, label, w in properties
    ]
    shares = [d.with_element / max(len(d.density), 1) for d in (generated, training) if d is not None]
    common = sorted(np.argsort(-np.max(shares, axis=0), kind="stable")[:ELEMENTS_SHOWN].tolist())
    present = [z for z in common if max(s[z] for s in shares) > 0]
    names = [chemical_symbols[z] for z in present]
    drawn.append(svg.shares(names, [s[present] for s in shares], "crystals that hold the element"))
    return [c for c in drawn if c]
