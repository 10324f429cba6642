"""A stand-in for vasp_std: relaxes POSCAR by ASE as INCAR says, writes VASP's files, and fails when told to.

    FAKE_VASP=plan.json python vasp_std.py        in a folder with INCAR, POSCAR and perhaps KPOINTS

It takes EMT where that knows the elements, else a Morse potential, shifted so that energies are negative. The plan is
optional: {"seconds": s} lets every ionic step last s seconds; {"moments": {"Cu": 0.5}} are those of atoms by element;
{"faults": [{"formula": "Cu4", "fault": "zbrent", "step": "relax", "times": 1, "after": 0}]} lets runs fail whose POSCAR
has that formula (any, if not given). Most faults end when INCAR or KPOINTS hold the remedy that VASP users know;
`times` limits how often one occurs, `stubborn` makes it ignore the remedy.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import vasp_files as files
from ase.io import read

SHIFT = -4.0  # eV/atom: EMT has its zero at the elements
KBAR = 1602.1766208  # of 1 eV/angstrom^3

FAULTS: dict[str, tuple[str, Callable[[dict[str, str]], bool]]] = {
    "zbrent": ("ZBRENT: fatal error in bracketing", lambda tags: int(tags.get("NELMIN", 2)) >= 8),
    "brmix": ("BRMIX: very serious problems\n the old and the new charge density differ", lambda tags: "IMIX" in tags),
    "edddav": ("Error EDDDAV: Call to ZHEGV failed. Returncode = 7 2 8", lambda tags: tags["ALGO"].lower() == "all"),
    "zpotrf": ("LAPACK: Routine ZPOTRF failed!", lambda tags: tags.get("ISYM") == "0"),
    "inv_rot_mat": (
        "inverse of rotation matrix was not found (increase SYMPREC)",
        lambda tags: float(tags.get("SYMPREC", 1e-5)) >= 1e-4,
    ),
    "tet": ("Tetrahedron method fails (number of k-points < 4)", lambda tags: int(tags.get("ISMEAR", 1)) >= 0),
}
"""What VASP prints, and what of INCAR helps."""


def main() -> int:
    folder = Path.cwd()
    plan = json.loads(Path(os.environ["FAKE_VASP"]).read_text()) if "FAKE_VASP" in os.environ else {}
    tags = files.read_incar(folder / "INCAR")
    atoms = read(folder / "POSCAR", format="vasp")
    fault = _fault(plan, tags, atoms.get_chemical_formula())
    if fault == "never":
        return 0
    if fault == "refuse":
        print("vasp_std: error while loading shared libraries: libmkl.so: cannot open", file=sys.stderr)
        return 127
    print(
        " running on    1 total cores\n vasp.6.4.1 stand-in\n POSCAR, INCAR and KPOINTS ok, starting setup", flush=True
    )
    run = files.Run(tags, files.read_kpoints(folder / "KPOINTS"), atoms, band_gap=plan.get("band_gap", 2.0))
    run.potcars, run.moments = files.read_potcars(folder), plan.get("moments", {})
    (folder / "CONTCAR").write_text("")  # VASP makes it empty and fills it after the first ionic step
    (folder / "OUTCAR").write_text(files.outcar_head(run))
    (folder / "OSZICAR").write_text("")
    if fault == "hang":
        (folder / "vasprun.xml").write_text(files.vasprun(run)[:500])
        time.sleep(3600)
    if fault == "disk":
        try:
            with Path("/dev/full").open("w") as full:
                full.write("x" * 100)
        except OSError as error:
            print(f"forrtl: {error.strerror}\nforrtl: severe (38): error during write, unit 12", file=sys.stderr)
            return 38
    if fault in ("brmix", "edddav", "zpotrf", "inv_rot_mat", "tet"):
        print(FAULTS[fault][0], flush=True)
        return 1
    return _relax(folder, run, fault, plan.get("seconds", 0.0))


def _relax(folder: Path, run: files.Run, fault: str, seconds: float) -> int:
    """Ionic steps by ASE until EDIFFG, NSW, STOPCAR or a fault ends them."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = run.initial.copy()
    atoms.calc = _calculator(atoms)
    steps = int(run.incar.get("NSW", 0))
    criterion = float(run.incar.get("EDIFFG", 10 * float(run.incar.get("EDIFF", 1e-4))))
    moving = FrechetCellFilter(atoms) if run.incar.get("ISIF") == "3" else atoms
    optimizer = BFGS(moving, logfile=None, maxstep=0.1) if steps else None
    stopped = converged = False
    while True:
        begin = time.monotonic()
        time.sleep(seconds)
        _add(folder, run, atoms, fault, time.monotonic() - begin)
        number = len(run.steps)
        if fault == "segv" and number == min(2, max(steps, 1)):
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "zbrent" and number == 2:
            print(FAULTS["zbrent"][0], flush=True)
            return 1
        energies = [step.energies[-1] for step in run.steps]
        if criterion < 0:
            converged = float(np.linalg.norm(moving.get_forces(), axis=1).max()) < -criterion
        else:
            converged = number > 1 and abs(energies[-1] - energies[-2]) < criterion
        stopped = fault == "softstop" and number >= min(2, max(steps, 1))
        stopped = stopped or ((folder / "STOPCAR").exists() and ".TRUE." in (folder / "STOPCAR").read_text().upper())
        if not optimizer or converged or stopped or number >= steps:
            break
        optimizer.step()
    if stopped:
        (folder / "STOPCAR").unlink(missing_ok=True)
        with (folder / "OUTCAR").open("a") as out:
            out.write("\n soft stop encountered!  aborting job ...\n")
    elif converged and optimizer:
        print(" reached required accuracy - stopping structural energy minimisation", flush=True)
    _finish(folder, run, fault)
    return 0


