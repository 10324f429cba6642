"""One attempt at one structure: what a slot does with an order (`hpcgen.slots.worker`).

The order holds `lattice`, `frac`, `numbers` of the crystal, `vasp`, the section of the configuration, and `plan`, what
is computed (`inputs.Plan`; its energy if that is left out). A result holds the crystal with its atoms in the order of
the input, the raw energy, and what it was computed with.
"""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from custodian import Custodian
from pymatgen.io.vasp.inputs import Kpoints

from hpcgen.config import VaspConfig
from hpcgen.crystal import Crystal, from_structure, to_structure
from hpcgen.slots.outcome import Control, Outcome
from hpcgen.vasp.handlers import fresh_handlers, fresh_validators
from hpcgen.vasp.inputs import FORCES, SHARED, SINGLE, Plan, energy, input_set, write_inputs
from hpcgen.vasp.jobs import (
    StepJob,
    TaskStoppedError,
    WrongCompositionError,
    read_progress,
    write_progress,
)
from hpcgen.vasp.outputs import UnreadableOutputError, VaspOutput, read_output, read_structure
from hpcgen.vasp.resume import Start, find_start, take_over
from hpcgen.vasp.tidy import tidy
from hpcgen.vasp.verdict import Expected, explain, problem


def run(order: dict[str, Any], control: Control) -> Outcome:
    """Relax and compute a structure in `order["folder"]`, which is empty.

    Raises:
        OSError: if the disk is full.
    """
    for name in ("custodian", "VaspErrorHandler", "VasprunXMLValidator"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # custodian.json has it all, without tracebacks
    folder, config = Path(order["folder"]), VaspConfig.model_validate(order["vasp"])
    outcome = _attempt(order, folder, config, control)
    if outcome.state != "sick":
        tidy(folder, config.drop, compress=config.compress)
    return outcome


def _attempt(order: dict[str, Any], folder: Path, config: VaspConfig, control: Control) -> Outcome:
    crystal = Crystal(np.array(order["lattice"]), np.array(order["frac"]), np.array(order["numbers"]))
    structure = to_structure(crystal)
    structure.add_site_property("place", list(range(len(structure))))
    plan = Plan(**order["plan"]) if "plan" in order else energy(config)
    steps = plan.steps
    try:
        made = input_set(steps[0], structure, config, plan, {})
        input_set(steps[-1], structure, config, plan, {})
    except (KeyError, ValueError) as error:
        return Outcome("failed", "no-inputs", f"{config.input_set} has no settings for {crystal.formula}: {error}")
    # as pymatgen sorts them; POSCAR forgets where an atom came from
    place = [int(i) for i in made.poscar.structure.site_properties["place"]]
    asked = made.poscar.structure.copy(site_properties={})
    if plan.moments is not None:
        plan = replace(plan, moments=[plan.moments[i] for i in place])
    start = Start(asked) if plan.at_rest else find_start(folder, asked, int(order.get("counted", 0)))
    left = [step for step in steps if step not in start.finished]
    take_over(start, folder)
    first = input_set(left[0] if left else steps[-1], start.structure, config, plan, start.carry)
    write_inputs(folder, first, potcars=config.potcars)
    write_progress(folder, {"finished": start.finished, "carry": start.carry, "place": place})
    expected = {step: _expected(step, asked, config, plan, start.carry) for step in steps}
    outcome = _compute(folder, left, config, plan, control, int(order.get("slot", 0)))
    if outcome is not None:
        return outcome
    if FORCES in steps and (text := _unlike_asked(folder, first, read_progress(folder)["carry"])):
        return Outcome("failed", "incomparable-settings", f"it ran only with {text}, unlike the crystal's other cells")
    outputs: dict[str, VaspOutput] = {}
    for step in steps:
        try:
            outputs[step] = read_output(folder, f".{step}")
        except UnreadableOutputError as error:
            return Outcome("again", "truncated-output", str(error))
        wrong = problem(step, outputs[step], expected[step], config.max_volume_change)
        if wrong is not None:
            return Outcome(wrong[2], wrong[0], wrong[1])
    result = _result(outputs, steps, place, crystal, folder)
    result["mesh"] = _mesh(made.kpoints)
    return Outcome("done", result=result)


def _mesh(kpoints: Any) -> list[int] | None:
    """Divisions of a regular mesh; None for what else KPOINTS may hold, and without it."""
    if kpoints is None or kpoints.num_kpts or len(kpoints.kpts[0]) != 3:
        return None
    return [int(k) for k in kpoints.kpts[0]]


def _unlike_asked(folder: Path, made: Any, carry: dict[str, Any]) -> str:
    """What of settings that belong together handlers had to change until forces came out, as words."""
    out = [f"{tag} {carry[tag]} instead of {made.incar.get(tag)}" for tag in sorted(SHARED & set(carry))]
    if made.kpoints is not None:
        asked, taken = made.kpoints, Kpoints.from_file(folder / f"KPOINTS.{FORCES}")
        if (taken.kpts, taken.style) != (asked.kpts, asked.style):
            out.append(f"k-points {taken.kpts[0]} instead of {asked.kpts[0]}")
    return ", ".join(out)


def _compute(
    folder: Path, steps: list[str], config: VaspConfig, plan: Plan, control: Control, slot: int
) -> Outcome | None:
    """Run the steps under custodian; None if all of them came to their end."""
    if not steps:
        return None

    def words(command: list[str] | None) -> list[str] | None:
        return command and [word.replace("{slot}", str(slot)) for word in command]

    facts = config.model_dump(mode="json"), plan.to_json()
    jobs = [StepJob(step, *facts, words(config.command) or [], words(config.gamma_command)) for step in steps]
    for job in jobs:
        job.control = control
    custodian = Custodian(
        fresh_handlers(config, control, at_rest=plan.at_rest, own_smearing="SIGMA" in plan.incar),
        jobs,
        fresh_validators(),
        max_errors=config.max_corrections * len(steps),
        max_errors_per_job=config.max_corrections,
        polling_time_step=config.poll,
        monitor_freq=1,
        directory=str(folder),
    )
    error: Exception | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            custodian.run()
    except TaskStoppedError:
        return _stopped(folder, plan, control)
    except UnreadableOutputError as cut:
        return Outcome("again", "truncated-output", str(cut))
    except WrongCompositionError as wrong:
        return Outcome("failed", "wrong-composition", str(wrong))
    except OSError as other:
        if other.errno in (errno.ENOSPC, errno.EDQUOT) or not any(hasattr(job, "_vasp_process") for job in jobs):
            raise  # the disk, or a command that cannot be started
        error = other
    except Exception as other:  # CustodianError and its kin, but also what a handler stumbles over in a broken file
        error = other
    finally:
        for job in jobs:
            process = getattr(job, "_vasp_process", None)
            if process is not None and process.poll() is None:
                job.terminate(str(folder))
    finished = read_progress(folder)["finished"]
    if all(step in finished for step in steps):
        return None
    if control.stopping:
        return _stopped(folder, plan, control)
    started = [job for job in jobs if job.starts]
    process = getattr(started[-1], "_vasp_process", None) if started else None
    return explain(folder, error, custodian.run_log, process.returncode if process else None)


def _stopped(folder: Path, plan: Plan, control: Control) -> Outcome:
    """It has made progress if there is a geometry to go on from."""
    moved = not plan.at_rest and read_structure(folder / "CONTCAR") is not None
    progress = moved or bool(read_progress(folder)["finished"])
    if control.stopping:
        return Outcome("stopped", "out-of-time", "stopped because the time was up", progress=progress)
    return Outcome("stopped", "stopped-early", "STOPCAR, not hpcgen's, ended VASP", progress=False)


def _expected(step: str, structure: Any, config: VaspConfig, plan: Plan, carry: dict[str, Any]) -> Expected:
    made = input_set(step, structure, config, plan, carry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        incar = made.incar
    elements = list(dict.fromkeys(s.symbol for s in structure.species))
    hubbards = {}
    if incar.get("LDAU"):
        js = incar.get("LDAUJ", [0] * len(elements))
        hubbards = {e: float(u - j) for e, u, j in zip(elements, incar["LDAUU"], js, strict=True) if u - j}
    return Expected(
        symbols=[s.symbol for s in structure.species],
        volume=structure.volume,
        encut=float(incar.get("ENCUT", 0)),
        ispin=int(incar.get("ISPIN", 1)),
        hubbards=hubbards,
        potcars=list(made.potcar_symbols) if config.potcars else [],
    )


def _result(
    outputs: dict[str, VaspOutput], steps: Sequence[str], place: list[int], crystal: Crystal, folder: Path
) -> dict[str, Any]:
    first, last = outputs[steps[0]], outputs[steps[-1]]
    back = np.argsort(place)  # row of POSCAR of each atom of the input
    relaxed = from_structure(last.final)
    assert (relaxed.numbers[back] == crystal.numbers).all()
    forces, initial = last.forces[back], np.linalg.norm(first.forces_initial, axis=1)
    relaxations = [outputs[step] for step in steps if step not in SINGLE]
    return {
        "lattice": relaxed.lattice.tolist(),
        "frac": relaxed.frac[back].tolist(),
        "numbers": crystal.numbers.tolist(),
        "energy": last.energy,
        "energy_initial": first.energy_initial,
        "forces": forces.tolist(),
        "stress": last.stress.tolist(),
        "max_force_initial": float(initial.max()),
        "steps": sum(output.steps for output in relaxations),
        "step_energy": [e / len(crystal) for output in relaxations for e in output.step_energy.tolist()],
        "step_max_force": [f for output in relaxations for f in output.step_max_force.tolist()],
        "step_run": [number for number, output in enumerate(relaxations, 1) for _ in range(output.steps)],
        "run_type": last.run_type,
        "hubbards": last.hubbards,
        "potcars": last.potcars,
        "version": last.version,
        "magnetization": last.magnetization if np.isfinite(last.magnetization) else None,
        "moments": None if last.moments is None else last.moments[back].tolist(),
        "corrections": read_progress(folder)["carry"],
    }
