"""The files that the stand-in writes: as much of VASP's formats as pymatgen, custodian and people read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

TAGS = {"int": int, "float": float}


@dataclass
class IonicStep:
    """Energies of the electronic steps (the last one counts), and what follows from them."""

    energies: list[float]
    atoms: Atoms
    forces: np.ndarray
    stress_kbar: np.ndarray
    seconds: float


@dataclass
class Run:
    """One call of the stand-in."""

    incar: dict[str, str]
    kpoints: list[int]
    initial: Atoms
    steps: list[IonicStep] = field(default_factory=list)
    band_gap: float = 2.0
    potcars: list[str] = field(default_factory=list)
    moments: dict[str, float] = field(default_factory=dict)


def species(atoms: Atoms) -> list[tuple[str, int]]:
    """Blocks of equal atoms, as POSCAR lists them."""
    return [(symbol, len(list(group))) for symbol, group in groupby(atoms.get_chemical_symbols())]


def array(name: str, rows: Iterable[Iterable[float]]) -> str:
    lines = "".join("<v>" + " ".join(f"{x:.10f}" for x in row) + "</v>\n" for row in rows)
    return f'<varray name="{name}">\n{lines}</varray>\n'


def structure(atoms: Atoms, name: str = "") -> str:
    attribute = f' name="{name}"' if name else ""
    cell = array("basis", atoms.cell.array) + f'<i name="volume">{atoms.get_volume():.8f}</i>\n'
    positions = array("positions", atoms.get_scaled_positions())
    return f"<structure{attribute}>\n<crystal>\n{cell}</crystal>\n{positions}</structure>\n"


def tag(name: str, value: str) -> str:
    """An INCAR tag as vasprun.xml writes it, its type guessed from the text."""
    words = value.split()
    if value.upper().strip(".") in ("T", "F", "TRUE", "FALSE"):
        return f'<i type="logical" name="{name}">{value.strip(".")[0].upper()}</i>\n'
    for kind, parse in TAGS.items():
        try:
            [parse(word) for word in words]
        except ValueError:
            continue
        kind_attribute = ' type="int"' if kind == "int" and name not in ("ENCUT", "EDIFF", "SIGMA") else ""
        letter = "i" if len(words) == 1 and name not in ("MAGMOM", "LDAUU", "LDAUJ", "LDAUL") else "v"
        return f'<{letter}{kind_attribute} name="{name}">{" ".join(words)}</{letter}>\n'
    return f'<i type="string" name="{name}">{value}</i>\n'


def vasprun(run: Run) -> str:
    """vasprun.xml."""
    now = dt.datetime.now()
    blocks = species(run.initial)
    functional = "PAW_PBE"
    atoms = "".join(f"<rc><c>{s}</c><c>{i + 1}</c></rc>\n" for i, (s, count) in enumerate(blocks) for _ in range(count))
    types = "".join(
        f"<rc><c>{count}</c><c>{s}</c><c>{atomic_masses[atomic_numbers[s]]:.4f}</c><c>4.0</c>"
        f"<c>{functional} {symbol} 06Sep2000</c></rc>\n"
        for (s, count), symbol in zip(blocks, (run.potcars or [s for s, _ in blocks])[: len(blocks)], strict=True)
    )
    parameters = {
        "NSW": "0", "IBRION": "-1", "NELM": "60", "EDIFF": run.incar.get("EDIFF", "1e-4"), "ISPIN": "1",
        "ENMAX": run.incar.get("ENCUT", "400"),
        "NELECT": f"{4.0 * len(run.initial)}", "ISMEAR": "1", "ISIF": "2", "EDIFFG": run.incar.get("EDIFFG", "1e-3"),
        "LHFCALC": "F", "AEXX": "0.0", "HFSCREEN": "0.0", "GGA": "--", "LDAU": "F", "LUSE_VDW": "F",
    }  # fmt: skip
    parameters |= {k: run.incar[k] for k in ("NSW", "IBRION", "NELM", "ISPIN", "ISMEAR", "ISIF") if k in run.incar}
    if run.incar.get("LDAU", "").upper().strip(".").startswith("T"):
        parameters |= {k: run.incar[k] for k in ("LDAU", "LDAUU", "LDAUJ", "LDAUL") if k in run.incar}
    divisions = " ".join(map(str, run.kpoints))
    head = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>\n'
        '<i name="program" type="string">vasp</i><i name="version" type="string">6.4.1</i>'
        f'<i name="date" type="string">{now:%Y %m %d}</i><i name="time" type="string">{now:%H:%M:%S}</i>\n'
        f"</generator>\n<incar>\n{''.join(tag(k, v) for k, v in run.incar.items())}</incar>\n"
        f'<kpoints><generation param="Gamma"><v type="int" name="divisions">{divisions}</v>'
        '<v name="usershift">0.0 0.0 0.0</v></generation>'
        f"{array('kpointlist', [[0, 0, 0]])}{array('weights', [[1]])}</kpoints>\n"
        f"<parameters>\n{''.join(tag(k, v) for k, v in parameters.items())}</parameters>\n"
        f"<atominfo><atoms>{len(run.initial)}</atoms><types>{len(blocks)}</types>\n"
        f'<array name="atoms"><set>\n{atoms}</set></array>\n<array name="atomtypes"><set>\n{types}</set></array>\n'
        f"</atominfo>\n{structure(run.initial, 'initialpos')}"
    )
    last = run.steps[-1].atoms if run.steps else run.initial
    body = "".join(_calculation(step) for step in run.steps[:-1])
    body += "".join(_calculation(step, _eigenvalues(run)) for step in run.steps[-1:])
    return f"{head}{body}{structure(last, 'finalpos')}</modeling>\n"


def _energy(value: float) -> str:
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    return "<energy>" + "".join(f'<i name="{name}">{value:.8f}</i>' for name in names) + "</energy>\n"


def _calculation(step: IonicStep, rest: str = "") -> str:
    scf = "".join(f'<scstep><time name="total">0.01 0.01</time>{_energy(e)}</scstep>\n' for e in step.energies)
    forces = array("forces", step.forces) + array("stress", step.stress_kbar)
    return f"<calculation>\n{scf}{structure(step.atoms)}{forces}{_energy(step.energies[-1])}{rest}</calculation>\n"


def _eigenvalues(run: Run) -> str:
    bands = [(-5.0, 1.0), (0.0, 1.0), (run.band_gap, 0.0), (5.0 + run.band_gap, 0.0)]
    rows = "".join(f"<r>{e:.4f} {occupied:.4f}</r>\n" for e, occupied in bands)
    kpoint = f'<set comment="kpoint 1">\n{rows}</set>\n'
    return (
        '<eigenvalues><array><dimension dim="1">band</dimension><dimension dim="2">kpoint</dimension>'
        '<dimension dim="3">spin</dimension><field>eigene</field><field>occ</field><set>\n'
        f'<set comment="spin 1">\n{kpoint}</set></set></array></eigenvalues>\n'
        '<dos><i name="efermi">0.5</i></dos>\n'
    )


def outcar_head(run: Run) -> str:
    electrons = 4.0 * len(run.initial)
    return (
        " vasp.6.4.1 stand-in\n running on    1 total cores\n"
        f"   ISPIN  =      {run.incar.get('ISPIN', '1')}    spin polarized calculation?\n"
        "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8\n"
        "   total plane-waves  NPLWV =   4096\n"
        f"   NELECT =    {electrons:.4f}    total number of electrons\n"
        f"   IBRION =     {run.incar.get('IBRION', '-1')}    ionic relax\n"
        f" number of electron {electrons:.7f} magnetization       0.0000000\n E-fermi :   0.5000\n"
    )


def outcar_step(number: int, step: IonicStep) -> str:
    text = ""
    for i, e in enumerate(step.energies):
        text += f"----------------- Iteration {number:6d}({i + 1:4d})  ---------------\n"
        text += "     LOOP:  cpu time    0.01: real time    0.01\n  entropy T*S    EENTRO =         0.00000000\n"
        text += f"  free energy    TOTEN  = {e:20.8f} eV\n\n"
        text += f"  energy without entropy = {e:16.8f}  energy(sigma->0) = {e:16.8f}\n"
    return text + (
        "------------------------ aborting loop because EDIFF is reached ------------------------\n"
        f"     LOOP+:  cpu time {step.seconds:9.4f}: real time {step.seconds:9.4f}\n"
    )


OUTCAR_TAIL = """
 General timing and accounting informations for this job:
 ========================================================
                  Total CPU time used (sec):        0.100
                         Elapsed time (sec):        0.100
                   Maximum memory used (kb):       10000.