def _add(folder: Path, run: files.Run, atoms, fault: str, seconds: float) -> None:
    """Compute one ionic step and append it to the files."""
    energy = atoms.get_potential_energy() + SHIFT * len(atoms)
    energies = [energy + 1.0, energy + 1e-7, energy]
    if fault == "scf":
        energies = [energy + 0.5 * (-1) ** i for i in range(int(run.incar.get("NELM", 60)))]
    stress = -atoms.get_stress(voigt=False) * KBAR
    before = run.steps[-1].energies[-1] if run.steps else 0.0
    run.steps.append(files.IonicStep(energies, atoms.copy(), atoms.get_forces(), stress, seconds))
    number = len(run.steps)
    for name, text in (
        ("OUTCAR", files.outcar_step(number, run.steps[-1])),
        ("OSZICAR", files.oszicar_step(number, run.steps[-1], before)),
    ):
        with (folder / name).open("a") as out:
            out.write(text)
    print(f"{number:4d} F= {energy:.8E} E0= {energy:.8E}", flush=True)
    (folder / "CONTCAR").write_text(files.poscar(atoms))


def _finish(folder: Path, run: files.Run, fault: str) -> None:
    if fault == "composition":
        for step in run.steps:
            step.atoms, step.forces = step.atoms[:-1], step.forces[:-1]
        run.initial = run.initial[:-1]
        (folder / "CONTCAR").write_text(files.poscar(run.steps[-1].atoms))
    xml = files.vasprun(run)
    (folder / "vasprun.xml").write_text(xml[: len(xml) // 2] if fault == "truncated" else xml)
    with (folder / "OUTCAR").open("a") as out:
        if run.moments:
            out.write(files.magnetization([run.moments.get(s, 0.0) for s in run.initial.get_chemical_symbols()]))
        out.write(files.OUTCAR_TAIL)
    for name in ("WAVECAR", "CHGCAR"):
        if run.incar.get({"WAVECAR": "LWAVE", "CHGCAR": "LCHARG"}[name], "T").upper().strip(".").startswith("T"):
            (folder / name).write_text("binary\n" * 1000)


def _calculator(atoms):
    from ase.calculators.emt import EMT, parameters

    if set(atoms.get_chemical_symbols()) <= set(parameters):
        return EMT()
    from ase.calculators.morse import MorsePotential

    return MorsePotential(epsilon=0.3, r0=2.4, rho0=4.0)


def _fault(plan: dict, tags: dict[str, str], formula: str) -> str:
    """The fault of this run, or nothing. Counts it, in files beside the plan that only one process can make."""
    kind = "relax" if int(tags.get("NSW", 0)) else "static"
    for i, entry in enumerate(plan.get("faults", [])):
        name = entry["fault"]
        if entry.get("formula", formula) != formula or entry.get("step", kind) != kind:
            continue
        cured = name in FAULTS and FAULTS[name][1](tags)
        if name == "scf":
            cured = "fast" not in tags.get("ALGO", "Normal").lower()
        if cured and not entry.get("stubborn"):
            continue
        for turn in range(entry.get("times", 10**6)):
            try:
                os.close(os.open(f"{os.environ['FAKE_VASP']}.{i}.{turn}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return name
    return ""


if __name__ == "__main__":
    sys.exit(main())
