"""Diffusivity of an ion with an honest error bar, its activation energy, and the conductivity that follows.

Mean square displacements and diffusivities are those of pymatgen-analysis-diffusion's DiffusionAnalyzer. Its error bar
is that of a weighted regression through points that are averages over the same few hops, and is thousands of times too
small (docs/dynamics.md). Here the ions are the independent observations: the diffusivity is the mean of those of the
single ions, its error the standard error of that mean, and never less than the 3.43 / sqrt(hops) + 0.04 of it that He,
Zhu, Epstein and Mo (npj Comput. Mater. 4, 18, 2018) found for ions that move together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
from ase.data import chemical_symbols
from scipy.constants import e as CHARGE
from scipy.constants import k as BOLTZMANN_SI

from hpcgen.crystal import Crystal, FloatArray, to_structure
from hpcgen.dynamics.md import Trajectory
from hpcgen.errors import DependencyError

BOLTZMANN = BOLTZMANN_SI / CHARGE  # eV/K
HOP = 2.5  # angstrom, a usual distance between sites; it turns squared displacements into numbers of hops
MIN_HOPS = 5.0  # hops of all ions together below which nothing is said about diffusion


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Diffusion of one ion at one temperature.

    Attributes:
        diffusivity: cm^2/s; NaN if the simulation is too short for a slope.
        error: its standard error, cm^2/s.
        regression_error: what DiffusionAnalyzer gives, cm^2/s, for comparison.
        hops: squared displacements of all ions over the whole run, in units of `HOP` squared.
        lag: (m,) fs.
        msd: (m,) mean square displacement, angstrom^2.
        measured: hops enough to call it diffusion (`MIN_HOPS`), and more than the error.
    """

    diffusivity: float
    error: float
    regression_error: float
    hops: float
    lag: FloatArray
    msd: FloatArray
    measured: bool


@dataclass(frozen=True)
class Arrhenius:
    """D = D0 exp(-E / kT), fitted to diffusivities at several temperatures.

    Attributes:
        activation_energy, activation_energy_error: eV.
        diffusivity, diffusivity_error: at the temperature asked for, cm^2/s; the error is that of a factor: the value
            lies between diffusivity / factor and diffusivity * factor, with factor = 1 + error / diffusivity.
    """

    activation_energy: float
    activation_energy_error: float
    diffusivity: float
    diffusivity_error: float


def check_installed() -> None:
    """Return if diffusivities can be computed here.

    Raises:
        DependencyError: without pymatgen-analysis-diffusion.
    """
    try:
        installed = find_spec("pymatgen.analysis.diffusion.analyzer") is not None
    except ModuleNotFoundError:  # of the package above it
        installed = False
    if not installed:
        raise DependencyError("pymatgen-analysis-diffusion is not installed", remedy="pip install 'hpcgen[dynamics]'")


def diffusion(trajectory: Trajectory, ion: int) -> Diffusion:
    """Diffusion of the ions of atomic number `ion`.

    Raises:
        DependencyError: without pymatgen-analysis-diffusion.
        ValueError: if there are no such ions, or nothing else.
    """
    check_installed()
    from pymatgen.analysis.diffusion.analyzer import DiffusionAnalyzer, get_diffusivity_from_msd

    ions = trajectory.crystal.numbers == ion
    if ions.all() or not ions.any():
        raise ValueError("diffusion needs both ions and a framework")
    moved = trajectory.displacements - trajectory.displacements[:1]
    try:
        analyzer = DiffusionAnalyzer(
            to_structure(trajectory.crystal),
            moved.transpose(1, 0, 2),
            chemical_symbols[ion],
            trajectory.temperature,
            time_step=cast(Any, trajectory.interval),  # declared as whole, and only multiplied
            step_skip=1,
            smoothed="max",
        )
    except ValueError:  # the run is shorter than the lags that it would take
        nothing = np.zeros(0)
        return Diffusion(np.nan, np.nan, np.nan, 0.0, nothing, nothing, False)
    lag = np.asarray(analyzer.dt, dtype=np.float64)
    each = np.array([get_diffusivity_from_msd(m, lag, "max")[0] for m in analyzer.sq_disp_ions[ions]])
    value = float(analyzer.diffusivity)
    run = (len(moved) - 1) * trajectory.interval
    hops = max(0.0, 6 * value * 10 * run * int(ions.sum()) / HOP**2)  # 10: cm^2/s to angstrom^2/fs
    spread = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.inf
    correlated = value * (3.43 / np.sqrt(hops) + 0.04) if hops > 0 else np.inf
    error = max(spread, correlated)
    return Diffusion(
        diffusivity=value,
        error=error,
        regression_error=float(analyzer.diffusivity_std_dev),
        hops=hops,
        lag=lag,
        msd=np.asarray(analyzer.msd, dtype=np.float64),
        measured=hops >= MIN_HOPS and value > error,
    )


def arrhenius(
    temperatures: Sequence[float], diffusivities: Sequence[float], errors: Sequence[float], at: float
) -> Arrhenius | None:
    """Weighted fit of ln D over 1/T; errors of the parameters follow from those of the diffusivities alone.

    Args:
        temperatures: K, those at which diffusion was measured.
        diffusivities, errors: cm^2/s.
        at: K, where the diffusivity is wanted.

    Returns:
        the fit, or None from fewer than two temperatures.
    """
    if len(set(temperatures)) < 2:
        return None
    x = 1 / (BOLTZMANN * np.asarray(temperatures, dtype=np.float64))
    d = np.asarray(diffusivities, dtype=np.float64)
    relative = np.asarray(errors, dtype=np.float64) / d
    design = np.stack([-x, np.ones_like(x)], axis=1) / relative[:, None]
    covariance = np.linalg.inv(design.T @ design)
    energy, logarithm = covariance @ design.T @ (np.log(d) / relative)
    direction = np.array([-1 / (BOLTZMANN * at), 1.0])
    value = float(np.exp(direction @ [energy, logarithm]))
    factor = float(np.exp(np.sqrt(direction @ covariance @ direction)))
    return Arrhenius(float(energy), float(np.sqrt(covariance[0, 0])), value, value * (factor - 1))


def nernst_einstein(crystal: Crystal, ion: int, charge: float, temperature: float) -> float:
    """Conductivity over diffusivity, S/cm for each cm^2/s, if the ions move independently.

    Args:
        crystal: the crystal.
        ion: atomic number of the ions that carry the charge.
        charge: of one of them, elementary charges.
        temperature: K.
    """
    density = float((crystal.numbers == ion).sum()) / (crystal.volume * 1e-24)  # 1/cm^3
    return density * (charge * CHARGE) ** 2 / (BOLTZMANN_SI * temperature)