"""


def magnetization(moments: list[float]) -> str:
    """Moments of the atoms, as OUTCAR has them with LORBIT."""
    rows = "".join(f"{i + 1:5d}        0.000   0.000  {m:6.3f}  {m:6.3f}\n" for i, m in enumerate(moments))
    line = "-" * 50
    total = f"tot          0.000   0.000  {sum(moments):6.3f}  {sum(moments):6.3f}\n"
    return f" magnetization (x)\n \n# of ion       s       p       d       tot\n{line}\n{rows}{line}\n{total}"


def oszicar_step(number: int, step: IonicStep, before: float) -> str:
    text = "       N       E                     dE             d eps       ncg     rms          rms(c)\n"
    for i, e in enumerate(step.energies):
        text += f"DAV: {i + 1:3d}    {e:.12E}    0.10000E-02   -0.10000E-02   100   0.100E+00    0.100E-01\n"
    e = step.energies[-1]
    return text + f"{number:4d} F= {e:.8E} E0= {e:.8E}  d E ={e - before:.6E}\n"


def poscar(atoms: Atoms) -> str:
    """POSCAR or CONTCAR in direct coordinates."""
    blocks = species(atoms)
    cell = "".join(" ".join(f"{x:21.16f}" for x in row) + "\n" for row in atoms.cell.array)
    frac = "".join(" ".join(f"{x:19.16f}" for x in row) + "\n" for row in atoms.get_scaled_positions())
    symbols, counts = (" ".join(str(block[i]) for block in blocks) for i in (0, 1))
    return f"stand-in\n1.0\n{cell}{symbols}\n{counts}\nDirect\n{frac}\n"


def read_incar(path: Path) -> dict[str, str]:
    """Tags and their text."""
    pairs = (line.split("#")[0].split("!")[0].partition("=") for line in path.read_text().splitlines())
    return {key.strip().upper(): value.strip() for key, sep, value in pairs if sep}


def read_potcars(folder: Path) -> list[str]:
    """Symbols such as `Ni_pv`, from POTCAR.spec or the titles of POTCAR; none if there is neither."""
    if (folder / "POTCAR.spec").exists():
        return (folder / "POTCAR.spec").read_text().split()
    if not (folder / "POTCAR").exists():
        return []
    return [line.split()[3] for line in (folder / "POTCAR").read_text().splitlines() if "TITEL" in line]


def read_kpoints(path: Path) -> list[int]:
    """Divisions of a regular mesh; 1 1 1 where there is no KPOINTS (KSPACING)."""
    if not path.exists():
        return [1, 1, 1]
    return [int(word) for word in path.read_text().splitlines()[3].split()[:3]]
