"""The inputs of each step: relaxations and a static run by a set of Materials Project, with the user's settings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgen.config import VaspConfig

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.io.vasp.sets import VaspInputSet

SETS = {
    "mp": ("MPRelaxSet", "MPStaticSet"),
    "mp24": ("MP24RelaxSet", "MP24StaticSet"),
    "mpscan": ("MPScanRelaxSet", "MPScanStaticSet"),
}
STATIC = "static"
_IONIC = frozenset(
    {"IBRION", "POTIM", "NSW", "SMASS", "EDIFF", "NELMIN", "ISTART", "ISMEAR", "SIGMA", "LREAL", "LWAVE"}
)
"""Corrections of a relaxation that are not handed to the static run."""


def step_names(config: VaspConfig) -> list[str]:
    """The steps in order: `relax1`, `relax2`, ..., `static`."""
    return [*(f"relax{i + 1}" for i in range(config.relaxations)), STATIC]


def input_set(step: str, structure: Structure, config: VaspConfig, carry: dict[str, Any]) -> VaspInputSet:
    """The inputs of a step.

    Args:
        step: one of `step_names`.
        structure: what it starts from; its atoms are sorted by electronegativity.
        config: the user's settings.
        carry: INCAR tags that handlers have corrected in earlier steps.

    Raises:
        ValueError, KeyError: if the set knows no POTCAR or no settings for an element.
    """
    from pymatgen.io.vasp import sets

    relax, static = SETS[config.input_set]
    # the next step starts from the wave functions and the charge density of this one
    tags = {"LWAVE": False, "LCHARG": False} if step == STATIC else {"LWAVE": True, "LCHARG": True}
    if step == STATIC:
        carry = {key: value for key, value in carry.items() if key not in _IONIC}
    settings: dict[str, Any] = {
        "user_incar_settings": carry | tags | config.incar,
        "user_kpoints_settings": config.kpoints,
        "user_potcar_settings": config.potcar,
    }
    if config.functional:
        settings["user_potcar_functional"] = config.functional
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it thinks of Materials Project's own settings
        made = getattr(sets, static if step == STATIC else relax)(structure, **settings)
        made.incar  # noqa: B018 - so that what is missing raises here
        made.potcar_symbols  # noqa: B018
    return made


def write_inputs(folder: Path, made: VaspInputSet, *, potcars: bool) -> None:
    """INCAR, KPOINTS if the set has them, POSCAR, and POTCAR or POTCAR.spec. Replaces those of an earlier step."""
    for name in ("INCAR", "KPOINTS", "POSCAR"):
        (folder / name).unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.write_input(str(folder), potcar_spec=not potcars)
