"""`hpcgen dft`: selected.h5 and relaxed-mlip.h5 to relaxed-vasp.h5, by VASP under custodian in slots.

Every selected structure has a folder `vasp/<candidate id>/` with one folder per attempt, and `vasp/ledger-*.jsonl` says
how far it is. The stage may be started as often as is needed: it goes on with what is neither done nor given up, at the
last geometry. If time or a signal ends it before all is done it exits with the code that batch scripts requeue on.

`run_shard` does one part of several, for job arrays; the stage itself then does what is left and writes the file.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from hpcgen import flow, provenance, slots, store
from hpcgen.crystal import Crystal, CrystalBatch
from hpcgen.errors import EXIT_OK, EXIT_REQUEUE, Failure, StoreError
from hpcgen.flow import DftRelaxation, Relaxation, Selected
from hpcgen.stages.context import Balance, Context
from hpcgen.vasp import inputs, many

log = logging.getLogger("hpcgen")

STAGE = "dft"
FOLDER = "vasp"


def run(ctx: Context) -> Balance:
    """Compute every selected structure and write relaxed-vasp.h5.

    Raises:
        SystemExit: with EXIT_REQUEUE, if structures are left.
        DependencyError, LaunchError: if VASP cannot be started here.
    """
    chosen = _chosen(ctx)
    summary = _compute(ctx, chosen, "0-of-1")
    if summary.left:
        log.warning("dft: %d structures are left: %s; run again and it goes on", summary.left, summary.why)
        raise SystemExit(EXIT_REQUEUE)
    config, root = ctx.config, ctx.path(FOLDER)
    assert config.vasp is not None
    standings = slots.standings(root)
    records: list[DftRelaxation] = []
    failures: list[Failure] = []
    for i, (candidate_id, relaxation_id, _) in enumerate(chosen):
        standing = standings[candidate_id]
        outcome = slots.read_outcome(root / candidate_id / f"{standing.result:02d}") if standing.result else None
        if standing.state != "done" or outcome is None:
            text = f"{standing.message} (after {standing.last} attempts, the last in {FOLDER}/{candidate_id})"
            failures.append(Failure(candidate_id, STAGE, standing.kind, text))
            continue
        record_id = flow.make_id(config.identity(STAGE), STAGE, i)
        records.append(_record(record_id, candidate_id, relaxation_id, outcome.result, standing, ctx))
    balance = Balance.of(STAGE, len(chosen), len(records), failures)
    read = {name: store.content_digest(ctx.path(name)) for name in ("selected.h5", "relaxed-mlip.h5")}
    store.write(
        ctx.path("relaxed-vasp.h5"),
        DftRelaxation,
        records,
        failures=failures,
        header=provenance.header(config, read),
        attrs={
            "balance": balance.to_json(),
            "scale": config.vasp.energy_scale,
            "calculator": f"VASP, {config.vasp.input_set}",
        },
    )
    return balance


def run_shard(ctx: Context, shard: int, shards: int) -> int:
    """Compute every `shards`-th structure, from the `shard`-th on; several such parts may run at a time.

    Returns:
        EXIT_OK if the part is done, else EXIT_REQUEUE.
    """
    summary = _compute(ctx, _chosen(ctx)[shard::shards], f"{shard}-of-{shards}")
    log.info(
        "dft, part %d of %d: %d done, %d failed, %d left", shard, shards, summary.done, summary.failed, summary.left
    )
    return EXIT_REQUEUE if summary.left else EXIT_OK


def _compute(ctx: Context, chosen: list[tuple[str, str, Crystal]], shard: str) -> slots.Summary:
    vasp = ctx.config.vasp
    assert vasp is not None
    crystals = {candidate_id: crystal for candidate_id, _, crystal in chosen}
    return many.compute(
        ctx.path(FOLDER),
        [*crystals],
        lambda task: many.order(vasp, crystals[task], inputs.energy(vasp)),
        vasp,
        ctx.config.slots,
        elements={symbol for crystal in crystals.values() for symbol in crystal.elements},
        shard=shard,
    )


def _chosen(ctx: Context) -> list[tuple[str, str, Crystal]]:
    """(candidate id, relaxation id, crystal of the ML potential) of each selected structure, best first.

    Raises:
        StoreError: if selected.h5 names a relaxation that relaxed-mlip.h5 does not hold.
    """
    with store.open(ctx.path("relaxed-mlip.h5"), Relaxation) as f:
        rows = {relaxation_id: row for row, relaxation_id in enumerate(f.ids)}
        crystals: CrystalBatch = f.crystals
    with store.open(ctx.path("selected.h5"), Selected) as f:
        kept, candidates, relaxations = f.column("kept"), f.column("candidate_id"), f.column("relaxation_id")
    wanted = [(c, r) for c, r, keep in zip(candidates, relaxations, kept, strict=True) if keep]
    if any(r not in rows for _, r in wanted):
        raise StoreError(
            "selected.h5 names relaxations that relaxed-mlip.h5 does not hold",
            expected="two files of one run",
            remedy="run `hpcgen select --redo`",
        )
    return [(c, r, crystals[rows[r]]) for c, r in wanted]


def _record(
    record_id: str,
    candidate_id: str,
    relaxation_id: str,
    result: dict[str, Any],
    standing: slots.Standing,
    ctx: Context,
) -> DftRelaxation:
    vasp = ctx.config.vasp
    assert vasp is not None
    forces, stress = np.array(result["forces"]), np.array(result["stress"])
    moment = result["magnetization"]
    folder = Path(FOLDER) / candidate_id / f"{standing.result:02d}"
    return DftRelaxation(
        id=record_id,
        crystal=Crystal(np.array(result["lattice"]), np.array(result["frac"]), np.array(result["numbers"])),
        candidate_id=candidate_id,
        energy=result["energy"],
        energy_initial=result["energy_initial"],
        max_force=float(np.linalg.norm(forces, axis=1).max()),
        max_stress=float(abs(stress).max()),
        max_force_initial=result["max_force_initial"],
        steps=result["steps"],
        converged=True,
        calculator=f"VASP {result['version']}, {vasp.input_set}",
        scale=vasp.energy_scale,
        settings_digest=ctx.config.identity(STAGE),
        seconds=standing.seconds,
        forces=forces,
        stress=stress,
        relaxation_id=relaxation_id,
        run_type=result["run_type"],
        hubbards=json.dumps(result["hubbards"], sort_keys=True),
        potcars=json.dumps(result["potcars"]),
        code=result["version"],
        magnetization=float("nan") if moment is None else moment,
        corrections=json.dumps(result["corrections"], sort_keys=True),
        attempts=standing.last,
        folder=str(folder),
        # outcomes of older versions have no steps
        step_energy=np.array(result.get("step_energy", []), np.float32),
        step_max_force=np.array(result.get("step_max_force", []), np.float32),
        step_run=np.array(result.get("step_run", []), np.uint8),
    )
