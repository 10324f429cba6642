"""Any calculator of ASE, by import path: MACE, SevenNet, MatterSim, ORB, EMT, a DFT code.

    relax:
      calculator: ase
      ase: {path: "mace.calculators:mace_mp", arguments: {model: medium, default_dtype: float64}}

Its crystals are relaxed by the same optimiser as CHGNet's, one at a time: an ASE calculator takes one crystal.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.errors import ConfigError, DependencyError, DeviceFailure, Failure
from hpcgen.relax import minimise as optimiser
from hpcgen.relax.calculator import Relaxed
from hpcgen.relax.device import first_line, is_device_failure, one_thread
from hpcgen.relax.minimise import Evaluation, UnphysicalError
from hpcgen.relax.together import relax_together


class AseCalculator:
    """See `hpcgen.relax.calculator.Calculator`.

    Attributes:
        scale: `relax.ase.scale`, or if that is empty a name of its own, made of everything that determines an energy:
            other arguments or another version of the package are another scale.
    """

    def __init__(self, config: RelaxConfig) -> None:
        """Raises:
        ConfigError: if `relax.ase.path` is no import path, or its module has nothing of that name.
        DependencyError: if the package is not installed.
        """
        self._config = config
        module, found, attribute = config.ase.path.partition(":")
        if not (found and module and attribute):
            raise ConfigError(
                f"relax.ase.path is {config.ase.path!r}",
                expected="`module:attribute`, such as mace.calculators:mace_mp",
                remedy="set relax.ase.path, or another relax.calculator",
            )
        self._make_calculator = _find(module, attribute)
        version = _version(module.split(".")[0])
        method = {"path": config.ase.path, "arguments": config.ase.arguments, "version": version}
        self.title = f"{attribute} of {module}" + (f" ({version})" if version else "")
        self.scale = config.ase.scale or f"ase-{_digest(method)}"
        self.settings_digest = _digest(
            {"method": method, "config": config.criteria(), "optimiser": optimiser.SETTINGS, "scale": self.scale}
        )

    def relax(self, ids: Sequence[str], crystals: Sequence[Crystal]) -> list[Relaxed | Failure]:
        """One after the other; see `Calculator.relax`.

        Raises:
            DeviceFailure: if the calculator says that its GPU cannot be used any more.
            ConfigError: if the calculator cannot be made with `relax.ase.arguments`.
        """
        with one_thread():
            return relax_together(self.evaluate_all, ids, crystals, self._config, atoms=1)

    def evaluate_all(self, crystals: Sequence[Crystal]) -> list[Evaluation | UnphysicalError]:
        """Energy, forces and stress of each; `calculator-error` for what the calculator raises on a crystal."""
        return [evaluate(self._calculator, crystal) for crystal in crystals]

    @cached_property
    def _calculator(self) -> Any:
        arguments = self._config.ase.arguments
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return self._make_calculator(**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{self._config.ase.path} cannot be called with relax.ase.arguments {arguments}: {first_line(error)}"
            ) from error


def evaluate(calculator: Any, crystal: Crystal, magnetic_moments: Sequence[float] = ()) -> Evaluation | UnphysicalError:
    """Energy (extrapolated to no smearing where the code does that), forces and stress by a calculator of ASE.

    Args:
        calculator: of ASE.
        crystal: to evaluate.
        magnetic_moments: (n,) initial ones, mu_B, or none.

    Raises:
        DeviceFailure: as `AseCalculator.relax`.
    """
    atoms = to_atoms(crystal)
    if any(magnetic_moments):
        atoms.set_initial_magnetic_moments(magnetic_moments)
    atoms.calc = calculator
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            energy = float(np.asarray(atoms.get_potential_energy()).item())
            forces = np.asarray(atoms.get_forces(), dtype=np.float64)
            stress = np.asarray(atoms.get_stress(voigt=False), dtype=np.float64)
    except Exception as error:
        if is_device_failure(error):
            raise DeviceFailure(first_line(error)) from error
        # codes of all kinds raise errors of all kinds; one of these never stops a campaign
        return UnphysicalError("calculator-error", f"{type(error).__name__}: {first_line(error)}")
    return Evaluation(energy, forces, (stress + stress.T) / 2)


def _find(module: str, attribute: str) -> Callable[..., Any]:
    """Whatever `module:attribute` is.

    Raises:
        DependencyError: if the module, or one that it needs, is not installed.
        ConfigError: if it has no such attribute.
    """
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"relax.ase.path names {module}, and the package {error.name} is not installed",
            remedy="install it in the environment of hpcgen, on every node",
        ) from error
    if not callable(found):
        raise ConfigError(f"relax.ase.path: {module} has nothing of the name {attribute!r} that can be called")
    return found


def _version(package: str) -> str:
    """Name and version of the distribution that a package belongs to; empty where it belongs to none."""
    names = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=8).hexdigest()
