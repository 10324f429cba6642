"""The inputs of each step, by a set of Materials Project with the user's settings, and which steps there are.

Three things are computed of a structure: its energy (relaxations, then a static run), its minimum (relaxations to small
forces), and the forces on its atoms as they stand. Minimum and forces are for phonons. They take the relaxation's set,
so that cutoff, k-points, U and POTCARs are the same, with electrons converged further than energies need and projectors
in reciprocal space, whose errors are no forces; and Gaussian smearing, because forces by the tetrahedron method are no
derivatives of the energy in metals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
FORCES = "forces"
SINGLE = (STATIC, FORCES)
"""Steps in which no atom moves."""
_IONIC = frozenset(
    {"IBRION", "POTIM", "NSW", "SMASS", "EDIFF", "NELMIN", "ISTART", "ISMEAR", "SIGMA", "LREAL", "LWAVE"}
)
"""Corrections of a relaxation that are not handed to a run without ionic steps."""
_ACCURATE: dict[str, Any] = {
    "PREC": "Accurate", "EDIFF": 1e-8, "LREAL": False, "ADDGRID": False, "ISMEAR": 0, "SIGMA": 0.05, "ALGO": "Normal",
}  # fmt: skip
_AT_REST: dict[str, Any] = {
    "IBRION": -1, "NSW": 0, "ISIF": 2, "LWAVE": False, "LCHARG": False, "LVTOT": False, "LAECHG": False,
}  # fmt: skip
SHARED = frozenset({"ENCUT", "EDIFF", "ISMEAR", "ISPIN", "KSPACING", "LREAL", "PREC", "SIGMA", "ADDGRID"})
"""INCAR tags that all supercells of a crystal must share for their forces to belong together."""


@dataclass(frozen=True)
class Plan:
    """What is computed of a structure.

    Attributes:
        steps: in their order: `relax1`, `relax2`, ..., `static`, `forces`.
        incar: tags that replace those of set and configuration.
        mesh: of k-points around Gamma; None: the set's.
        moments: magnetic moment that each atom starts with, Bohr magnetons; None: the set's by element.
    """

    steps: Sequence[str]
    incar: Mapping[str, Any] = field(default_factory=dict)
    mesh: Sequence[int] | None = None
    moments: Sequence[float] | None = None

    @property
    def at_rest(self) -> bool:
        """Whether no atom moves, so that there is no geometry to go on from."""
        return all(step in SINGLE for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """As plain values, from which `Plan(**values)` makes it again."""
        return asdict(self)


def energy(config: VaspConfig) -> Plan:
    """Relaxations and a static run."""
    return Plan((*_relaxations(config), STATIC))


def minimum(config: VaspConfig, max_force: float, incar: Mapping[str, Any]) -> Plan:
    """Relaxations to `max_force` (eV/angstrom), with the user's tags for phonons."""
    return Plan(_relaxations(config), {**_ACCURATE, "EDIFFG": -max_force, **_upper(incar)})


def forces(
    incar: Mapping[str, Any],
    *,
    carry: Mapping[str, Any],
    mesh: Sequence[int] | None,
    repeats: Sequence[int],
    moments: Sequence[float] | None,
) -> Plan:
    """The forces on the atoms of a supercell, computed as its cell was relaxed.

    Args:
        incar: the user's tags for phonons.
        carry: tags that handlers corrected when the cell was relaxed.
        mesh: k-points of the cell; None: KSPACING, which needs no scaling.
        repeats: (3,) cells along each vector.
        moments: of the supercell's atoms; None: unknown.
    """
    helped = {key: value for key, value in carry.items() if key not in _IONIC | SHARED}
    scaled = mesh and [math.ceil(k / r) for k, r in zip(mesh, repeats, strict=True)]  # no coarser than the cell's
    return Plan((FORCES,), {**_ACCURATE, **helped, **_AT_REST, **_upper(incar)}, scaled, moments)


def _upper(incar: Mapping[str, Any]) -> dict[str, Any]:
    return {key.upper(): value for key, value in incar.items()}


def _relaxations(config: VaspConfig) -> tuple[str, ...]:
    return tuple(f"relax{i + 1}" for i in range(config.relaxations))


def input_set(step: str, structure: Structure, config: VaspConfig, plan: Plan, carry: dict[str, Any]) -> VaspInputSet:
    """The inputs of a step.

    Args:
        step: one of the plan's.
        structure: what it starts from; its atoms are sorted by electronegativity. With moments, atoms in their order.
        config: the user's settings.
        plan: what they are for.
        carry: INCAR tags that handlers have corrected in earlier steps.

    Raises:
        ValueError, KeyError: if the set knows no POTCAR or no settings for an element.
    """
    from pymatgen.io.vasp import sets
    from pymatgen.io.vasp.inputs import Kpoints

    relax, static = SETS[config.input_set]
    # the next step starts from the wave functions and the charge density of this one
    tags = {"LWAVE": False, "LCHARG": False} if step in SINGLE else {"LWAVE": True, "LCHARG": True}
    if step in SINGLE:
        carry = {key: value for key, value in carry.items() if key not in _IONIC}
    own = {key: value for key, value in plan.incar.items() if key != "ALGO" or key not in carry}
    settings: dict[str, Any] = {
        "user_incar_settings": carry | tags | config.incar | own,
        "user_kpoints_settings": Kpoints.gamma_automatic((plan.mesh[0], plan.mesh[1], plan.mesh[2]))
        if plan.mesh
        else config.kpoints,
        "user_potcar_settings": config.potcar,
    }
    if plan.moments is not None:
        structure = structure.copy(site_properties=structure.site_properties | {"magmom": list(plan.moments)})
        settings["user_incar_settings"].pop("MAGMOM", None)
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
