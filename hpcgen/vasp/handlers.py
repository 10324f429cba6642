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
    when, and have one structure after the other. A run at rest has one ionic step: it may finish in the first half of
    the time, and is ended after that.
    """

    is_monitor = True
    is_terminating = False
    raises_runtime_error = False

    def __init__(self) -> None:
        self.control = Control()
        self.at_rest = False
        self.level = 0
        self._given = 0.0

    def check(self, directory: str = "./") -> bool:
        """Whether there is something new to tell VASP."""
        return self.control.stopping and self._wanted() > self.level

    def correct(self, directory: str = "./") -> dict[str, Any]:
        """Tell it, by STOPCAR."""
        self.level = self._wanted()
        text = "LSTOP = .TRUE.\n" if self.level == 1 else "LABORT = .TRUE.\n"
        (Path(directory) / "STOPCAR").write_text(text, encoding="utf-8")
        return {"errors": ["told to stop"], "actions": None}

    def _wanted(self) -> int:
        self._given = self._given or self.control.seconds_left
        if self.control.seconds_left < 0.5 * self._given:
            return 2
        return 0 if self.at_rest else 1


def fresh_handlers(config: VaspConfig, control: Control, *, at_rest: bool, own_smearing: bool) -> list[ErrorHandler]:
    """A new list of handlers.

    Args:
        config: which set, and how long VASP may be silent.
        control: when to stop.
        at_rest: whether no atom moves.
        own_smearing: whether smearing was chosen and must stay, as where forces of several runs belong together.
    """
    stop = StopHandler()
    stop.control, stop.at_rest = control, at_rest
    chosen: list[ErrorHandler] = [
        mp.VaspErrorHandler(),
        mp.MeshSymmetryErrorHandler(),
        mp.UnconvergedErrorHandler(),
        mp.NonConvergingErrorHandler(),
        mp.PotimErrorHandler(),
        mp.PositiveEnergyErrorHandler(),
        mp.FrozenJobErrorHandler(timeout=config.hang),
        mp.StdErrHandler(),
    ]
    if not own_smearing:
        chosen += [mp.LargeSigmaHandler(), mp.IncorrectSmearingHandler()]
    if config.input_set != "mp" and not at_rest:
        chosen.append(mp.KspacingMetalHandler())
    return [stop, *chosen]


def fresh_validators() -> list[Validator]:
    """A new list of validators."""
    return [VasprunXMLValidator(), VaspFilesValidator()]
