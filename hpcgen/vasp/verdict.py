"""Whether a result can be trusted, and a name for everything that goes wrong.

Custodian's own end is not enough: a run that STOPCAR ended counts as converged for it, and so do the outputs of a VASP
that never started. A structure is done only if every step passes `problem`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from custodian.custodian import CustodianError, ReturnCodeError, ValidationError
from custodian.vasp.handlers import StdErrHandler, VaspErrorHandler

from hpcgen.slots.outcome import Outcome, State
from hpcgen.vasp.inputs import SINGLE
from hpcgen.vasp.outputs import UnreadableOutputError, VaspOutput, read_output

AGAIN: State = "again"
FAILED: State = "failed"
SICK: State = "sick"
_DISK = re.compile(r"no space left on device|disk quota exceeded|severe \(38\)", re.IGNORECASE)
_MEMORY = re.compile(r"out of memory|oom.?kill|exceed(ed)? memory limit|cannot allocate memory", re.IGNORECASE)
_HANDLED: dict[str, tuple[str, State]] = {
    "UnconvergedErrorHandler": ("not-converged", FAILED),
    "NonConvergingErrorHandler": ("scf-not-converged", FAILED),
    "PositiveEnergyErrorHandler": ("positive-energy", FAILED),
    "PotimErrorHandler": ("energy-rises", FAILED),
    "MeshSymmetryErrorHandler": ("mesh-symmetry", FAILED),
    "LargeSigmaHandler": ("smearing-too-large", FAILED),
    "IncorrectSmearingHandler": ("incorrect-smearing", FAILED),
    "KspacingMetalHandler": ("kspacing-of-metal", FAILED),
    "StdErrHandler": ("stderr", FAILED),
}
"""Kind and state by the handler that gave up."""

_UNMENDABLE_INPUT = ("set_core_wf", "read_error", "spin_polarized_harris")


@dataclass(frozen=True)
class Expected:
    """What a step was asked to compute.

    Attributes:
        symbols: elements in the order of POSCAR.
        volume: of the cell that was ordered, cubic angstrom.
        encut: eV; 0 if the set leaves it to VASP.
        ispin: 1 or 2.
        hubbards: U - J by element where it is not zero.
        potcars: symbols such as `Ni_pv` in the order of POSCAR; empty where hpcgen did not write POTCAR.
    """

    symbols: list[str]
    volume: float
    encut: float
    ispin: int
    hubbards: dict[str, float]
    potcars: list[str]


def problem(
    step: str, output: VaspOutput, expected: Expected, max_volume_change: float
) -> tuple[str, str, State] | None:
    """What speaks against the result of a step: (kind, message, state), or None."""
    final = output.final
    if sorted(s.symbol for s in final.species) != sorted(expected.symbols):
        return "wrong-composition", f"{step} ended with {final.composition.formula}", FAILED
    if output.stopped:
        return "stopped-early", f"{step} was ended by STOPCAR after {output.steps} ionic steps", AGAIN
    if not output.electronic:
        return "scf-not-converged", f"the electronic steps of {step} reached NELM", FAILED
    if step not in SINGLE and not output.ionic:
        return "not-converged", f"{step} was not relaxed after {output.steps} ionic steps", FAILED
    numbers = [output.energy, *output.forces.ravel(), *final.lattice.matrix.ravel()]
    if not np.isfinite(numbers).all():
        return "not-finite", f"energy, forces or cell of {step} are not numbers", FAILED
    ratio = final.volume / expected.volume
    if not 1 / max_volume_change <= ratio <= max_volume_change:
        return "volume-changed", f"{step} changed the volume {ratio:.2f} times", FAILED
    different = _differences(output, expected)
    if different:
        return "incomparable-settings", f"{step} was computed with {different}", FAILED
    return None


def _differences(output: VaspOutput, expected: Expected) -> str:
    """What VASP took other than asked, as words: energies would not be comparable."""
    out = []
    if expected.encut and abs(output.tags["ENCUT"] - expected.encut) > 0.1:
        out.append(f"ENCUT {output.tags['ENCUT']:g} instead of {expected.encut:g} eV")
    if output.tags["ISPIN"] != expected.ispin:
        out.append(f"ISPIN {output.tags['ISPIN']:g} instead of {expected.ispin}")
    found = {element: u for element, u in output.hubbards.items() if u}
    if found != expected.hubbards:
        out.append(f"U of {found or 'none'} instead of {expected.hubbards or 'none'}")
    if expected.potcars:
        used = [title.split()[1] for title in output.potcars]
        if used != expected.potcars:
            out.append(f"POTCAR {' '.join(used)} instead of {' '.join(expected.potcars)}")
    return ", ".join(out)


def diagnose(folder: Path) -> list[str]:
    """Names of the known errors that VASP's standard output and error of a folder show, as custodian calls them."""
    found: list[str] = []
    mesh = {"mesh_symmetry": ["Reciprocal lattice and k-lattice belong to different class of lattices"]}
    for name, table in (("vasp.out", VaspErrorHandler.error_msgs | mesh), ("std_err.txt", StdErrHandler.error_msgs)):
        text = _text(folder / name)
        found += [err for err, words in table.items() if err != "auto_nbands" and any(w in text for w in words)]
    return list(dict.fromkeys(found))


