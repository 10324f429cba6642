"""PBE by GPAW (Mortensen et al., J. Chem. Phys. 160, 092503, 2024), for those without VASP: plane waves, no +U.

Its energies have a zero and corrections of their own, so they are compared with references that GPAW relaxed with the
same settings (`hull.reference: self`), never with Materials Project. Every evaluation is a calculation of its own:
each step of a relaxation changes the cell, after which GPAW starts from atoms anyway, and a result then depends on
its crystal alone. Each rank of the farm computes its own crystal, whether GPAW was built with MPI or not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal, to_atoms
from hpcgen.errors import DependencyError, Failure
from hpcgen.relax import minimise as optimiser
from hpcgen.relax.ase import evaluate
from hpcgen.relax.calculator import Relaxed
from hpcgen.relax.device import one_thread
from hpcgen.relax.minimise import Evaluation, UnphysicalError
from hpcgen.relax.together import relax_together

Grid = tuple[int, int, int]
MAGNETIC = (range(23, 29), range(58, 71), range(92, 97))  # V to Ni, Ce to Yb, U to Cm


class GpawCalculator:
    """See `hpcgen.relax.calculator.Calculator`.

    Attributes:
        scale: `gpaw-pbe-` and a digest of GPAW's version, its setups and the section `relax.gpaw`.
    """

    def __init__(self, config: RelaxConfig) -> None:
        """Raises:
        DependencyError: if GPAW or its PBE setups are not installed.
        """
        if find_spec("gpaw") is None:
            raise DependencyError(
                "the package gpaw is not installed",
                remedy="apt-get install libxc-dev libopenblas-dev, then pip install 'hpcgen[dft]' (docs/relax.md)",
            )
        if find_spec("gpaw_data") is None and not os.environ.get("GPAW_SETUP_PATH"):
            raise DependencyError(
                "GPAW finds no PBE setups", remedy="pip install gpaw-data, or set GPAW_SETUP_PATH to their folder"
            )
        self._config = config
        setups = version("gpaw-data") if find_spec("gpaw_data") else os.environ["GPAW_SETUP_PATH"]
        method = {"gpaw": version("gpaw"), "setups": setups, "settings": config.gpaw.model_dump(mode="json")}
        self.title = f"GPAW {version('gpaw')} PBE"
        self.scale = f"gpaw-pbe-{_digest(method)}"
        self.settings_digest = _digest({"method": method, "config": config.criteria(), "optimiser": optimiser.SETTINGS})

    def relax(self, ids: Sequence[str], crystals: Sequence[Crystal]) -> list[Relaxed | Failure]:
        """One after the other; see `Calculator.relax`.

        The grid of k points is that of the crystal that went in: a change on the way would make the energy jump.
        """
        out: list[Relaxed | Failure] = []
        with one_thread():
            for item_id, crystal in zip(ids, crystals, strict=True):
                fixed = partial(self._evaluate_each, grid=self.grid(crystal))
                out += relax_together(fixed, [item_id], [crystal], self._config, atoms=1)
        return out

    def evaluate_all(self, crystals: Sequence[Crystal]) -> list[Evaluation | UnphysicalError]:
        """Energy without smearing, forces and stress of each.

        `calculator-error` where self-consistency is not reached or an element has no setup.
        """
        return [self.evaluate(crystal, self.grid(crystal)) for crystal in crystals]

    def _evaluate_each(self, crystals: Sequence[Crystal], grid: Grid) -> list[Evaluation | UnphysicalError]:
        return [self.evaluate(crystal, grid) for crystal in crystals]

    def evaluate(self, crystal: Crystal, grid: Grid) -> Evaluation | UnphysicalError:
        """As `evaluate_all`, of one crystal with a given grid of k points."""
        from gpaw import GPAW
        from gpaw.mpi import serial_comm

        calculator = GPAW(**self.parameters(crystal, grid), txt=None, communicator=serial_comm)
        return evaluate(calculator, crystal, magnetic_moments(crystal, self._config.gpaw.magnetic_moment))

    def grid(self, crystal: Crystal) -> Grid:
        """The Monkhorst-Pack grid of `relax.gpaw.k_density`."""
        from ase.calculators.calculator import kptdensity2monkhorstpack

        a, b, c = kptdensity2monkhorstpack(to_atoms(crystal), self._config.gpaw.k_density, even=False)
        return int(a), int(b), int(c)

    def parameters(self, crystal: Crystal, grid: Grid) -> dict[str, Any]:
        """GPAW's keywords; the estimated dE/d(cutoff) takes the Pulay stress off."""
        settings = self._config.gpaw
        return {
            "mode": {"name": "pw", "ecut": settings.cutoff, "dedecut": "estimate"},
            "xc": "PBE",
            "kpts": {"size": grid, "gamma": True},
            "occupations": {"name": "fermi-dirac", "width": settings.smearing},
            "spinpol": any(magnetic_moments(crystal, settings.magnetic_moment)),
            "convergence": {"energy": 1e-5, "density": 1e-5},
            "maxiter": settings.max_iterations,
        }


def magnetic_moments(crystal: Crystal, moment: float) -> list[float]:
    """(n,) initial moments, mu_B: `moment` on the elements of `MAGNETIC`, all parallel."""
    return [moment if any(z in span for span in MAGNETIC) else 0.0 for z in crystal.numbers.tolist()]


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=8).hexdigest()
