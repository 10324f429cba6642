"""Properties of the elements as numbers that networks take: chemistry that one-hot vectors would have to learn."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np

from hpcgen.crystal import FloatArray

NAMES = (
    "electronegativity",
    "row",
    "group",
    "mendeleev_number",
    "log_mass",
    "covalent_radius",
    "atomic_radius",
    "ionic_radius",
    "ionisation_energy",
    "electron_affinity",
    "log_molar_volume",
    "lowest_charge",
    "highest_charge",
    "valence_s",
    "valence_p",
    "valence_d",
    "valence_f",
)
LARGEST = 103


@cache
def element_properties() -> FloatArray:
    """(104, len(NAMES)) by atomic number, each column with mean 0 and variance 1 over the elements where it is known.

    What is not known of an element is 0, the mean. Row 0 is zero. Source: pymatgen's table of elements; covalent radii
    of Cordero et al. 2008 (doi 10.1039/b801115j) from ASE.
    """
    from ase.data import covalent_radii
    from pymatgen.core import Element

    values = np.full((LARGEST + 1, len(NAMES)), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns where it has no value, which stays unknown here
        for z in range(1, LARGEST + 1):
            e = Element.from_Z(z)
            charges = e.common_oxidation_states or e.oxidation_states or (0,)
            shells = dict.fromkeys("spdf", 0)
            for n, orbital, electrons in e.full_electronic_structure:
                if n == e.row or (orbital == "d" and n == e.row - 1) or (orbital == "f" and n == e.row - 2):
                    shells[orbital] = electrons
            values[z] = [
                e.data.get("X") or np.nan,
                e.row,
                e.group,
                e.mendeleev_no or np.nan,
                np.log(float(e.atomic_mass)),
                covalent_radii[z],
                e.atomic_radius or np.nan,
                e.average_ionic_radius or np.nan,
                e.ionization_energy or np.nan,
                e.electron_affinity if e.electron_affinity is not None else np.nan,
                np.log(float(e.molar_volume)) if e.molar_volume else np.nan,
                min(charges),
                max(charges),
                *shells.values(),
            ]
    known = values[1:]
    scaled = (values - np.nanmean(known, 0)) / np.nanstd(known, 0)
    return np.nan_to_num(scaled, nan=0.0)
