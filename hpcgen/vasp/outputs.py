"""What a run of VASP computed, from vasprun.xml and OUTCAR, plain or gzipped."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.crystal import FloatArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

KBAR_PER_GPA = 10.0


class UnreadableOutputError(Exception):
    """vasprun.xml is missing, cut off or empty."""


@dataclass(frozen=True, eq=False)
class VaspOutput:
    """One run.

    Attributes:
        initial, final: structures.
        energy: of the cell as VASP gives it, sigma to 0, uncorrected, eV.
        energy_initial: after the first ionic step, eV.
        forces: (n, 3) at the end, eV/angstrom; `forces_initial` after the first ionic step.
        stress: (3, 3) dE/d(strain)/volume at the end, positive under tension, GPa.
        steps: ionic steps.
        step_energy: (steps,) energy of the cell after each ionic step, as `energy`, eV.
        step_max_force: (steps,) largest force on an atom after each, eV/angstrom.
        electronic, ionic: whether they converged.
        stopped: whether STOPCAR ended it.
        run_type: functional as pymatgen names it, such as `GGA+U`.
        hubbards: U in eV by element.
        potcars: TITEL of each POTCAR, such as `PAW_PBE Ni_pv 06Sep2000`.
        version: of VASP.
        tags: ENCUT, ISPIN as VASP took them.
        magnetization: total, Bohr magnetons; NaN if OUTCAR does not say.
        moments: (n,) of the atoms at the end, Bohr magnetons; None if OUTCAR does not say.
    """

    initial: Structure
    final: Structure
    energy: float
    energy_initial: float
    forces: FloatArray
    forces_initial: FloatArray
    stress: FloatArray
    steps: int
    step_energy: FloatArray
    step_max_force: FloatArray
    electronic: bool
    ionic: bool
    stopped: bool
    run_type: str
    hubbards: dict[str, float]
    potcars: list[str]
    version: str
    tags: dict[str, float]
    magnetization: float
    moments: FloatArray | None = None


def find(folder: Path, name: str, suffix: str = "") -> Path | None:
    """A file of a run, plain or gzipped, or None."""
    for candidate in (folder / f"{name}{suffix}", folder / f"{name}{suffix}.gz"):
        if candidate.is_file() and candidate.stat().st_size:
            return candidate
    return None


def read_output(folder: Path, suffix: str = "") -> VaspOutput:
    """Read a run.

    Args:
        folder: where its files are.
        suffix: of their names, such as `.relax1`.

    Raises:
        UnreadableOutputError: if vasprun.xml cannot be read to its end, or holds no ionic step.
    """
    from pymatgen.io.vasp.outputs import Outcar, Vasprun

    path = find(folder, "vasprun.xml", suffix)
    if path is None:
        raise UnreadableOutputError(f"there is no vasprun.xml{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
            first, last = run.ionic_steps[0], run.ionic_steps[-1]
            facts: dict[str, Any] = {
                "energy": float(run.final_energy),
                "energy_initial": float(first["e_0_energy"]),
                "forces": np.array(last["forces"], dtype=float),
                "forces_initial": np.array(first["forces"], dtype=float),
                "stress": -np.array(last.get("stress", np.full((3, 3), np.nan)), dtype=float) / KBAR_PER_GPA,
                "steps": len(run.ionic_steps),
                "step_energy": np.array([step["e_0_energy"] for step in run.ionic_steps], dtype=float),
                "step_max_force": np.array([_largest(step["forces"]) for step in run.ionic_steps]),
                "electronic": bool(run.converged_electronic),
                "ionic": bool(run.converged_ionic),
                "run_type": str(run.run_type),
                "hubbards": {key: float(value) for key, value in run.hubbards.items()},
                "tags": {"ENCUT": float(run.parameters.get("ENMAX", 0)), "ISPIN": int(run.parameters.get("ISPIN", 1))},
            }
        except Exception as error:  # lxml, pymatgen and plain Python each have their own for a file that is cut off
            raise UnreadableOutputError(f"{path.name}: {type(error).__name__}: {error}") from None
        stopped, magnetization, moments = False, float("nan"), None
        if (outcar := find(folder, "OUTCAR", suffix)) is not None:
            try:
                text = Outcar(outcar)
                stopped, total = text.is_stopped, text.total_mag
                magnetization = float("nan") if total is None else float(total)
                if len(text.magnetization) == len(run.final_structure):  # needs LORBIT
                    moments = np.array([atom["tot"] for atom in text.magnetization], dtype=float)
            except Exception:  # OUTCAR is only asked what vasprun.xml does not say
                stopped = soft_stopped(folder, suffix)
    return VaspOutput(
        initial=run.initial_structure,
        final=run.final_structure,
        stopped=stopped,
        potcars=list(run.potcar_symbols),
        version=str(run.vasp_version).strip(),
        magnetization=magnetization,
        moments=moments,
        **facts,
    )


def _largest(forces: Any) -> float:
    return float(np.linalg.norm(np.array(forces, dtype=float), axis=1).max())


def soft_stopped(folder: Path, suffix: str = "") -> bool:
    """Whether OUTCAR says that STOPCAR ended the run, which vasprun.xml does not tell."""
    from monty.io import zopen

    path = find(folder, "OUTCAR", suffix)
    if path is None:
        return False
    with zopen(path, "rt", encoding="utf-8", errors="replace") as text:
        return any("soft stop encountered" in line or "hard stop encountered" in line for line in text)


def read_structure(path: Path) -> Structure | None:
    """The structure of a POSCAR or CONTCAR, or None if the file is missing, empty or cut off."""
    from pymatgen.io.vasp.inputs import Poscar

    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Poscar.from_file(path, check_for_potcar=False, read_velocities=False).structure
    except Exception:  # whatever pymatgen stumbles over, there is no structure
        return None
