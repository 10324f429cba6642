"""What `hpcgen phonons` has in common whoever computes the forces: which crystals, and their records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcgen import flow, store
from hpcgen.config import PhononsConfig
from hpcgen.crystal import Crystal, CrystalBatch
from hpcgen.dynamics.phonons import Spectrum
from hpcgen.errors import Failure
from hpcgen.flow import Phonons, Stability
from hpcgen.stages.context import Context

STAGE = "phonons"
OUTPUT = "phonons.h5"


@dataclass(frozen=True, eq=False)
class Chosen:
    """All crystals of a file of stability, and which of them are computed.

    Attributes:
        ids: of the records to be.
        candidates: id of the candidate that each crystal came from.
        crystals: all of them.
        wanted: rows that are computed, the most stable first.
        refused: why the other rows are not.
    """

    ids: list[str]
    candidates: list[str]
    crystals: CrystalBatch
    wanted: list[int]
    refused: dict[int, Failure]


def choose(ctx: Context, name: str) -> Chosen:
    """The crystals of the file `name`; not wanted are those above the limit, equal to an earlier one, or beyond `n`."""
    config = ctx.config.phonons
    with store.open(ctx.path(name), Stability) as f:
        candidates = [str(candidate) for candidate in f.column("candidate_id")]
        e_hull, unique = f.column("e_hull"), f.column("unique")
        crystals = f.crystals
    identity = ctx.config.identity(STAGE)
    ids = [flow.make_id(identity, STAGE, i) for i in range(len(candidates))]
    wanted: list[int] = []
    refused: dict[int, Failure] = {}
    for i in np.argsort(e_hull, kind="stable").tolist():
        if e_hull[i] > config.max_e_hull:
            kind, text = "above-limit", f"{e_hull[i]:.4f} eV/atom above the hull"
        elif not unique[i]:
            kind, text = "duplicate", "equals an earlier crystal"
        elif config.n is not None and len(wanted) >= config.n:
            kind, text = "budget-spent", f"phonons.n is {config.n}, and so many are more stable"
        else:
            wanted.append(i)
            continue
        refused[i] = Failure(candidates[i], STAGE, kind, text)
    return Chosen(ids, candidates, crystals, wanted, refused)


def record(
    chosen: Chosen,
    i: int,
    crystal: Crystal,
    modes: Spectrum,
    config: PhononsConfig,
    *,
    calculator: str,
    settings_digest: str,
    scale: str,
    max_force: float,
    seconds: float,
) -> Phonons:
    """The verdict on the relaxed crystal of row `i`."""
    frequency, q = modes.lowest()
    n = len(crystal)
    return Phonons(
        id=chosen.ids[i],
        crystal=crystal,
        candidate_id=chosen.candidates[i],
        formula=crystal.formula,
        imaginary=frequency < -config.tolerance,
        lowest_frequency=frequency,
        displacements=modes.displacements,
        supercell_atoms=int(modes.supercell.prod()) * n,
        calculator=calculator,
        settings_digest=settings_digest,
        seconds=seconds,
        gamma=modes.frequencies[0].reshape(n, 3),
        lowest_q=q,
        supercell=modes.supercell,
        forces=config.forces,
        scale=scale,
        max_force=max_force,
    )
