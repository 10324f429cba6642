"""Handlers and validators: Materials Project's, made anew for every structure, and the one that stops VASP in time.

`VaspErrorHandler` and others count what they have tried, so a handler that had served another structure would give up
too early.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from custodian.custodian import ErrorHandler, Validator
from custodian.vasp import handlers as mp
from custodian.vasp.validators import VaspFilesValidator, VasprunXMLValidator

from hpcgen.config import VaspConfig
from hpcgen.slots.outcome import Control


class StopHandler(ErrorHandler):
    """Lets VASP stop when its slot is told to: after the ionic step or, when time runs short, after the electronic one.

    Custodian's WalltimeHandler knows one time for the whole process and takes it from the environment; slots are told
    when, and have one structure after the other.
    """

    is_monitor = True
    is_terminating = False
    raises_runtime_error = False

    def __init__(self) -> None:
        self.control = Control()
        self.level = 0
        self._given = 0.0

    def check(self, directory: str = "./") -> bool:
        """Whether there is something new to tell VASP."""
        return self.control.stopping and self._wanted() > self.level

    def correct(self, directory: str = "./") -> dict[str, Any]:
        """Tell it, by STOPCAR."""
        self._given = self._given or self.control.seconds_left
        self.level = self._wanted()
        text = "LSTOP = .TRUE.\n" if self.level == 1 else "LABORT = .TRUE.\n"
        (Path(directory) / "STOPCAR").write_text(text, encoding="utf-8")
        return {"errors": ["told to stop"], "actions": None}

    def _wanted(self) -> int:
        return 2 if self._given and self.control.seconds_left < 0.5 * self._given else 1


def fresh_handlers(config: VaspConfig, control: Control) -> list[ErrorHandler]:
    """A new list of handlers."""
    stop = StopHandler()
    stop.control = control
    chosen: list[ErrorHandler] = [
        mp.VaspErrorHandler(),
        mp.MeshSymmetryErrorHandler(),
        mp.UnconvergedErrorHandler(),
        mp.NonConvergingErrorHandler(),
        mp.PotimErrorHandler(),
        mp.PositiveEnergyErrorHandler(),
        mp.FrozenJobErrorHandler(timeout=config.hang),
        mp.StdErrHandler(),
        mp.LargeSigmaHandler(),
        mp.IncorrectSmearingHandler(),
    ]
    if config.input_set != "mp":
        chosen.append(mp.KspacingMetalHandler())
    return [stop, *chosen]


def fresh_validators() -> list[Validator]:
    """A new list of validators."""
    return [VasprunXMLValidator(), VaspFilesValidator()]