def explain(folder: Path, error: BaseException | None, log: list[dict[str, Any]], code: int | None) -> Outcome:
    """The outcome of a run of custodian that did not finish all steps.

    Args:
        folder: with the files of the step that was at work.
        error: what custodian raised, if it did.
        log: custodian's own log: jobs, corrections, who gave up.
        code: exit code of the last VASP; negative for a signal.
    """
    words = "\n".join(_text(folder / name) for name in ("vasp.out", "std_err.txt"))
    tail = " / ".join(line.strip() for line in words.splitlines()[-3:] if line.strip())[:300]
    if _DISK.search(words):
        return Outcome(SICK, "disk-full", f"VASP could not write: {tail}")
    last = log[-1] if log else {}
    if type(last.get("handler")).__name__ == "FrozenJobErrorHandler":
        return Outcome(AGAIN, "hung", f"VASP was silent for too long: {tail}")
    known = diagnose(folder)
    wrote = (
        (folder / "OUTCAR").exists() or (folder / "OSZICAR").exists() or "vasp" in _text(folder / "vasp.out").lower()
    )
    if not wrote and not known:
        return Outcome(SICK, "never-started", f"the command ended with code {code} and wrote nothing: {tail}")
    if _MEMORY.search(words) or "out_of_memory" in known:
        return Outcome(AGAIN, "out-of-memory", tail)
    if isinstance(error, ValidationError | ReturnCodeError) and code:
        return Outcome(AGAIN, "crashed", f"VASP {_how(code)}: {tail}")
    if isinstance(error, ValidationError):
        return Outcome(AGAIN, "truncated-output", f"VASP ended with code 0, but {error.message}")
    if isinstance(error, CustodianError) or last.get("handler") is not None:
        return _given_up(folder, last, known, tail)
    if known:
        return Outcome(AGAIN, known[-1].replace("_", "-"), tail)
    text = f"{type(error).__name__}: {error}" if error else "custodian ended without a reason"
    return Outcome(AGAIN, "custodian-error", f"{text}; {tail}")


def _given_up(folder: Path, last: dict[str, Any], known: list[str], tail: str) -> Outcome:
    """Custodian has no remedy left."""
    corrections = last.get("corrections", [])
    handler = last.get("handler") or (corrections[-1]["handler"] if corrections else None)
    name = type(handler).__name__
    tried = sum(bool(c["actions"]) for c in corrections)
    errors = [e for c in corrections if type(c["handler"]).__name__ == name for e in c["errors"]][-1:] or known
    if name == "VaspErrorHandler" and errors:
        kind = errors[-1].replace("_", "-")
        state: State = FAILED
        if errors[-1] in _UNMENDABLE_INPUT:
            kind = f"input-{kind}"
    else:
        kind, state = _HANDLED.get(name, ("not-mended", FAILED))
        if name == "UnconvergedErrorHandler" and not _electrons_converged(folder):
            kind = "scf-not-converged"
    return Outcome(state, kind, f"{name} gave up after {tried} corrections of this step: {tail}")


def _electrons_converged(folder: Path) -> bool:
    try:
        return read_output(folder).electronic
    except UnreadableOutputError:
        return False


def _how(code: int) -> str:
    import signal

    number = -code if code < 0 else code - 128
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with code {code}"


def _text(path: Path) -> str:
    """A text file's last megabyte, or nothing."""
    if not path.is_file():
        return ""
    with path.open("rb") as source:
        source.seek(max(path.stat().st_size - (1 << 20), 0))
        return source.read().decode("utf-8", errors="replace")
