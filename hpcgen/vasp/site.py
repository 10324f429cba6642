"""What a site must have before the first structure is begun: custodian, the command of VASP, and POTCARs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from hpcgen.config import VaspConfig
from hpcgen.errors import DependencyError, LaunchError
from hpcgen.vasp.inputs import SETS

LAUNCHERS = frozenset({"aprun", "ibrun", "jsrun", "mpiexec", "mpiexec.hydra", "mpirun", "orterun", "prterun", "srun"})
"""Programs that start the one named after their options."""


def check_site(config: VaspConfig, elements: Iterable[str]) -> None:
    """Whether VASP can be started here for crystals of these elements.

    Raises:
        DependencyError: if custodian is not installed.
        LaunchError: if the command is not found, or a POTCAR is missing; says what to set.
    """
    check_custodian()
    for key, command in commands(config).items():
        check_command(key, command)
    if config.potcars:
        check_potcars(config, potcar_symbols(config, elements))


def check_custodian() -> None:
    """Raises:
    DependencyError: if custodian is not installed.
    """
    if find_spec("custodian") is None:
        raise DependencyError("VASP runs under custodian, which is not installed", remedy="pip install 'hpcgen[vasp]'")


def commands(config: VaspConfig) -> dict[str, list[str]]:
    """The commands that start VASP, by their keys in the configuration."""
    both = {"vasp.command": config.command, "vasp.gamma_command": config.gamma_command}
    return {key: command for key, command in both.items() if command}


def check_command(key: str, command: Sequence[str]) -> None:
    """Whether the first word of a command is a program.

    Raises:
        LaunchError: if not.
    """
    if shutil.which(command[0]) is not None:
        return
    if Path(command[0]).name == "srun":
        remedy = "run it on a machine of the cluster, or without Slurm by mpirun: [mpirun, -n, '4', vasp_std]"
    else:
        remedy = "load the module that brings it, or correct the command"
    raise LaunchError(
        f"{key} is {' '.join(command)!r}, and there is no program {command[0]!r} here",
        expected="words that start VASP on this machine, such as [srun, -N1, --exact, vasp_std]",
        remedy=remedy,
    )


def program(command: Sequence[str]) -> str | None:
    """Path of what a command computes with: its first word or, after a launcher, the first word that is a program.

    None if there is none on this machine, which does not say that there is none where a launcher starts it.
    """
    words = list(command)
    if Path(words[0]).name in LAUNCHERS:
        words = [word for word in words[1:] if not word.startswith("-")]
    return next((found for word in words if (found := shutil.which(word)) is not None), None)


def potcar_symbols(config: VaspConfig, elements: Iterable[str] | None = None) -> dict[str, str]:
    """POTCAR by element, of those that the set has one for; of all that it knows if none are given."""
    from pymatgen.io.vasp import sets

    known = getattr(sets, SETS[config.input_set][0]).CONFIG["POTCAR"] | config.potcar
    return {element: known[element] for element in sorted(set(known if elements is None else elements) & set(known))}


def check_potcars(config: VaspConfig, symbols: dict[str, str]) -> None:
    """Whether there are POTCARs of these symbols.

    Args:
        symbols: by element, as `potcar_symbols`.

    Raises:
        LaunchError: if not; names those that are missing.
    """
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp import sets
    from pymatgen.io.vasp.inputs import PotcarSingle

    remedy = "export PMG_VASP_PSP_DIR=<folder made by `pmg config -p`>; or vasp.potcars=false if vasp.command adds them"
    place = SETTINGS.get("PMG_VASP_PSP_DIR")
    if not place:
        raise LaunchError("VASP needs POTCAR files, and PMG_VASP_PSP_DIR is not set", remedy=remedy)
    if not Path(place).is_dir():
        raise LaunchError(f"PMG_VASP_PSP_DIR is {place}, which is no folder", remedy=remedy)
    functional = config.functional or getattr(sets, SETS[config.input_set][0]).CONFIG["POTCAR_FUNCTIONAL"]
    missing = []
    for symbol in symbols.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                PotcarSingle.from_symbol_and_functional(symbol, functional)
        except (OSError, ValueError, KeyError):  # none, a damaged one, an unknown family
            missing.append(symbol)
    if missing:
        raise LaunchError(
            f"there is no {functional} POTCAR of {', '.join(missing)} below {place}",
            expected=f"the POTCARs of {config.input_set} for {', '.join(symbols)}",
            remedy=remedy,
        )
