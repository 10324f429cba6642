"""A step as a job of custodian: its inputs are written when it begins, its outputs set aside when it ends.

What VASP left of an earlier run is deleted before every start, so that one that never starts leaves nothing behind that
looks finished.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from custodian.vasp.jobs import VaspJob
from pymatgen.io.vasp.inputs import Incar

from hpcgen.config import VaspConfig
from hpcgen.slots.outcome import Control
from hpcgen.vasp.inputs import Plan, input_set, write_inputs
from hpcgen.vasp.outputs import UnreadableOutputError, read_structure, soft_stopped

PROGRESS = "progress.json"
STALE = ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR", "STOPCAR", "EIGENVAL", "IBZKPT", "XDATCAR", "PCDAT", "REPORT")
MOVED = ("vasprun.xml", "OUTCAR", "OSZICAR", "vasp.out", "std_err.txt")
COPIED = ("CONTCAR", "INCAR", "KPOINTS", "POSCAR")


class TaskStoppedError(Exception):
    """VASP was stopped before it was finished, on demand; what it has done is in CONTCAR."""


class WrongCompositionError(Exception):
    """The structure that came out does not consist of the atoms that went in."""


class StepJob(VaspJob):
    """One step.

    Args:
        step: `relax1`, ..., `static`.
        settings: the section `vasp` as plain values.
        plan: of the structure, as plain values, with moments in the order of POSCAR.
        vasp_cmd, gamma_vasp_cmd: words that start VASP.
    """

    def __init__(
        self,
        step: str,
        settings: dict[str, Any],
        plan: dict[str, Any],
        vasp_cmd: list[str],
        gamma_vasp_cmd: list[str] | None = None,
    ) -> None:
        super().__init__(
            vasp_cmd, suffix=f".{step}", final=False, backup=False, gamma_vasp_cmd=gamma_vasp_cmd,
            auto_gamma=gamma_vasp_cmd is not None, terminate_timeout=20.0,
        )  # fmt: skip
        self.step = step
        self.settings = settings
        self.plan = plan
        self.control = Control()
        self.starts = 0

    def setup(self, directory: str = "./") -> None:
        """Write the inputs, from CONTCAR of the step before, or from POSCAR."""
        folder = Path(directory)
        structure = read_structure(folder / "CONTCAR") or read_structure(folder / "POSCAR")
        if structure is None:
            raise FileNotFoundError(f"{folder} holds no structure")
        config = VaspConfig.model_validate(self.settings)
        made = input_set(self.step, structure, config, Plan(**self.plan), read_progress(folder)["carry"])
        write_inputs(folder, made, potcars=config.potcars)
        shutil.copy(folder / "INCAR", folder / f"INCAR.{self.step}.orig")

    def run(self, directory: str = "./") -> subprocess.Popen[bytes]:
        """Start VASP."""
        if self.control.stopping:
            raise TaskStoppedError
        for name in STALE:
            (Path(directory) / name).unlink(missing_ok=True)
        self.starts += 1
        return super().run(directory)

    def postprocess(self, directory: str = "./") -> None:
        """Set the outputs aside and note what is done.

        Raises:
            TaskStoppedError: if VASP says that STOPCAR ended it: it counts as converged for custodian.
            UnreadableOutputError: if CONTCAR is cut off.
            WrongCompositionError: if atoms are missing.
        """
        folder = Path(directory)
        before, after = read_structure(folder / "POSCAR"), read_structure(folder / "CONTCAR")
        if before is None or after is None:
            raise UnreadableOutputError(f"{'CONTCAR' if before else 'POSCAR'} of {self.step} cannot be read")
        if before.composition != after.composition:
            raise WrongCompositionError(f"CONTCAR of {self.step} holds {after.composition.formula}")
        if soft_stopped(folder):
            raise TaskStoppedError
        for name in COPIED:
            if (folder / name).exists():
                shutil.copy(folder / name, folder / f"{name}.{self.step}")
        for name in MOVED:
            if (folder / name).exists():
                (folder / name).rename(folder / f"{name}.{self.step}")
        progress = read_progress(folder)
        progress["finished"].append(self.step)
        progress["carry"] |= corrected_tags(folder / f"INCAR.{self.step}.orig", folder / f"INCAR.{self.step}")
        write_progress(folder, progress)


def corrected_tags(before: Path, after: Path) -> dict[str, Any]:
    """INCAR tags that handlers have set or changed."""
    old, new = Incar.from_file(before), Incar.from_file(after)
    return {key: value for key, value in new.items() if old.get(key) != value and key not in ("ISTART", "MAGMOM")}


def read_progress(folder: Path) -> dict[str, Any]:
    """`finished`: steps that are done and set aside; `carry`: corrections for later ones; `order` of the atoms."""
    path = folder / PROGRESS
    empty: dict[str, Any] = {"finished": [], "carry": {}}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty


def write_progress(folder: Path, progress: dict[str, Any]) -> None:
    """Store it: complete or not at all."""
    temporary = folder / f"{PROGRESS}.tmp"
    temporary.write_text(json.dumps(progress), encoding="utf-8")
    temporary.replace(folder / PROGRESS)
