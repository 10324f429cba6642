"""`hpcgen dynamics`: the most stable crystals of stability.h5 under molecular dynamics -> dynamics.h5.

It comes after the chain and changes nothing in it: run it, then `hpcgen report --redo` shows its columns. Each crystal
at each temperature is one task; its start velocities and thermostat are seeded by its id. A simulation that leaves what
the potential knows is a failure of the crystal, with the temperature in its message.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgen import dynamics, farm, provenance, store
from hpcgen.config import Config, DynamicsConfig
from hpcgen.crystal import Crystal, composition_of
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Dynamics, Simulation, Stability, make_id, seed_of
from hpcgen.relax import get_calculator
from hpcgen.relax.minimise import UnphysicalError
from hpcgen.report.data import FAR_BELOW
from hpcgen.stages.context import Balance, Context

STAGE = "dynamics"
OUTPUT = "dynamics.h5"
SECONDS = 2.5e-3  # of one core for a step of one atom, for scheduling only


@dataclass(frozen=True, eq=False)
class Case:
    """One crystal to be simulated.

    Attributes:
        stability: its record.
        cell: it, repeated.
        ion: atomic number of the mobile ion that is looked for; 0 if none.
        path, path_ratio, path_dimensions: as in `flow.Dynamics`.
    """

    stability: Stability
    cell: Crystal
    ion: int
    path: float
    path_ratio: float
    path_dimensions: int

    @property
    def moves(self) -> bool:
        """Whether diffusion is worth looking for."""
        return self.ion > 0


def run(ctx: Context) -> Balance | None:
    """Simulate; called on every rank, returns the balance on rank 0.

    Raises:
        ConfigError: if the calculator of `relax` gives no forces, or an ion is no element.
        DependencyError: if an ion may move and pymatgen-analysis-diffusion is not installed.
    """
    config = ctx.config
    farm.pin_device(config.farm, config.relax.device)
    calculator = get_calculator(config.relax)
    potential = potential_of(calculator, config.relax.calculator)
    chosen = candidates(ctx)
    cases = [prepare(s, config.dynamics) for s in chosen]
    usable = [c for c in cases if isinstance(c, Case)]
    if any(c.moves for c in usable):
        dynamics.check_installed()  # now, not after hours of simulation
    digest = config.identity(STAGE)
    temperatures = sorted(config.dynamics.temperatures)
    tasks = [(case, t) for case in usable for t in temperatures]
    ids = [make_id(digest, f"{STAGE}-{t:g}", i) for i, _ in enumerate(usable) for t in temperatures]

    def work(i: int) -> Simulation | Failure:
        case, temperature = tasks[i]
        return simulate(potential, case, temperature, config, ids[i])

    def deliver(result: farm.FarmResult) -> Balance:
        items = result.items()
        records: list[Dynamics] = []
        failures = [c for c in cases if isinstance(c, Failure)]
        for k, case in enumerate(usable):
            own = items[k * len(temperatures) : (k + 1) * len(temperatures)]
            broken = [x for x in own if isinstance(x, Failure)]
            if broken:
                failures.append(broken[0])
            else:
                records.append(summarise(case, own, config.dynamics, make_id(digest, STAGE, k), calculator.title))
        balance = Balance.of(STAGE, len(cases), len(records), failures)
        store.write(
            ctx.path(OUTPUT),
            Dynamics,
            records,
            failures=failures,
            header=provenance.header(config, {"stability.h5": store.content_digest(ctx.path("stability.h5"))}),
            attrs={"balance": balance.to_json(), "calculator": calculator.title, "identity": digest},
        )
        return balance

    steps = (config.dynamics.equilibration + config.dynamics.time) * 1000 / config.dynamics.timestep
    return farm.run(
        ids,
        [steps * len(case.cell) * SECONDS for case, _ in tasks],
        work,
        Simulation,
        # shards of other settings or crystals are never taken for these
        shards=ctx.path(f"shards-{STAGE}-{digest[:8]}{store.content_digest(ctx.path('stability.h5'))[:8]}"),
        config=config.farm,
        label=STAGE,
        deliver=deliver,
        name_of=lambda i: tasks[i][0].stability.candidate_id,
    )


def potential_of(calculator: Any, name: str) -> dynamics.Potential:
    """Energy and forces of one crystal, by the calculator's `evaluate_all`, which takes several, or its `evaluate`.

    Raises:
        ConfigError: if it has neither.
    """
    several = getattr(calculator, "evaluate_all", None)
    if several is None:
        if hasattr(calculator, "evaluate"):
            return calculator.evaluate
        raise ConfigError(
            f"relax.calculator is {name}, which relaxes crystals but evaluates none", expected="such as chgnet"
        )

    def one(crystal: Crystal) -> dynamics.Evaluated:
        (result,) = several([crystal])
        if isinstance(result, UnphysicalError):
            raise result
        return result

    return one


def check(ctx: Context) -> None:
    """Return if dynamics.h5 is not there, or was made with the settings of the configuration.

    Raises:
        RunFolderError: if it was made with others: they are no part of what a run folder belongs to.
    """
    ctx.check_made_alike(OUTPUT, STAGE, "`dynamics`")


def candidates(ctx: Context) -> list[Stability]:
    """Who is simulated: unique crystals at or below `dynamics.max_e_hull`, novel ones first, the most stable first.

    Those so far below the hull that the potential or the reference must be wrong come last.
    """
    config = ctx.config.dynamics
    with store.open(ctx.path("stability.h5"), Stability) as f:
        records = [s for s in f if s.unique and s.e_hull <= config.max_e_hull]
    return sorted(records, key=lambda s: (s.e_hull < FAR_BELOW, not s.novel, s.e_hull, s.id))[: config.n]


def prepare(s: Stability, config: DynamicsConfig) -> Case | Failure:
    """The repeated cell, the ion that may be mobile, and its path."""
    from ase.data import atomic_numbers

    unknown = [name for name in config.ions if name not in atomic_numbers]
    if unknown:
        raise ConfigError(f"dynamics.ions names {', '.join(unknown)}", expected="symbols of elements, such as Li")
    cell = dynamics.supercell(s.crystal, config.width)
    if len(cell) > config.max_atoms:
        text = f"{s.formula}: {len(cell)} atoms in a cell {config.width:g} angstrom wide, more than {config.max_atoms}"
        return Failure(s.candidate_id, STAGE, "cell-too-large", text)
    held = [atomic_numbers[name] for name in config.ions if name in s.crystal.elements]
    if not held or len(s.crystal.elements) == 1:
        return Case(s, cell, 0, math.nan, math.nan, 0)
    ion = held[0]
    clearance, dimensions = dynamics.bottleneck(s.crystal, ion)
    radius = float(dynamics.ionic_radii(s.crystal)[s.crystal.numbers == ion][0])
    moves = clearance / radius >= config.min_path or config.min_path == 0
    return Case(s, cell, ion if moves else 0, clearance, clearance / radius, dimensions)


def simulate(
    potential: dynamics.Potential, case: Case, temperature: float, config: Config, task_id: str
) -> Simulation | Failure:
    """One crystal at one temperature."""
    start, settings, s = time.perf_counter(), config.dynamics, case.stability
    try:
        trajectory = dynamics.simulate(
            potential,
            case.cell,
            temperature=temperature,
            equilibration=1000 * settings.equilibration,
            time=1000 * settings.time,
            timestep=settings.timestep,
            interval=settings.interval,
            seed=seed_of(config.seed, task_id),
        )
    except (dynamics.SimulationError, UnphysicalError) as error:
        return Failure(s.candidate_id, STAGE, error.kind, f"{s.formula} at {temperature:g} K: {error}")
    frame = dynamics.framework(trajectory, [case.ion] if case.moves else [])
    found = dynamics.diffusion(trajectory, case.ion) if case.moves else None
    return Simulation(
        id=task_id,
        candidate_id=s.candidate_id,
        temperature=temperature,
        mean_temperature=trajectory.mean_temperature,
        displacement=frame.displacement,
        shift=frame.shift,
        lindemann=frame.lindemann,
        stays=frame.stays,
        diffusivity=found.diffusivity if found else math.nan,
        diffusivity_error=found.error if found else math.nan,
        hops=found.hops if found else 0.0,
        measured=found.measured if found else False,
        seconds=time.perf_counter() - start,
    )


def summarise(case: Case, own: list[Simulation], config: DynamicsConfig, record_id: str, title: str) -> Dynamics:
    """What the simulations of one crystal, coldest first, say together.

    Diffusivities count up to the temperature at which the framework is no crystal any more.
    """
    from ase.data import chemical_symbols

    solid = own[: next((i for i, x in enumerate(own) if not x.stays), len(own))]
    good = [x for x in solid if x.measured]
    at = config.conductivity_at
    fit = dynamics.arrhenius(
        [x.temperature for x in good], [x.diffusivity for x in good], [x.diffusivity_error for x in good], at
    )
    s = case.stability
    conductivity = factor = math.nan
    if fit is not None:
        charge = _charge(s.crystal, case.ion)
        conductivity = fit.diffusivity * dynamics.nernst_einstein(s.crystal, case.ion, charge, at)
        factor = 1 + fit.diffusivity_error / fit.diffusivity
    return Dynamics(
        id=record_id,
        crystal=s.crystal,
        candidate_id=s.candidate_id,
        stability_id=s.id,
        formula=s.formula,
        atoms=len(case.cell),
        stays=len(solid) == len(own),
        stays_up_to=solid[-1].temperature if solid else 0.0,
        displacement=max(x.displacement for x in own),
        ion=chemical_symbols[case.ion] if case.moves else "",
        path=case.path,
        path_ratio=case.path_ratio,
        path_dimensions=case.path_dimensions,
        activation_energy=fit.activation_energy if fit else math.nan,
        activation_energy_error=fit.activation_energy_error if fit else math.nan,
        conductivity=conductivity,
        conductivity_factor=factor,
        conductivity_at=at,
        calculator=title,
        seconds=sum(x.seconds for x in own),
        temperature=np.array([x.temperature for x in own]),
        lindemann=np.array([x.lindemann for x in own]),
        shift=np.array([x.shift for x in own]),
        diffusivity=np.array([x.diffusivity for x in own]),
        diffusivity_error=np.array([x.diffusivity_error for x in own]),
        hops=np.array([x.hops for x in own]),
    )


def _charge(crystal: Crystal, ion: int) -> float:
    """Charge of the ion in the likeliest oxidation states, else in the commonest one of the element."""
    from ase.data import chemical_symbols
    from pymatgen.core import Element

    symbol = chemical_symbols[ion]
    guesses = composition_of(crystal.numbers).oxi_state_guesses()
    return float(guesses[0][symbol] if guesses else Element(symbol).common_oxidation_states[0])
