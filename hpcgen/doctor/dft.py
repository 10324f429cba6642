"""VASP, where a configuration goes on to it: custodian, the commands, POTCARs of the elements that will be needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hpcgen import store
from hpcgen.config import Config, VaspConfig
from hpcgen.doctor.finding import Finding
from hpcgen.errors import HpcgenError, LaunchError, StoreError
from hpcgen.farm import World, survey
from hpcgen.flow import Entry, Relaxation, Selected
from hpcgen.vasp import site


def findings(config: Config | None, run_folder: Path, world: World) -> list[Finding]:
    """Nothing where VASP is not asked for. All ranks call it; rank 0 looks, as the controller of the slots is one
    process too.
    """
    if config is None or config.vasp is None:
        return []
    mine = [asdict(f) for f in _look(config, config.vasp, run_folder)] if world.rank == 0 else []
    return [Finding(**told) for told in survey.gather({"findings": mine}, world)[0]["findings"]]


def _look(config: Config, vasp: VaspConfig, run_folder: Path) -> Iterator[Finding]:
    try:
        site.check_custodian()
    except HpcgenError as error:
        yield Finding("problem", "custodian", error.found, error.remedy)
    else:
        yield Finding("ok", "custodian", version("custodian"))
    yield from (_command(key, command) for key, command in site.commands(vasp).items())
    if config.slots.wrapper:
        yield _command("slots.wrapper", config.slots.wrapper)
    yield _potcars(vasp, run_folder)


def _command(key: str, command: list[str]) -> Finding:
    text = " ".join(command)
    try:
        site.check_command(key, command)
    except LaunchError as error:
        return Finding("problem", "VASP", error.found, error.remedy)
    if key == "slots.wrapper":
        return Finding("ok", "VASP", f"{key}: {text}")
    program = site.program(command)
    if program is not None:
        return Finding("ok", "VASP", f"{key}: {text} (with {program})")
    by_slurm = Path(command[0]).name == "srun"  # the nodes may have what this one has not, and jobs load modules
    return Finding(
        "warning" if by_slurm else "problem",
        "VASP",
        f"{key} is {text!r}, and no word after {command[0]} is a program on this machine",
        "load the module of VASP (in slurm/site.env for batch jobs), or give the path of the program",
    )


def _potcars(vasp: VaspConfig, run_folder: Path) -> Finding:
    if not vasp.potcars:
        return Finding("ok", "POTCARs", "vasp.potcars is false: the command has to add them")
    elements, source, certain = _elements(run_folder)
    symbols = site.potcar_symbols(vasp, elements)
    try:
        site.check_potcars(vasp, symbols)
    except LaunchError as error:
        found = f"{error.found}, for elements of {source}" if error.expected else error.found
        return Finding("problem" if certain or not error.expected else "warning", "POTCARs", found, error.remedy)
    return Finding("ok", "POTCARs", f"{len(symbols)}, of all elements of {source}")


def _elements(run_folder: Path) -> tuple[set[str] | None, str, bool]:
    """Elements that VASP will meet as far as that is known, where from, and whether all of them are sure to come."""
    from ase.data import chemical_symbols

    def symbols(numbers: np.ndarray) -> set[str]:
        return {chemical_symbols[z] for z in np.unique(numbers)}

    try:
        with store.open(run_folder / "selected.h5", Selected) as f:
            kept = {r for r, keep in zip(f.column("relaxation_id"), f.column("kept"), strict=True) if keep}
        with store.open(run_folder / "relaxed-mlip.h5", Relaxation) as f:
            rows = [row for row, relaxation_id in enumerate(f.ids) if relaxation_id in kept]
            return symbols(f.crystals.take(rows).numbers), "selected.h5", True
    except StoreError:
        pass
    try:
        with store.open(run_folder / "dataset.h5", Entry) as f:
            return symbols(f.crystals.numbers), "the data set", False
    except StoreError:
        return None, "the input set", False
