"""`hpcgen reference`: the competing phases of the survivors, reference.h5.

`hull.reference` is one of
- `self`: the elements of the survivors in several structures each, of which the lowest is kept, and training
  structures inside the survivors' chemical systems, all relaxed by the calculator and with the settings of the
  candidates. What does not converge is kept: its energy is an upper bound, nearer to the truth than no entry;
- a CSV (plain or gzip) of Materials Project formation energies, with the elemental references `hull.elements`;
- pymatgen ComputedEntries (json or json.gz), with `hull.elements` for elements that they lack;
- a reference.h5 of another run, or a snapshot by `hpcgen reference fetch` or `hpcgen reference build`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcgen import farm, flow, provenance, store
from hpcgen.config import HullConfig, resolve_path
from hpcgen.crystal import Crystal
from hpcgen.data.prototypes import element_structures
from hpcgen.errors import ConfigError, Failure
from hpcgen.flow import Relaxation
from hpcgen.relax import cost, get_calculator, relax_all
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.data import training_structures
from hpcgen.stages.relax import groups_of, kept_candidates
from hpcgen.thermo import ReferenceSet, from_formation_energies, from_relaxations
from hpcgen.thermo.entries import from_computed_entries
from hpcgen.thermo.files import sha256

log = logging.getLogger("hpcgen")

STAGE = "reference"
SHARDS = "shards-reference"
System = tuple[str, ...]


def run(ctx: Context) -> Balance | None:
    """Make or take over the reference set; called on every rank, returns the balance on rank 0."""
    if ctx.config.hull.reference == "self":
        return _by_own_calculator(ctx)
    return _from_file(ctx) if farm.world().rank == 0 else None


def _from_file(ctx: Context) -> Balance:
    reference, failures, entered, inputs = read_reference(ctx.config.hull, ctx.config.identity(STAGE), ctx.config_dir)
    return _write(ctx, reference, entered, failures, inputs, {})


def read_reference(
    hull: HullConfig, run_digest: str = "", config_dir: Path | None = None
) -> tuple[ReferenceSet, list[Failure], int, dict[str, str]]:
    """The reference that `hull.reference` names as a file: the set, failures, items read, digests by file name.

    Raises:
        ConfigError: if it is no file of a known layout, or a CSV without `hull.elements`.
        ThermoError, StoreError: if a file is missing, damaged or of another layout.
    """
    path = resolve_path(hull.reference, config_dir)
    name = path.name.lower()
    if name.endswith((".h5", ".hdf5")):
        reference = ReferenceSet.read(path)
        return reference, [], len(reference.entries), {path.name: store.content_digest(path)}
    elements = resolve_path(hull.elements, config_dir) if hull.elements is not None else None
    if name.endswith((".json", ".json.gz")):
        reference, failures, entered = from_computed_entries(path, run_digest, elements=elements)
    elif name.endswith((".csv", ".csv.gz")):
        if elements is None:
            raise ConfigError(
                f"hull.reference is a CSV of formation energies ({hull.reference}) and hull.elements is not set",
                expected="the ComputedEntries of the elements (json or json.gz), which give the energies their zero",
                remedy="set hull.elements",
            )
        reference, failures, entered = from_formation_energies(path, elements, run_digest)
    else:
        raise ConfigError(
            f"hull.reference is {hull.reference!r}", expected="`self`, or a .csv, .csv.gz, .json, .json.gz or .h5 file"
        )
    return reference, failures, entered, {p.name: sha256(p) for p in (path, elements) if p is not None}


def _by_own_calculator(ctx: Context) -> Balance | None:
    config = ctx.config
    farm.pin_device(config.farm, config.relax.device)
    calculator = get_calculator(config.relax)
    systems = [crystal.elements for crystal in kept_candidates(ctx).crystals]
    elements = sorted({symbol for system in systems for symbol in system})
    trials = [(f"{symbol} {label}", crystal) for symbol in elements for label, crystal in element_structures(symbol)]
    structures = choose_structures(training_structures(ctx), systems, config.hull.max_structures)
    tasks: list[tuple[str, Crystal]] = [*trials, *structures]
    ids = [flow.make_id(config.identity(STAGE), f"{STAGE}-task", i) for i in range(len(tasks))]

    def work(members: list[int]) -> list[Relaxation | Failure]:
        names = [ids[i] for i in members]
        results = relax_all(calculator, [tasks[i][1] for i in members], names, names)
        return [
            replace(result, stage=STAGE, message=f"{tasks[i][0]}: {result.message}")
            if isinstance(result, Failure)
            else result
            for i, result in zip(members, results, strict=True)
        ]

    def deliver(result: farm.FarmResult) -> Balance:
        kept, failures = keep_lowest([name for name, _ in tasks], result.items(), len(trials))
        rough = sum(not r.converged for _, r in kept)
        missing = sorted(set(elements) - {r.crystal.elements[0] for _, r in kept if len(r.crystal.elements) == 1})
        if missing:
            log.warning("no structure of %s could be relaxed: crystals with it get no hull", ", ".join(missing))
        source = (
            f"{len(elements) - len(missing)} elements and {len(kept) - len(elements) + len(missing)} training "
            f"structures relaxed by {calculator.title}, the potential of the candidates; NOT Materials Project: "
            f"phases that are not in the training data are missing, so energies above the hull are lower bounds"
            + (f" ({rough} structures are not fully relaxed)" if rough else "")
        )
        date = datetime.now(UTC).date().isoformat()
        reference = from_relaxations(kept, calculator.scale, calculator.title, date, source, config.identity(STAGE))
        names = ("survivors.h5", "candidates.h5", "dataset.h5")
        inputs = {name: store.content_digest(ctx.path(name)) for name in names}
        attrs = {"settings_digest": calculator.settings_digest, "not_converged": rough}
        return _write(ctx, reference, len(tasks), failures, inputs, attrs)

    return farm.run(
        ids,
        [cost(len(crystal)) for _, crystal in tasks],
        work,
        Relaxation,
        shards=ctx.path(SHARDS),
        config=config.farm,
        label=STAGE,
        groups=groups_of(len(ids), config.relax.batch),
        deliver=deliver,
    )


def keep_lowest(
    names: Sequence[str], items: Sequence[Relaxation | Failure], n_trials: int
) -> tuple[list[tuple[str, Relaxation]], list[Failure]]:
    """Of the first `n_trials` items the lowest of each element, of the others every relaxation; and the failures.

    A trial structure that lies higher than another of its element is a failure of the kind `higher-polymorph`.
    """
    best: dict[System, int] = {}
    for i, item in enumerate(items[:n_trials]):
        if isinstance(item, Relaxation):
            system = item.crystal.elements
            if system not in best or _per_atom(item) < _per_atom(items[best[system]]):
                best[system] = i
    kept, failures = [], []
    for i, (name, item) in enumerate(zip(names, items, strict=True)):
        if isinstance(item, Failure):
            failures.append(item)
        elif i < n_trials and best[item.crystal.elements] != i:
            lowest = best[item.crystal.elements]
            above = _per_atom(item) - _per_atom(items[lowest])
            text = f"{name} lies {above:.4f} eV/atom above {names[lowest]}"
            failures.append(Failure(item.id, STAGE, "higher-polymorph", text))
        else:
            kept.append((name, item))
    return kept, failures


def choose_structures(
    entries: Sequence[tuple[str, Crystal]], systems: Sequence[System], limit: int
) -> list[tuple[str, Crystal]]:
    """The training structures that compete with the survivors, at most `limit`, the same ones every time.

    Only those whose elements all lie in one survivor's chemical system. The systems take turns, those that compete
    with most survivors first; inside a system a formula gets a second structure only after every formula has one.

    Args:
        entries: (name, crystal) of the training structures.
        systems: chemical systems of the survivors, with repetitions.
        limit: structures at most.
    """
    sets = [frozenset(s) for s in systems]
    weight: dict[System, int] = {}
    queues: dict[System, list[tuple[str, Crystal]]] = defaultdict(list)
    for name, crystal in entries:
        system = crystal.elements
        if system not in weight:
            weight[system] = sum(s.issuperset(system) for s in sets)
        if weight[system]:
            queues[system].append((name, crystal))
    for system, queue in queues.items():
        repeats: dict[str, int] = defaultdict(int)
        ranked: list[tuple[int, int, str, Crystal]] = []
        for name, crystal in queue:
            formula = crystal.formula
            ranked.append((repeats[formula], len(ranked), name, crystal))
            repeats[formula] += 1
        queues[system] = [(name, crystal) for _, _, name, crystal in sorted(ranked, key=lambda r: r[:2])]
    order = sorted(queues, key=lambda s: (-weight[s], -len(s), s))
    longest = max((len(q) for q in queues.values()), default=0)
    turns = [queues[system][turn] for turn in range(longest) for system in order if turn < len(queues[system])]
    return turns[:limit]


def _per_atom(item: Any) -> float:
    return item.energy / len(item.crystal)


def _write(
    ctx: Context,
    reference: ReferenceSet,
    entered: int,
    failures: list[Failure],
    inputs: dict[str, str],
    attrs: dict[str, Any],
) -> Balance:
    balance = Balance.of(STAGE, entered, len(reference.entries), failures)
    path: Path = ctx.path("reference.h5")
    reference.write(
        path,
        failures=failures,
        header=provenance.header(ctx.config, inputs),
        attrs={"balance": balance.to_json(), **attrs},
    )
    return balance
